/**
 * What MariaDB tells of a table in SHOW CREATE TABLE to everybody who may read it, and in information_schema
 * (REFERENTIAL_CONSTRAINTS, CHECK_CONSTRAINTS) only to those who may do more.
 */
import type { TableName } from "../../src/core/index.ts";

/** A foreign key with what it does, in lower case: `cascade`, `set null`, `restrict`, `no action`. */
export interface ForeignKey {
  readonly name: string;
  readonly references: TableName;
  readonly onDelete: string;
  readonly onUpdate: string;
}

const ACTION = "(CASCADE|SET NULL|SET DEFAULT|RESTRICT|NO ACTION)";
/** MariaDB 10.11 does not double the backticks within these names. */
const FOREIGN_KEY = new RegExp(`^ {2}CONSTRAINT \`(.+?)\` FOREIGN KEY \\(.+\\) REFERENCES (?:\`(.+?)\`\\.)?\`(.+?)\` \\(.+?\\)(?: ON DELETE ${ACTION})?(?: ON UPDATE ${ACTION})?,?$`, "gm");
const JSON_COLUMN = /^ {2}`((?:[^`]|``)+)` longtext\b.*CHECK \(json_valid\(`\1`\)\)/gm;

/** `schema` is where the table stands, and what it references unless another database is named. */
export function foreignKeysIn(statement: string, schema: string): ForeignKey[] {
  return [...statement.matchAll(FOREIGN_KEY)].map(([, name = "", database, table = "", onDelete = "restrict", onUpdate = "restrict"]) => ({
    name: unquoted(name),
    references: { schema: database === undefined ? schema : unquoted(database), name: unquoted(table) },
    onDelete: onDelete.toLowerCase(),
    onUpdate: onUpdate.toLowerCase(),
  }));
}

/** Columns of MariaDB's JSON, which is LONGTEXT with a check. */
export function jsonColumnsIn(statement: string): string[] {
  return [...statement.matchAll(JSON_COLUMN)].map(([, name = ""]) => unquoted(name));
}

function unquoted(name: string): string {
  return name.replaceAll("``", "`");
}
