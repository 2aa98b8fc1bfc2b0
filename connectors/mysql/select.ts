/** The mapper's rules as SQL on the source's side, so that a copy renders the same row as the stream; and rows as the lines of a bulk copy. */
import type { Chunk, ColumnFacts, Conversion, MappedColumn, Predicate, RecordClass, TableFacts } from "../../src/core/index.ts";
import { quoteIdent, quoteLiteral, quoteTable } from "./identifiers.ts";

/** A column's value as common text (src/core/common-types.ts). */
export function commonText(column: ColumnFacts, expression = quoteIdent(column.name)): string {
  const { common } = column;
  switch (common.kind) {
    // Single precision is printed with six digits only, and an expression of doubles with fifteen: a plain column or cast has them all.
    case "float": return common.bits === 32 ? `CONCAT(CAST(${expression} AS DOUBLE))` : `CAST(${expression} AS CHAR)`;
    case "bytes": return `LOWER(HEX(${expression}))`;
    case "bits": return `LPAD(BIN(${expression} + 0), ${common.length ?? 1}, '0')`;
    case "text": case "label": case "label set": case "json": return `CONVERT(${expression} USING utf8mb4)`;
    default: return `CAST(${expression} AS CHAR)`;
  }
}

const CONVERTED: Readonly<Record<Conversion, (text: string) => string>> = {
  bytea: (text) => `CONCAT(0x5c78, ${text})`,
  utc: (text) => `CONCAT(${text}, '+00')`,
};

/** A row of the class as one line of text: columns separated by tabs, escaped as COPY and LOAD DATA read them. NULL where the server could not make it. */
export function selectLines(cls: RecordClass, facts: TableFacts, range: string | null): string {
  const columns = cls.columns.map((column) => `IF(${valueText(column, facts)} IS NULL, ${NULL_LINE}, ${escaped(column, facts)})`);
  const conditions = [cls.where === null ? null : `(${wherePredicate(cls.where, facts)})`, range].filter((condition) => condition !== null);
  return `SELECT CONCAT(${columns.join(", 0x09, ")}, 0x0a) FROM ${quoteTable(cls.source)}${conditions.length === 0 ? "" : ` WHERE ${conditions.join(" AND ")}`}`;
}

const NULL_LINE = "0x5c4e";
const ESCAPES = [["0x5c", "0x5c5c"], ["0x09", "0x5c74"], ["0x0a", "0x5c6e"], ["0x0d", "0x5c72"]] as const;
/** What can hold a character that has a meaning in a line. */
const FREE_TEXT: ReadonlySet<string> = new Set(["text", "label", "label set", "json"]);

function escaped(column: MappedColumn, facts: TableFacts): string {
  const value = valueText(column, facts);
  const origin = column.from === null ? null : factsOf(facts, column.from);
  const isFree = origin === null || column.map !== null || column.conversion === "bytea" || FREE_TEXT.has(origin.common.kind);
  return isFree ? ESCAPES.reduce((text, [from, to]) => `REPLACE(${text}, ${from}, ${to})`, value) : value;
}

/** As the target's column takes it. */
export function valueText(column: MappedColumn, facts: TableFacts): string {
  if (column.from === null) return column.constant === null ? "NULL" : quoteLiteral(column.constant);
  const text = commonText(factsOf(facts, column.from));
  if (column.map !== null) return mapped(text, column.map);
  return column.conversion === undefined ? text : CONVERTED[column.conversion](text);
}

/** A value without a mapping stops the copy: strict mode refuses what cannot be converted. */
function mapped(text: string, map: ReadonlyMap<string, string>): string {
  const cases = [...map].map(([from, to]) => `WHEN CAST(${text} AS BINARY) = CAST(${quoteLiteral(from)} AS BINARY) THEN ${quoteLiteral(to)}`).join(" ");
  return `CASE WHEN ${text} IS NULL THEN NULL ${cases} ELSE CONVERT(${UNMAPPED} USING utf8mb4) END`;
}

/** Two rows where one is needed: an error at the row that comes to it, and at no other. */
const UNMAPPED = "(SELECT 1 UNION ALL SELECT 2)";

export function factsOf(facts: TableFacts, name: string): ColumnFacts {
  const found = facts.columns.find((column) => column.name === name);
  if (found === undefined) throw new TypeError(`the catalogue has no column "${name}"`);
  return found;
}

/** `where` as SQL. Text compares bytewise, as the row filter does. */
export function wherePredicate(predicate: Predicate, facts: TableFacts): string {
  switch (predicate.op) {
    case "and": case "or":
      return `(${wherePredicate(predicate.left, facts)} ${predicate.op.toUpperCase()} ${wherePredicate(predicate.right, facts)})`;
    case "not": return `(NOT ${wherePredicate(predicate.operand, facts)})`;
    case "isNull": return `${quoteIdent(predicate.column)} IS NULL`;
    case "in": return `(${predicate.literals.map((literal) => comparison(predicate.column, "=", literal, facts)).join(" OR ")})`;
    case "compare": return comparison(predicate.column, predicate.comparison, predicate.literal, facts);
  }
}

function comparison(column: string, operator: string, literal: { readonly kind: string; readonly text: string }, facts: TableFacts): string {
  const name = quoteIdent(column);
  if (literal.kind === "number") return `${name} ${operator} ${literal.text}`;
  if (literal.kind === "boolean") return `${name} ${operator} ${literal.text}`;
  return `CAST(${commonText(factsOf(facts, column))} AS BINARY) ${operator} CAST(${quoteLiteral(literal.text)} AS BINARY)`;
}

// ---------------------------------------------------------------- key ranges

/** The source's key columns, in the key's order. */
export function keyColumns(cls: RecordClass, facts: TableFacts): ColumnFacts[] {
  return cls.key.map((target) => factsOf(facts, cls.columns.find((column) => column.target === target)!.from!));
}

/** A key value as a literal that compares in the column's own order. */
export function keyLiteral(column: ColumnFacts, text: string): string {
  switch (column.common.kind) {
    case "integer": case "decimal": case "boolean": case "year": return text;
    case "bytes": return `x'${text}'`;
    case "bits": return `b'${text}'`;
    default: return quoteLiteral(text);
  }
}

/** The half-open range of a chunk in the index's own order; null: the whole class. */
export function chunkRange(chunk: Chunk, key: readonly ColumnFacts[]): string | null {
  const conditions: string[] = [];
  if (chunk.lower !== null) conditions.push(beyond(key, chunk.lower, ">", true));
  if (chunk.upper !== null) conditions.push(beyond(key, chunk.upper, "<", false));
  return conditions.length === 0 ? null : conditions.join(" AND ");
}

/** Keys on one side of a bound, written so that the index is used for its first column. */
export function beyond(key: readonly ColumnFacts[], bound: readonly string[], operator: "<" | ">", including: boolean): string {
  const names = key.map((column) => quoteIdent(column.name));
  const values = key.map((column, i) => keyLiteral(column, bound[i]!));
  const steps = names.map((name, i) => [...names.slice(0, i).map((one, j) => `${one} = ${values[j]!}`), `${name} ${operator}${including && i === names.length - 1 ? "=" : ""} ${values[i]!}`].join(" AND "));
  if (steps.length === 1) return steps[0]!;
  return `(${names[0]!} ${operator}= ${values[0]!} AND (${steps.map((step) => `(${step})`).join(" OR ")}))`;
}
