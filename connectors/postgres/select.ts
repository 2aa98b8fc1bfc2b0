/** The mapper's rules as SQL on the source's side, so that a copy renders the same row as the stream. */
import type { Catalogue, Chunk, MappedColumn, Predicate, RecordClass } from "../../src/core/index.ts";
import { quoteIdent, quoteLiteral, quoteTable } from "./identifiers.ts";

/** The class's rows, in the target's column order; `range` narrows it down to a chunk. */
export function selectRows(cls: RecordClass, range: string | null): string {
  const conditions = [cls.where === null ? null : `(${wherePredicate(cls.where, cls)})`, range].filter((condition) => condition !== null);
  const where = conditions.length === 0 ? "" : ` WHERE ${conditions.join(" AND ")}`;
  return `SELECT ${cls.columns.map(expression).join(", ")} FROM ${quoteTable(cls.source)}${where}`;
}

function expression(column: MappedColumn): string {
  if (column.from === null) return column.constant === null ? "NULL" : quoteLiteral(column.constant);
  const source = quoteIdent(column.from);
  if (column.map === null) return source;
  const cases = [...column.map].map(([from, to]) => `WHEN ${quoteLiteral(from)} THEN ${quoteLiteral(to)}`).join(" ");
  // A value without a mapping must stop the copy: the division is never folded, since it depends on the row.
  return `CASE WHEN ${source} IS NULL THEN NULL ELSE CASE ${source}::text ${cases} ELSE (1 / (length(${source}::text) * 0))::text END END`;
}

/** `where` as SQL. Text compares bytewise, as the row filter does. */
export function wherePredicate(predicate: Predicate, cls: RecordClass): string {
  switch (predicate.op) {
    case "and":
    case "or":
      return `(${wherePredicate(predicate.left, cls)} ${predicate.op.toUpperCase()} ${wherePredicate(predicate.right, cls)})`;
    case "not":
      return `(NOT ${wherePredicate(predicate.operand, cls)})`;
    case "isNull":
      return `${quoteIdent(predicate.column)} IS NULL`;
    case "in":
      return `(${predicate.literals.map((literal) => comparison(predicate.column, "=", literal)).join(" OR ")})`;
    case "compare":
      return comparison(predicate.column, predicate.comparison, predicate.literal);
  }
}

function comparison(column: string, operator: string, literal: { readonly kind: string; readonly text: string }): string {
  const name = quoteIdent(column);
  if (literal.kind === "number") return `${name}::numeric ${operator} ${quoteLiteral(literal.text)}::numeric`;
  if (literal.kind === "boolean") return `${name} ${operator} ${literal.text}`;
  return `${name}::text COLLATE "C" ${operator} ${quoteLiteral(literal.text)}`;
}

/** How a chunk's key columns are ordered: by the index where the order is PostgreSQL's own, else by bytes. */
export interface KeyOrder {
  /** The source's key columns as expressions. */
  readonly expressions: readonly string[];
}

export function keyOrder(cls: RecordClass, catalogue: Catalogue): KeyOrder {
  const table = catalogue.tables.find((facts) => facts.table.schema === cls.source.schema && facts.table.name === cls.source.name);
  const expressions = cls.key.map((target) => {
    const source = cls.columns.find((column) => column.target === target)!.from!;
    const facts = table?.columns.find((column) => column.name === source);
    const native = facts === undefined || facts.typeSchema === "pg_catalog" || facts.typeKind === "enum" || facts.typeKind === "domain";
    return native ? quoteIdent(source) : `${quoteIdent(source)}::text COLLATE "C"`;
  });
  return { expressions };
}

/** The half-open range of a chunk; null: the whole class. */
export function chunkRange(chunk: Chunk, order: KeyOrder): string | null {
  const left = chunk.resumable ? row(order.expressions) : "ctid";
  const bound = (values: readonly string[]): string => (chunk.resumable ? row(values.map(quoteLiteral)) : `${quoteLiteral(values[0]!)}::tid`);
  const conditions: string[] = [];
  if (chunk.lower !== null) conditions.push(`${left} >= ${bound(chunk.lower)}`);
  if (chunk.upper !== null) conditions.push(`${left} < ${bound(chunk.upper)}`);
  return conditions.length === 0 ? null : conditions.join(" AND ");
}

function row(expressions: readonly string[]): string {
  return expressions.length === 1 ? expressions[0]! : `ROW(${expressions.join(", ")})`;
}
