/** What a mirror relies upon of a table: its columns as the catalogue prints them, and the facts beside them. */
import type { Connection, Pool } from "mariadb";
import { tableKey, type TableLayout, type TableName } from "../../src/core/index.ts";
import { query } from "./connection.ts";
import { quoteLiteral } from "./identifiers.ts";
import { layoutColumns } from "./inspect-sql.ts";
import type { ColumnHint, ColumnHints } from "./types.ts";

/** Where markers are written on the source. */
export const MARKS: TableName = { schema: "dualrun", name: "marks" };

const BETWEEN = "\t";

/** A column as the catalogue prints it. */
interface LayoutColumn {
  readonly name: string;
  readonly type: string;
  readonly collation: string;
  readonly generated: string;
  /** Place in the primary key, from 1; 0: it is no part of it. */
  readonly place: number;
}

/** By `schema.table`; a table that is gone is absent. */
export async function readColumns(connection: Connection | Pool, tables: readonly TableName[]): Promise<Map<string, LayoutColumn[]>> {
  if (tables.length === 0) return new Map();
  const rows = await query(connection, layoutColumns(tables.map(({ schema, name }) => `(${quoteLiteral(schema)}, ${quoteLiteral(name)})`).join(", ")));
  const columns = new Map<string, LayoutColumn[]>();
  for (const row of rows) {
    const text = (name: string): string => String(row[name] ?? "");
    const key = tableKey({ schema: text("schema"), name: text("table") });
    const column = { name: text("name"), type: text("type"), collation: text("collation"), generated: /\b(VIRTUAL|STORED|PERSISTENT) GENERATED\b/.exec(text("extra"))?.[1] ?? "", place: Number(row["place"] ?? 0) };
    columns.set(key, [...(columns.get(key) ?? []), column]);
  }
  return columns;
}

export function layoutsOf(columns: ReadonlyMap<string, readonly LayoutColumn[]>): Map<string, TableLayout> {
  return new Map([...columns].map(([table, ofTable]) => [table, layoutOf(ofTable)]));
}

function layoutOf(columns: readonly LayoutColumn[]): TableLayout {
  const key = columns.filter(({ place }) => place > 0).toSorted((a, b) => a.place - b.place).map(({ name }) => name);
  return {
    columns: columns.map(({ name, type, collation, generated }) => [name, type, collation, generated].join(BETWEEN)),
    facts: [`primary key ${key.length === 0 ? "none" : key.join(", ")}`],
  };
}

export function columnNames(layout: TableLayout): string[] {
  return layout.columns.map((line) => line.slice(0, line.indexOf(BETWEEN)));
}

/** One line per difference. */
export function layoutDifferences(agreed: TableLayout, found: TableLayout): string[] {
  const before = new Map(agreed.columns.map((line) => [line.split(BETWEEN)[0]!, line]));
  const after = new Map(found.columns.map((line) => [line.split(BETWEEN)[0]!, line]));
  const differences: string[] = [];
  for (const [name, line] of after) {
    if (!before.has(name)) differences.push(`column "${name}" was added`);
    else if (before.get(name) !== line) differences.push(`column "${name}" has another type`);
  }
  for (const name of before.keys()) if (!after.has(name)) differences.push(`column "${name}" was dropped or renamed`);
  if (differences.length === 0 && agreed.columns.join("\n") !== found.columns.join("\n")) differences.push("the order of the columns changed");
  return [...differences, ...agreed.facts.filter((fact) => !found.facts.includes(fact)).map((fact) => `no longer holds: ${fact}`)];
}

/** From `schema.table`. */
export function tableNamed(key: string): TableName {
  const dot = key.indexOf(".");
  return { schema: key.slice(0, dot), name: key.slice(dot + 1) };
}

/** What the log does not tell of columns, by `schema.table`. */
export function hintsOf(columns: ReadonlyMap<string, readonly LayoutColumn[]>): Map<string, ColumnHints> {
  return new Map([...columns].map(([table, ofTable]) => [table, new Map(ofTable.flatMap(({ name, type }): [string, ColumnHint][] => {
    const kind = /^(uuid|inet4|inet6)\b/i.exec(type)?.[1]?.toLowerCase() as ColumnHint["kind"];
    const decimals = /^(?:float|double)\(\d+,(\d+)\)/i.exec(type)?.[1];
    return kind === undefined && decimals === undefined ? [] : [[name, { ...(kind === undefined ? {} : { kind }), ...(decimals === undefined ? {} : { decimals: Number(decimals) }) }]];
  }))]));
}
