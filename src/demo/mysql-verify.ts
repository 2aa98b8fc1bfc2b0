/**
 * Compares tables of MySQL or MariaDB with PostgreSQL's, row by row, as multisets: every value as a text that both engines can print.
 * What dualrun's own comparison is made of is not used, and JSON documents are compared as such.
 */
import type { Connection } from "mariadb";
import pg from "pg";
import { connectDemo } from "./mysql-session.ts";
import { compareSorted, type TableVerdict } from "./verify.ts";

const FETCH = 2_000;

interface Column {
  readonly name: string;
  /** PostgreSQL's name of the target's type. */
  readonly type: string;
}

/** Both sides must be still. `tables` are `schema.table`, with the same columns on both sides. */
export async function verifyAcross(sourceUrl: string, targetUrl: string, tables: readonly string[]): Promise<TableVerdict[]> {
  const source = await connectDemo(sourceUrl);
  const target = new pg.Client({ connectionString: targetUrl, options: "-c timezone=UTC -c datestyle=ISO" });
  try {
    await Promise.all([source.query("start transaction with consistent snapshot"), target.connect()]);
    await target.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    const verdicts: TableVerdict[] = [];
    for (const table of tables) verdicts.push(await verifyTable(source, target, table));
    return verdicts;
  } finally {
    await Promise.allSettled([source.end(), target.end()]);
  }
}

async function verifyTable(source: Connection, target: pg.Client, table: string): Promise<TableVerdict> {
  const [schema, name] = table.split(".");
  const { rows: columns } = await target.query<Column>("SELECT column_name AS name, udt_name AS type FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2 ORDER BY column_name COLLATE \"C\"", [schema, name]);
  const here = await source.query<{ name: string; type: string }[]>("select column_name as name, data_type as type from information_schema.columns where table_schema = ? and table_name = ?", [schema, name]);
  const types = new Map(here.map((column) => [column.name, column.type]));
  const odd = columns.filter((column) => !types.has(column.name)).map((column) => column.name);
  if (odd.length > 0 || types.size !== columns.length) throw new Error(`${table} does not have the same columns on both sides`);
  return compareSorted(table, sourceRows(source, table, columns, types), targetRows(target, table, columns));
}

const isDocument = ({ type }: Column): boolean => type === "json" || type === "jsonb";

/** The values with their lengths before them, then the documents: sorted by the former, which hold the key. */
function select(columns: readonly Column[], value: (column: Column) => string, length: string, concat: (parts: readonly string[]) => string): string {
  const plain = columns.filter((column) => !isDocument(column)).map((column) => `coalesce(${concat([`${length}(${value(column)})`, "':'", value(column)])}, 'N')`);
  return [`${concat(plain)} AS image`, ...columns.filter(isDocument).map(value)].join(", ");
}

async function* sourceRows(client: Connection, table: string, columns: readonly Column[], types: ReadonlyMap<string, string>): AsyncGenerator<string, undefined> {
  const list = select(columns, ({ name }) => sourceText(`\`${name}\``, types.get(name)!), "char_length", (parts) => `concat(${parts.join(", ")})`);
  const rows = client.queryStream({ sql: `select ${list} from ${table} order by cast(image as binary)`, rowsAsArray: true, typeCast: (field, next) => (field.type === "JSON" ? field.string() : next()) });
  for await (const row of rows as AsyncIterable<(string | null)[]>) yield line(row);
  return undefined;
}

function sourceText(column: string, type: string): string {
  switch (type) {
    case "binary": return `lower(hex(${column}))`;
    case "timestamp": case "datetime": return `date_format(${column}, '%Y-%m-%d %H:%i:%s.%f')`;
    case "char": return `trim(trailing ' ' from ${column})`;
    default: return `convert(cast(${column} as char) using utf8mb4)`;
  }
}

async function* targetRows(client: pg.Client, table: string, columns: readonly Column[]): AsyncGenerator<string, undefined> {
  const list = select(columns, ({ name, type }) => targetText(`"${name}"`, type), "char_length", (parts) => parts.join(" || "));
  await client.query(`DECLARE rows_of CURSOR FOR SELECT * FROM (SELECT ${list} FROM ${table}) AS t ORDER BY image COLLATE "C"`);
  while (true) {
    const { rows } = await client.query<(string | null)[]>({ text: `FETCH ${FETCH} FROM rows_of`, rowMode: "array" });
    for (const row of rows) yield line(row);
    if (rows.length < FETCH) break;
  }
  await client.query("CLOSE rows_of");
  return undefined;
}

function targetText(column: string, type: string): string {
  switch (type) {
    case "uuid": return `replace(${column}::text, '-', '')`;
    case "timestamp": case "timestamptz": return `to_char(${column}, 'YYYY-MM-DD HH24:MI:SS.US')`;
    case "bool": return `${column}::int::text`;
    case "bpchar": return `rtrim(${column}::text, ' ')`;
    default: return `${column}::text`;
  }
}

/** A zero byte sorts before everything, and stands in no text. */
function line([image, ...documents]: readonly (string | null)[]): string {
  return [image, ...documents.map((text) => (text === null ? "N" : JSON.stringify(sorted(JSON.parse(text)))))].join("\0");
}

/** The same document with its keys in order. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, inner]) => [key, sorted(inner)]));
}
