/**
 * Which type of a source column fits which type of a target column: every value must come back with the text it had.
 *
 * Equal types fit; what else fits, and what people will try that does not, stands in the tables below with its reason.
 * Everything that is not written here is refused by name.
 */
import type { ColumnFacts } from "../../src/core/index.ts";
import type { PostgresFacts } from "./inspect.ts";

/** A type without its domains: what values really are. */
export interface ValueType {
  /** Name without modifiers and schema: `numeric`; for an array that of its element. */
  readonly name: string;
  /** Defined by PostgreSQL itself. */
  readonly builtIn: boolean;
  readonly array: boolean;
  readonly kind: ColumnFacts["typeKind"];
  /** As printed, domains resolved: `numeric(14,2)`. */
  readonly printed: string;
  /** `14,2`; null where there are none. */
  readonly modifiers: string | null;
  readonly labels: readonly string[] | null;
  /** What is inside a composite or a range; null otherwise. */
  readonly definition: string | null;
}

export type Fit =
  | { readonly fits: true; readonly note: string | null }
  | { readonly fits: false; readonly reason: string };

/** Resolves domains and splits arrays. */
export function valueType(column: ColumnFacts, facts: Pick<PostgresFacts, "definitions">): ValueType {
  const definition = facts.definitions[`${column.typeSchema}.${column.typeName}`] ?? null;
  const isDomain = column.typeKind === "domain";
  const printed = isDomain ? (definition ?? column.type) : column.type;
  const array = printed.endsWith("[]");
  return {
    name: isDomain && array ? column.baseTypeName.replace(/^_/, "") : column.baseTypeName,
    builtIn: isDomain ? !hasSchema(printed) : column.typeSchema === "pg_catalog",
    array,
    kind: isDomain && column.enumLabels !== null ? "enum" : column.typeKind,
    printed,
    modifiers: /\(([^)]*)\)/.exec(printed.replaceAll(/"[^"]*"/g, ""))?.[1] ?? null,
    labels: column.enumLabels,
    definition: isDomain ? null : definition,
  };
}

/** Names of PostgreSQL's own types are printed without a schema, as search_path is pg_catalog. */
function hasSchema(printed: string): boolean {
  return printed.replaceAll(/"[^"]*"/g, "x").includes(".");
}

/** Whether each value of `source` can stand in `target` unchanged. */
export function typeFit(source: ValueType, target: ValueType): Fit {
  if (source.array !== target.array) return no(source.array ? "an array does not fit a single value" : "a single value does not fit an array");
  if (source.labels !== null && target.labels !== null) return enumFit(source.labels, target.labels);
  if (source.labels !== null) return textFit(target, "an enum's label");
  if (!source.builtIn || !target.builtIn) return userTypeFit(source, target);
  if (source.name === target.name) return sameNameFit(source, target);
  const widening = WIDENINGS[`${source.name} > ${target.name}`];
  if (widening !== undefined) return widening(source, target);
  return no(REFUSALS[`${source.name} > ${target.name}`] ?? "this pair is not among those known to keep every value");
}

const YES: Fit = { fits: true, note: null };
const yes = (): Fit => YES;
const no = (reason: string): Fit => ({ fits: false, reason });

// ---------------------------------------------------------------- equal names

type Rule = (source: ValueType, target: ValueType) => Fit;

const SAME_NAME: Readonly<Record<string, Rule>> = {
  varchar: (s, t) => lengthFit(s, t),
  varbit: (s, t) => lengthFit(s, t),
  bpchar: (s, t) => (s.modifiers === t.modifiers ? YES : no("char(n) pads with blanks: another length is another text")),
  bit: (s, t) => (s.modifiers === t.modifiers ? YES : no("bit(n) has exactly n bits")),
  numeric: (s, t) => numericFit(s, t),
  time: (s, t) => fractionFit(s, t),
  timetz: (s, t) => fractionFit(s, t),
  timestamp: (s, t) => fractionFit(s, t),
  timestamptz: (s, t) => fractionFit(s, t),
  interval: (s, t) => (s.printed === t.printed || t.printed.replace("[]", "") === "interval" ? YES : no("the target keeps fewer fields or digits of an interval")),
};

function sameNameFit(source: ValueType, target: ValueType): Fit {
  if (source.name.startsWith("reg")) return { fits: true, note: "names an object of the database by name: it must exist on the target too" };
  return (SAME_NAME[source.name] ?? yes)(source, target);
}

/** Without a length a type takes everything. */
function lengthFit(source: ValueType, target: ValueType): Fit {
  if (target.modifiers === null) return YES;
  if (source.modifiers !== null && Number(source.modifiers) <= Number(target.modifiers)) return YES;
  return no(`the target holds at most ${target.modifiers}, the source ${source.modifiers === null ? "has no limit" : `up to ${source.modifiers}`}`);
}

function fractionFit(source: ValueType, target: ValueType): Fit {
  const [from, to] = [Number(source.modifiers ?? 6), Number(target.modifiers ?? 6)];
  return from <= to ? YES : no(`the target rounds to ${to} fractional digits, the source has ${from}`);
}

function numericFit(source: ValueType, target: ValueType): Fit {
  if (target.modifiers === null) return YES;
  if (source.modifiers === null) return no("the source has no limit, the target rounds and refuses");
  return digitsFit(decimal(source.modifiers), decimal(target.modifiers));
}

interface Decimal { readonly whole: number; readonly scale: number }

function decimal(modifiers: string): Decimal {
  const [precision = 0, scale = 0] = modifiers.split(",").map(Number);
  return { whole: precision - scale, scale };
}

function digitsFit(source: Decimal, target: Decimal): Fit {
  if (target.scale < source.scale) return no(`the target rounds to ${target.scale} fractional digits, the source has ${source.scale}`);
  if (target.whole < source.whole) return no(`the target has room for ${target.whole} digits before the point, the source for ${source.whole}`);
  return target.scale === source.scale ? YES : { fits: true, note: `the same number is written with ${target.scale} instead of ${source.scale} fractional digits` };
}

// ---------------------------------------------------------------- wider types

const intoNumeric = (digits: number): Rule => (_, target) => (target.modifiers === null ? YES : digitsFit({ whole: digits, scale: 0 }, decimal(target.modifiers)));
const intoText = (length: number | null): Rule => (_, target) => (
  target.modifiers === null || (length !== null && Number(target.modifiers) >= length) ? YES : no(`the target holds at most ${target.modifiers} characters`));

const WIDENINGS: Readonly<Record<string, Rule>> = {
  "int2 > int4": yes, "int2 > int8": yes, "int4 > int8": yes,
  "int2 > numeric": intoNumeric(5), "int4 > numeric": intoNumeric(10), "int8 > numeric": intoNumeric(19),
  "oid > int8": yes,
  "varchar > text": yes, "text > varchar": intoText(null), "name > text": yes, "name > varchar": intoText(63),
  "uuid > text": yes, "uuid > varchar": intoText(36),
  "bit > varbit": (s, t) => lengthFit({ ...s, modifiers: s.modifiers ?? "1" }, t),
  "json > text": yes, "jsonb > text": yes, "jsonb > json": yes, "xml > text": yes,
};

// ---------------------------------------------------------------- known to lose something

const OTHER_MOMENT = "a local time and a moment are different things: it would be read in some session's time zone";
const REFUSALS: Readonly<Record<string, string>> = {
  "float4 > float8": "0.1 as float4 is another number than 0.1 as float8",
  "float8 > float4": "digits are lost",
  "float4 > numeric": "a binary fraction has no exact decimal text of its own scale", "float8 > numeric": "a binary fraction has no exact decimal text of its own scale",
  "numeric > float8": "decimal digits are lost", "numeric > float4": "decimal digits are lost",
  "int4 > float8": "numbers and their text part ways (1e+15)", "int8 > float8": "digits beyond 2^53 are lost",
  "int8 > int4": "the target's range is smaller", "int8 > int2": "the target's range is smaller", "int4 > int2": "the target's range is smaller",
  "numeric > int8": "fractions are rounded", "numeric > int4": "fractions are rounded", "numeric > int2": "fractions are rounded",
  "date > timestamp": "a day becomes a midnight", "date > timestamptz": "a day becomes a midnight in some time zone",
  "timestamp > date": "the time of day is lost", "timestamptz > date": "the time of day is lost",
  "timestamp > timestamptz": OTHER_MOMENT, "timestamptz > timestamp": OTHER_MOMENT, "time > timetz": OTHER_MOMENT, "timetz > time": OTHER_MOMENT,
  "json > jsonb": "key order, repeated keys and spaces are lost", "text > json": "not every text is JSON", "text > jsonb": "not every text is JSON",
  "bpchar > text": "char(n) pads with blanks that text keeps", "bpchar > varchar": "char(n) pads with blanks that varchar keeps",
  "text > bpchar": "char(n) pads with blanks and refuses what is longer", "varchar > bpchar": "char(n) pads with blanks and refuses what is longer",
  "text > name": "a name is cut at 63 bytes", "varchar > name": "a name is cut at 63 bytes",
  "varbit > bit": "bit(n) has exactly n bits",
  "cidr > inet": "10.0.0.1/32 is printed as 10.0.0.1", "inet > cidr": "bits to the right of the mask are refused",
  "money > numeric": "money's text has a currency sign and grouping of the server's locale", "numeric > money": "fractions are rounded to the locale's",
  "text > uuid": "not every text is a UUID, and its spelling is lost", "varchar > uuid": "not every text is a UUID, and its spelling is lost",
  "bool > int2": "true has no number of its own", "bool > int4": "true has no number of its own", "int2 > bool": "numbers other than 0 and 1 are lost", "int4 > bool": "numbers other than 0 and 1 are lost",
  "text > bytea": "backslashes mean something in bytea", "bytea > text": "bytes are not text in any encoding",
};

// ---------------------------------------------------------------- user-defined types

function enumFit(source: readonly string[], target: readonly string[]): Fit {
  const missing = source.filter((label) => !target.includes(label));
  return missing.length === 0 ? YES : no(`the target's enum lacks ${missing.map((label) => `"${label}"`).join(", ")}`);
}

function textFit(target: ValueType, what: string): Fit {
  if (target.name === "text" || (target.name === "varchar" && target.modifiers === null)) return YES;
  if (target.name === "varchar") return no(`${what} may be longer than ${target.modifiers} characters`);
  return no(`${what} is text, the target's type is ${target.printed}`);
}

/** Types that extensions bring or users make: equal name and, where there is one, equal definition. */
function userTypeFit(source: ValueType, target: ValueType): Fit {
  if (source.name === "citext" && target.builtIn) return textFit(target, "a citext value");
  if (target.name === "citext" && source.name !== "citext") return no("citext takes values for equal that the source keeps apart");
  if (target.labels !== null) return no("not every value is a label of the target's enum");
  if (source.builtIn || target.builtIn || source.name !== target.name) return no("this pair is not among those known to keep every value");
  if (source.definition !== target.definition) return no(`the types have the same name but differ: (${source.definition ?? ""}) and (${target.definition ?? ""})`);
  return source.modifiers === target.modifiers ? YES : no("the types' modifiers differ");
}
