/** Quoting of names and literals: the only place where SQL text is made safe. */
import type { TableName } from "../../src/core/index.ts";

/** A name as SQL, always in backticks. */
export function quoteIdent(name: string): string {
  if (name.includes("\0")) throw new TypeError("a name cannot hold a zero byte");
  return `\`${name.replaceAll("`", "``")}\``;
}

/** `` `database`.`table` ``. */
export function quoteTable(table: TableName): string {
  return `${quoteIdent(table.schema)}.${quoteIdent(table.name)}`;
}

/** A text literal, for sessions with NO_BACKSLASH_ESCAPES as connection.ts opens them. */
export function quoteLiteral(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** A database's name as GRANT takes it before `.*`, where `_` and `%` would stand for others too. */
export function quoteGrantedDatabase(name: string): string {
  return quoteIdent(name.replace(/[_%]/g, "\\$&"));
}

/** An account as `CURRENT_USER()` prints it, for GRANT: `` `app`@`10.%` ``. */
export function quoteAccount(account: string): string {
  const at = account.lastIndexOf("@");
  return at < 0 ? quoteIdent(account) : `${quoteIdent(account.slice(0, at))}@${quoteIdent(account.slice(at + 1))}`;
}
