/**
 * Column types in words that all engines share, which of them fits which across engines, and the text in which a value travels.
 *
 * Common text of a value: integers, decimals and floats as they are written in SQL; booleans `1` and `0`; bytes as lower-case hexadecimal;
 * bits as `0` and `1`; dates `YYYY-MM-DD`; times `HH:MM:SS[.f]`; timestamps `YYYY-MM-DD HH:MM:SS[.f]`, instants the same in UTC;
 * UUIDs with hyphens in lower case; labels and text as they are, in UTF-8.
 */

export type CommonType =
  | { readonly kind: "boolean" | "date" | "year" | "uuid" | "address" | "unbounded decimal" }
  | { readonly kind: "integer"; readonly bits: 8 | 16 | 24 | 32 | 64; readonly unsigned: boolean }
  | { readonly kind: "decimal"; readonly precision: number; readonly scale: number }
  | { readonly kind: "float"; readonly bits: 32 | 64 }
  /** `characters` null: no limit that a row could reach. `padded`: blanks at the end are not kept apart. */
  | { readonly kind: "text"; readonly characters: number | null; readonly padded: boolean }
  | { readonly kind: "label" | "label set"; readonly labels: readonly string[] }
  /** `fixed`: shorter values are filled up with zero bytes. */
  | { readonly kind: "bytes"; readonly length: number | null; readonly fixed: boolean }
  | { readonly kind: "bits"; readonly length: number | null }
  /** `fraction`: digits behind the second. A `long` time can be negative or beyond a day. */
  | { readonly kind: "time"; readonly fraction: number; readonly long: boolean }
  | { readonly kind: "timestamp" | "instant"; readonly fraction: number }
  /** `exact`: the engine keeps the document's own text. */
  | { readonly kind: "json"; readonly exact: boolean }
  | { readonly kind: "other"; readonly name: string };

export type CommonKind = CommonType["kind"];

/** Whether every value of one type can stand in another. `widened`: the same value, written or bounded differently. */
export type CommonFit =
  | { readonly fits: "exact"; readonly note: null }
  | { readonly fits: "widened" | "checked"; readonly note: string }
  | { readonly fits: "refused"; readonly note: string };

const EXACT: CommonFit = { fits: "exact", note: null };
const widened = (note: string): CommonFit => ({ fits: "widened", note });
/** Not every value fits; one that does not halts, and is never changed. */
const checked = (note: string): CommonFit => ({ fits: "checked", note });
const refused = (note: string): CommonFit => ({ fits: "refused", note });

type Rule = (from: never, to: never) => CommonFit;
type Of<K extends CommonKind> = CommonType & { readonly kind: K };

function rule<From extends CommonKind, To extends CommonKind>(from: From, to: To, work: (from: Of<From>, to: Of<To>) => CommonFit): readonly [string, Rule] {
  return [`${from} > ${to}`, work as Rule];
}

const INTEGER_DIGITS: Readonly<Record<number, number>> = { 8: 3, 16: 5, 24: 8, 32: 10, 64: 20 };

/** Everything that may cross from one engine to another; what is not here is refused. */
const RULES: ReadonlyMap<string, Rule> = new Map([
  rule("boolean", "boolean", () => EXACT),
  rule("boolean", "integer", () => EXACT),
  rule("integer", "boolean", () => checked("only 0 and 1 are booleans; another number halts")),
  rule("integer", "integer", integers),
  rule("integer", "decimal", ({ bits }, { precision, scale }) => (precision - scale >= INTEGER_DIGITS[bits]! ? widened("the same number, written with decimals where the target has them") : refused(`the target has room for ${precision - scale} digits before the point, the source for ${INTEGER_DIGITS[bits]!}`))),
  rule("integer", "unbounded decimal", () => EXACT),
  rule("decimal", "decimal", decimals),
  rule("decimal", "unbounded decimal", () => EXACT),
  rule("unbounded decimal", "decimal", (_, { precision, scale }) => checked(`the source has no limit: a number beyond (${precision},${scale}), NaN and infinities halt`)),
  rule("decimal", "integer", ({ scale, precision }, { bits }) => (scale === 0 && precision < INTEGER_DIGITS[bits]! ? EXACT : refused("the target has no digits behind the point, or too few before it"))),
  rule("float", "float", ({ bits: from }, { bits: to }) => (from === to ? EXACT : refused("single and double precision are not the same number: make the target column of the same precision"))),
  rule("text", "text", texts),
  rule("label", "text", ({ labels }, { characters }) => (labels.every((label) => characters === null || length(label) <= characters) ? EXACT : refused("a label is longer than the target allows"))),
  rule("label", "label", ({ labels: from }, { labels: to }) => missing(from, to)),
  rule("label set", "label set", ({ labels: from }, { labels: to }) => missing(from, to)),
  rule("label set", "text", () => widened("the labels, separated by commas")),
  rule("bytes", "bytes", ({ length: from, fixed }, { length: to, fixed: filled }) => {
    if (filled && !(fixed && from === to)) return refused("the target fills shorter values up with zero bytes");
    return to === null || (from !== null && from <= to) ? EXACT : checked(`a value of more than ${to} bytes halts`);
  }),
  rule("bytes", "uuid", ({ length: bytes, fixed }) => (fixed && bytes === 16 ? widened("16 bytes in the order in which they stand") : refused("only BINARY(16) holds UUIDs"))),
  rule("uuid", "bytes", (_, { length: bytes, fixed }) => (fixed && bytes === 16 ? widened("16 bytes in the order in which they are written") : refused("only BINARY(16) holds UUIDs"))),
  rule("uuid", "uuid", () => EXACT),
  rule("uuid", "text", (_, { characters }) => (characters === null || characters >= 36 ? EXACT : refused("a UUID has 36 characters"))),
  rule("text", "uuid", () => checked("a text that is no UUID halts")),
  rule("bits", "bits", ({ length: from }, { length: to }) => (from === to ? EXACT : refused("another number of bits is another value"))),
  rule("bits", "boolean", ({ length: from }) => (from === 1 ? EXACT : refused("only one bit is a boolean"))),
  rule("boolean", "bits", (_, { length: to }) => (to === 1 ? EXACT : refused("only one bit is a boolean"))),
  rule("date", "date", () => checked("a date that the target does not know halts (zero dates, years beyond its range)")),
  rule("date", "timestamp", () => widened("midnight of that day")),
  rule("year", "integer", () => EXACT),
  rule("year", "year", () => EXACT),
  rule("integer", "year", () => checked("a number that is no year halts")),
  rule("time", "time", ({ fraction: from, long }, { fraction: to, long: holdsLong }) => fraction(from, to, long && !holdsLong ? checked("a time below zero or beyond a day halts") : EXACT)),
  rule("timestamp", "timestamp", ({ fraction: from }, { fraction: to }) => fraction(from, to, checked("a time that the target does not know halts (zero and partial dates, infinity, years beyond its range)"))),
  rule("instant", "instant", ({ fraction: from }, { fraction: to }) => fraction(from, to, checked("a time that the target does not know halts (zero dates, infinity, years beyond its range)"))),
  rule("instant", "timestamp", ({ fraction: from }, { fraction: to }) => fraction(from, to, widened("the clock time in UTC"))),
  rule("timestamp", "instant", () => refused("a clock time without a zone is no instant: make the target column one without a zone")),
  rule("json", "json", ({ exact: from }, { exact: to }) => (from === to ? EXACT : widened("the same document; spaces, the order of keys and trailing zeros are each engine's own"))),
  rule("json", "text", ({ exact }) => (exact ? EXACT : widened("the document as its engine prints it"))),
  rule("text", "json", () => checked("a text that is no JSON halts")),
  rule("address", "address", () => EXACT),
  rule("address", "text", (_, { characters }) => (characters === null || characters >= 43 ? EXACT : refused("an address has up to 43 characters"))),
]);

/** Whether values may cross; for columns of different engines. */
export function commonFit(from: CommonType, to: CommonType): CommonFit {
  if (from.kind === "other") return refused(`${from.name} has no counterpart on other engines`);
  if (to.kind === "other") return refused(`${to.name} takes no values of other engines`);
  const known = RULES.get(`${from.kind} > ${to.kind}`);
  return known === undefined ? refused(`${kindName(from)} does not become ${kindName(to)}`) : known(from as never, to as never);
}

/** Whether the rules name this pair at all; what they do not name is refused as a matter of course. */
export function isKnownPair(from: CommonType, to: CommonType): boolean {
  return RULES.has(`${from.kind} > ${to.kind}`);
}

function integers({ bits, unsigned }: Of<"integer">, to: Of<"integer">): CommonFit {
  if (bits === to.bits && unsigned === to.unsigned) return EXACT;
  if (unsigned && !to.unsigned) return bits < to.bits ? EXACT : refused(`an unsigned number of ${bits} bits does not fit a signed one of ${to.bits}`);
  if (!unsigned && to.unsigned) return bits <= to.bits ? checked("a number below zero halts") : refused("the target is smaller, and takes no numbers below zero");
  return bits < to.bits ? EXACT : refused(`a number of ${bits} bits does not fit one of ${to.bits}`);
}

function decimals(from: Of<"decimal">, to: Of<"decimal">): CommonFit {
  if (to.scale < from.scale) return refused(`the target rounds to ${to.scale} digits behind the point, the source has ${from.scale}`);
  if (to.precision - to.scale < from.precision - from.scale) return refused(`the target has room for ${to.precision - to.scale} digits before the point, the source for ${from.precision - from.scale}`);
  return to.scale === from.scale ? EXACT : widened(`the same number, with ${to.scale} instead of ${from.scale} digits behind the point`);
}

function texts(from: Of<"text">, to: Of<"text">): CommonFit {
  if (to.padded !== from.padded && to.padded) return refused("the target does not keep blanks at the end");
  if (to.characters !== null && (from.characters === null || from.characters > to.characters)) return refused(`the target holds ${to.characters} characters, the source ${from.characters ?? "any number"}`);
  return EXACT;
}

function missing(from: readonly string[], to: readonly string[]): CommonFit {
  const absent = from.filter((label) => !to.includes(label));
  return absent.length === 0 ? EXACT : refused(`the target does not know ${absent.map((label) => `'${label}'`).join(", ")}`);
}

function fraction(from: number, to: number, otherwise: CommonFit): CommonFit {
  return to < from ? refused(`the target keeps ${to} digits behind the second, the source ${from}`) : otherwise;
}

const length = (text: string): number => Array.from(text).length;

function kindName(type: CommonType): string {
  switch (type.kind) {
    case "integer": return `${type.unsigned ? "an unsigned" : "an"} integer of ${type.bits} bits`;
    case "float": return type.bits === 32 ? "single precision" : "double precision";
    case "label": return "an enumeration";
    case "label set": return "a set of labels";
    default: return type.kind;
  }
}

/** How common text becomes the text that an engine takes; by the target's column. */
export const CONVERSIONS = {
  /** PostgreSQL's bytea. */
  "bytea": (value: Buffer): Buffer => Buffer.concat([BYTEA, value]),
  /** PostgreSQL's timestamptz, whatever the session's zone. */
  "utc": (value: Buffer): Buffer => Buffer.concat([value, UTC]),
} as const satisfies Record<string, (value: Buffer) => Buffer>;

export type Conversion = keyof typeof CONVERSIONS;

const BYTEA = Buffer.from("\\x");
const UTC = Buffer.from("+00");

/**
 * How a value is rendered so that two engines give the same text for the same value: what comparisons hash.
 * `decimal`: with `scale` digits behind the point. `microseconds`: of a time, negative below zero.
 * `double`: the eight bytes of the number, highest first, in hexadecimal.
 * `presence`: only whether there is a value.
 */
export type CanonicalForm =
  | { readonly form: "integer" | "double" | "text" | "unpadded text" | "hex" | "date" | "microseconds" | "timestamp" | "bits" | "presence" }
  | { readonly form: "decimal"; readonly scale: number };

const FORMS: Readonly<Partial<Record<CommonKind, CanonicalForm["form"]>>> = {
  "boolean": "integer", "integer": "integer", "year": "integer", "float": "double", "text": "text", "label": "text", "label set": "text", "address": "text", "bytes": "hex", "uuid": "hex", "date": "date",
  "time": "microseconds", "timestamp": "timestamp", "instant": "timestamp", "bits": "bits",
};

/** For a column and its counterpart on another engine that `commonFit` has let pass. */
export function canonicalForm(from: CommonType, to: CommonType): CanonicalForm {
  if (to.kind === "decimal") return { form: "decimal", scale: to.scale };
  if (to.kind === "unbounded decimal") return { form: "decimal", scale: from.kind === "decimal" ? from.scale : 0 };
  if (to.kind === "text") return { form: from.kind === "json" && !from.exact ? "presence" : isPadded(from) || to.padded ? "unpadded text" : "text" } as CanonicalForm;
  if (to.kind === "json" || from.kind === "json") return { form: from.kind === "json" && to.kind === "json" && from.exact && to.exact ? "text" : "presence" };
  if (to.kind === "boolean" && from.kind === "bits") return { form: "integer" };
  if (to.kind === "bits" && from.kind === "boolean") return { form: "integer" };
  return { form: FORMS[to.kind] ?? "presence" } as CanonicalForm;
}

const EQUATED: Readonly<Partial<Record<CanonicalForm["form"], string>>> = {
  "presence": "whether there is a value, and nothing of the value",
  "unpadded text": "the text without blanks at its end",
  "decimal": "the number, whatever digits it is written with",
  "microseconds": "the time in microseconds",
  "timestamp": "the time to the microsecond",
};

/** What of a value a comparison looks at, for a pair that `commonFit` lets pass; null: all of it, as it is written. */
export function equated(from: CommonType, to: CommonType): string | null {
  return EQUATED[canonicalForm(from, to).form] ?? null;
}

function isPadded(type: CommonType): boolean {
  return type.kind === "text" && type.padded;
}
