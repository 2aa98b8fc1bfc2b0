/** Types of MySQL and MariaDB in the words that all engines share. */
import type { ColumnFacts, CommonType } from "../../src/core/index.ts";

type Facts = Omit<ColumnFacts, "common">;

/** What `type` and its name do not tell. */
export interface TypeDetails {
  /** CHARACTER_MAXIMUM_LENGTH: characters of texts, bytes of the others; null where the type has none. */
  readonly length: number | null;
  /** MariaDB's JSON is LONGTEXT with a check of its own. */
  readonly checkedJson: boolean;
}

/** The length of LONGTEXT and LONGBLOB is none that a row could reach. */
const UNREACHABLE = 4_294_967_295;

type Make = (type: string, modifiers: readonly number[], details: TypeDetails) => CommonType;

const integer = (bits: 8 | 16 | 24 | 32 | 64): Make => (type) => ({ kind: "integer", bits, unsigned: isUnsigned(type) });
const float = (bits: 32 | 64): Make => () => ({ kind: "float", bits });
const text = (padded: boolean): Make => (_type, _modifiers, { length }) => ({ kind: "text", characters: bounded(length), padded });
const bytes = (fixed: boolean): Make => (_type, _modifiers, { length }) => ({ kind: "bytes", length: bounded(length), fixed });
const longText: Make = (type, modifiers, details) => (details.checkedJson ? { kind: "json", exact: true } : text(false)(type, modifiers, details));

const TYPES = {
  tinyint: (type, modifiers, details) => (/^tinyint\(1\)$/.test(type) ? { kind: "boolean" } : integer(8)(type, modifiers, details)),
  smallint: integer(16),
  mediumint: integer(24),
  int: integer(32),
  bigint: integer(64),
  decimal: (_, [precision = 10, scale = 0]) => ({ kind: "decimal", precision, scale }),
  float: float(32),
  double: float(64),
  char: text(true),
  varchar: text(false),
  tinytext: text(false),
  text: text(false),
  mediumtext: text(false),
  longtext: longText,
  binary: bytes(true),
  varbinary: bytes(false),
  tinyblob: bytes(false),
  blob: bytes(false),
  mediumblob: bytes(false),
  longblob: bytes(false),
  bit: (_, [length = 1]) => ({ kind: "bits", length }),
  date: () => ({ kind: "date" }),
  time: (_, [fraction = 0]) => ({ kind: "time", fraction, long: true }),
  datetime: (_, [fraction = 0]) => ({ kind: "timestamp", fraction }),
  timestamp: (_, [fraction = 0]) => ({ kind: "instant", fraction }),
  year: () => ({ kind: "year" }),
  json: () => ({ kind: "json", exact: false }),
  uuid: () => ({ kind: "uuid" }),
  inet4: () => ({ kind: "address" }),
  inet6: () => ({ kind: "address" }),
} as const satisfies Readonly<Record<string, Make>>;

const makeOf = (name: string): Make | undefined => (TYPES as Readonly<Record<string, Make>>)[name];

/** How columns of each type are declared, as the catalogue prints them. */
const DECLARED: Readonly<Record<keyof typeof TYPES, readonly string[]>> = {
  tinyint: ["tinyint(1)", "tinyint", "tinyint unsigned"],
  smallint: ["smallint", "smallint unsigned"],
  mediumint: ["mediumint", "mediumint unsigned"],
  int: ["int", "int unsigned"],
  bigint: ["bigint", "bigint unsigned"],
  decimal: ["decimal(14,2)", "decimal(20,0)"],
  float: ["float"],
  double: ["double"],
  char: ["char(10)", "char(36)"],
  varchar: ["varchar(100)"],
  tinytext: ["tinytext"],
  text: ["text"],
  mediumtext: ["mediumtext"],
  longtext: ["longtext"],
  binary: ["binary(16)", "binary(20)"],
  varbinary: ["varbinary(100)"],
  tinyblob: ["tinyblob"],
  blob: ["blob"],
  mediumblob: ["mediumblob"],
  longblob: ["longblob"],
  bit: ["bit(1)", "bit(8)"],
  date: ["date"],
  time: ["time(6)"],
  datetime: ["datetime(6)"],
  timestamp: ["timestamp(6)"],
  year: ["year"],
  json: ["json"],
  uuid: ["uuid"],
  inet4: ["inet4"],
  inet6: ["inet6"],
};

/** CHARACTER_MAXIMUM_LENGTH of types that have no length of their own. */
const LENGTHS: Readonly<Record<string, number>> = {
  tinytext: 255, text: 65_535, mediumtext: 16_777_215, longtext: UNREACHABLE, tinyblob: 255, blob: 65_535, mediumblob: 16_777_215, longblob: UNREACHABLE,
};
const ONLY_MARIADB: readonly string[] = ["uuid", "inet4", "inet6"];

/** A column of each type, as a catalogue of the engine would show it. */
export function typeSamples(engine: "mysql" | "mariadb"): ColumnFacts[] {
  const plain = Object.entries(DECLARED).filter(([name]) => engine === "mariadb" || !ONLY_MARIADB.includes(name));
  return [...plain.flatMap(([name, declared]) => declared.map((type) => sample(engine, name, type))), sample(engine, "enum", "enum('a','b')"), sample(engine, "set", "set('a','b')")];
}

/** MariaDB's JSON is LONGTEXT in its catalogue. */
function sample(engine: "mysql" | "mariadb", name: string, type: string): ColumnFacts {
  const checkedJson = engine === "mariadb" && name === "json";
  const baseTypeName = checkedJson ? "longtext" : name;
  const length = LENGTHS[baseTypeName] ?? (/^(var)?(char|binary)/.test(type) ? modifiersOf(type)[0]! : null);
  const facts: Facts = {
    name, type, baseTypeName, typeName: baseTypeName, typeKind: "base", typeSchema: "", notNull: false, generated: null, identity: null, hasDefault: false, collation: null,
    enumLabels: name === "enum" || name === "set" ? labelsOf(type) : null,
  };
  return { ...facts, common: commonTypeOf(facts, { length, checkedJson }) };
}

/** Of a column of MySQL or MariaDB; types without a counterpart elsewhere (geometry, vectors) are `other`. */
export function commonTypeOf(column: Facts, details: TypeDetails): CommonType {
  const { baseTypeName, type } = column;
  if (baseTypeName === "enum") return { kind: "label", labels: column.enumLabels ?? [] };
  if (baseTypeName === "set") return { kind: "label set", labels: column.enumLabels ?? [] };
  return makeOf(baseTypeName)?.(type, modifiersOf(type), details) ?? { kind: "other", name: type };
}

const QUOTED_LABEL = /'((?:[^'\\]|''|\\.)*)'/gs;
const ESCAPED: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t", 0: "\0", Z: "\x1a", b: "\b" };

/** The labels of `enum('a,b','it''s')`, as the engines print the type: quotes doubled, control characters and backslashes escaped. */
export function labelsOf(type: string): string[] {
  return [...type.matchAll(QUOTED_LABEL)].map(([, quoted = ""]) => quoted.replace(/''|\\(.)/gs, (_, escaped?: string) => (escaped === undefined ? "'" : (ESCAPED[escaped] ?? escaped))));
}

function bounded(length: number | null): number | null {
  return length === null || length >= UNREACHABLE ? null : length;
}

/** ZEROFILL implies UNSIGNED, and is printed with it. */
function isUnsigned(type: string): boolean {
  return /\bunsigned\b/.test(type);
}

/** `decimal(14,2) unsigned` has 14 and 2. */
function modifiersOf(printed: string): number[] {
  return /\(([\d,]+)\)/.exec(printed)?.[1]?.split(",").map(Number) ?? [];
}
