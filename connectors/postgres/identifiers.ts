/** Quoting of names and literals: the only place where SQL text is made safe. */
import type { TableName } from "../../src/core/index.ts";

/** A name as SQL, always in double quotes: `"Order"`, `"weird""name"`. */
export function quoteIdent(name: string): string {
  refuseNul(name);
  return `"${name.replaceAll('"', '""')}"`;
}

/** `"schema"."name"`. */
export function quoteTable(table: TableName): string {
  return `${quoteIdent(table.schema)}.${quoteIdent(table.name)}`;
}

/** Names as a list: `"a", "b"`. */
export function quoteIdents(names: readonly string[]): string {
  return names.map(quoteIdent).join(", ");
}

/** A text literal; right whatever standard_conforming_strings is. */
export function quoteLiteral(text: string): string {
  refuseNul(text);
  const quoted = `'${text.replaceAll("'", "''").replaceAll("\\", "\\\\")}'`;
  return text.includes("\\") ? `E${quoted}` : quoted;
}

function refuseNul(text: string): void {
  if (text.includes("\0")) throw new TypeError("PostgreSQL text cannot hold a zero byte");
}
