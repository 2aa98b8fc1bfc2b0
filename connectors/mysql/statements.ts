/** What a statement in the binary log means for the mirror: rows come as rows, everything else has to be understood or it halts. */
import type { TableName } from "../../src/core/index.ts";

export type Meaning =
  /** Begins or ends a transaction. */
  | { readonly kind: "begin" | "commit" | "rollback" }
  /** Neither rows nor the layout of a table. */
  | { readonly kind: "harmless" }
  /** Tables that are made, changed, renamed or dropped; a schema without a name: all its tables. */
  | { readonly kind: "schema"; readonly tables: readonly Named[]; readonly command: string }
  | { readonly kind: "truncate"; readonly table: Named }
  /** Rows that the log holds as a statement. */
  | { readonly kind: "rows as statement" }
  | { readonly kind: "xa" }
  | { readonly kind: "unknown"; readonly command: string };

/** `schema` null: the session's. `name` null: every table of the schema. */
export interface Named {
  readonly schema: string | null;
  readonly name: string | null;
}

const ROWS: ReadonlySet<string> = new Set(["INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "CALL", "DO", "HANDLER", "IMPORT"]);
const HARMLESS: ReadonlySet<string> = new Set(["GRANT", "REVOKE", "FLUSH", "ANALYZE", "OPTIMIZE", "REPAIR", "CHECK", "INSTALL", "UNINSTALL", "SAVEPOINT", "RELEASE", "BINLOG", "SHUTDOWN", "KILL", "RESET", "PURGE", "CHANGE"]);
/** Words between CREATE, ALTER or DROP and what is made. */
const ADJECTIVES: ReadonlySet<string> = new Set(["OR", "REPLACE", "ONLINE", "OFFLINE", "IGNORE", "UNIQUE", "FULLTEXT", "SPATIAL", "IF", "NOT", "EXISTS", "AGGREGATE", "SQL", "SECURITY", "DEFINER", "INVOKER", "ALGORITHM", "UNDEFINED", "MERGE", "TEMPTABLE", "TEMPORARY"]);

/** Reads a statement as the log has it, comments and quotes and all. */
export function meaningOf(text: string): Meaning {
  const words = tokens(text);
  const first = keyword(words[0]);
  switch (first) {
    case "": return { kind: "harmless" };
    case "BEGIN": case "START": return { kind: "begin" };
    case "COMMIT": return { kind: "commit" };
    case "ROLLBACK": return keyword(words[1]) === "TO" || keyword(words[2]) === "TO" ? { kind: "harmless" } : { kind: "rollback" };
    case "XA": return { kind: "xa" };
    case "TRUNCATE": return truncation(words);
    case "RENAME": return renaming(words);
    case "CREATE": case "ALTER": case "DROP": return definition(first, words);
    case "SET": return keyword(words[1]) === "PASSWORD" || keyword(words[1]) === "DEFAULT" ? { kind: "harmless" } : { kind: "unknown", command: "SET" };
    default: return ROWS.has(first) ? { kind: "rows as statement" } : HARMLESS.has(first) ? { kind: "harmless" } : { kind: "unknown", command: first };
  }
}

function truncation(words: readonly Token[]): Meaning {
  const [table] = names(words, keyword(words[1]) === "TABLE" ? 2 : 1);
  return table === undefined ? { kind: "unknown", command: "TRUNCATE" } : { kind: "truncate", table };
}

function renaming(words: readonly Token[]): Meaning {
  const what = keyword(words[1]);
  if (what === "USER") return { kind: "harmless" };
  if (what !== "TABLE" && what !== "TABLES") return { kind: "unknown", command: `RENAME ${what}` };
  return { kind: "schema", tables: allNames(words, afterExists(words, 2)), command: "RENAME TABLE" };
}

function definition(verb: string, words: readonly Token[]): Meaning {
  let at = 1;
  let temporary = false;
  while (ADJECTIVES.has(keyword(words[at])) || words[at]?.text === "=" || isDefiner(words, at)) {
    temporary ||= keyword(words[at]) === "TEMPORARY";
    at += isDefiner(words, at) ? definerLength(words, at) : 1;
  }
  const what = keyword(words[at]);
  const start = afterExists(words, at + 1);
  if (what === "DATABASE" || what === "SCHEMA") return ofSchema(verb, words, start);
  if (what !== "TABLE" && what !== "TABLES") return { kind: "harmless" };
  if (temporary) return { kind: "harmless" };
  if (verb === "DROP") return { kind: "schema", tables: names(words, start), command: "DROP TABLE" };
  return { kind: "schema", tables: verb === "ALTER" ? alteredTables(words, start) : names(words, start).slice(0, 1), command: `${verb} TABLE` };
}

function ofSchema(verb: string, words: readonly Token[], start: number): Meaning {
  if (verb !== "DROP") return { kind: "harmless" };
  return { kind: "schema", tables: [{ schema: words[start]?.text ?? null, name: null }], command: "DROP DATABASE" };
}

/** The table itself, what it is renamed to, and the one that a partition is exchanged with. */
function alteredTables(words: readonly Token[], start: number): Named[] {
  const tables = names(words, start).slice(0, 1);
  words.forEach((word, i) => {
    if (keyword(word) === "RENAME" && !["COLUMN", "INDEX", "KEY"].includes(keyword(words[i + 1]))) tables.push(...names(words, ["TO", "AS"].includes(keyword(words[i + 1])) ? i + 2 : i + 1).slice(0, 1));
    if (keyword(word) === "WITH" && keyword(words[i + 1]) === "TABLE") tables.push(...names(words, i + 2).slice(0, 1));
    if (keyword(word) === "CONVERT" && keyword(words[i + 1]) === "PARTITION") tables.push(...words.flatMap((one, j) => (j > i && keyword(one) === "TABLE" ? names(words, j + 1).slice(0, 1) : [])));
  });
  return tables;
}

function afterExists(words: readonly Token[], at: number): number {
  while (["IF", "NOT", "EXISTS"].includes(keyword(words[at]))) at += 1;
  return at;
}

function isDefiner(words: readonly Token[], at: number): boolean {
  return words[at - 1]?.text === "=" && keyword(words[at - 2]) === "DEFINER";
}

/** `user`, `user@host`, or CURRENT_USER(). */
function definerLength(words: readonly Token[], at: number): number {
  if (words[at + 1]?.text === "@") return 3;
  return words[at + 1]?.text === "(" ? 3 : 1;
}

// ---------------------------------------------------------------- names

/** A list of names separated by commas, from `at` on. */
function names(words: readonly Token[], at: number): Named[] {
  const found: Named[] = [];
  for (;;) {
    const [name, next] = nameAt(words, at);
    if (name === null) return found;
    found.push(name);
    if (words[next]?.text !== ",") return found;
    at = next + 1;
  }
}

/** `a TO b, c TO d` */
function allNames(words: readonly Token[], at: number): Named[] {
  const found: Named[] = [];
  while (at < words.length) {
    const [name, next] = nameAt(words, at);
    if (name === null) return found;
    found.push(name);
    at = next;
    while (["WAIT", "NOWAIT"].includes(keyword(words[at]))) at += keyword(words[at]) === "WAIT" ? 2 : 1;
    if (!["TO", ","].includes(keyword(words[at])) && words[at]?.text !== ",") return found;
    at += 1;
  }
  return found;
}

function nameAt(words: readonly Token[], at: number): [Named | null, number] {
  const first = words[at];
  if (first === undefined || first.kind === "sign") return [null, at];
  if (words[at + 1]?.text === "." && words[at + 2] !== undefined) return [{ schema: first.text, name: words[at + 2]!.text }, at + 3];
  return [{ schema: null, name: first.text }, at + 1];
}

/** Whether a statement in a session's database is about a table. Names are compared as the least careful server does. */
export function concerns(named: Named, database: string, table: TableName): boolean {
  const schema = named.schema ?? database;
  return same(schema, table.schema) && (named.name === null || same(named.name, table.name));
}

function same(a: string, b: string): boolean {
  return a.toLowerCase() === b.toLowerCase();
}

// ---------------------------------------------------------------- words

interface Token {
  readonly kind: "word" | "quoted" | "sign";
  readonly text: string;
}

function keyword(token: Token | undefined): string {
  return token?.kind === "word" ? token.text.toUpperCase() : "";
}

/** One alternative per kind of token; what a versioned comment holds is part of the statement. */
const TOKEN = /\/\*M?!\d*|\*\/|\/\*[^]*?\*\/|#[^\n]*|--(?=\s|$)[^\n]*|`(?:[^`]|``)*`|"(?:[^"\\]|\\[^]|"")*"|'(?:[^'\\]|\\[^]|'')*'|[\p{L}\p{N}_$]+|[^\s]/gu;

function tokens(text: string): Token[] {
  const found: Token[] = [];
  for (const [raw] of text.matchAll(TOKEN)) {
    if (raw.startsWith("/*") || raw === "*/" || raw.startsWith("#") || (raw.startsWith("--") && raw.length >= 2)) continue;
    if (raw.startsWith("`") && raw.length > 1) found.push({ kind: "quoted", text: raw.slice(1, -1).replaceAll("``", "`") });
    else if ((raw.startsWith('"') || raw.startsWith("'")) && raw.length > 1) found.push({ kind: "quoted", text: raw.slice(1, -1) });
    else found.push({ kind: /^[\p{L}\p{N}_$]/u.test(raw) ? "word" : "sign", text: raw });
  }
  return found;
}
