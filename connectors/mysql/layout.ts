/** What a mirror relies upon of a table: its columns as the catalogue prints them, and the facts beside them. */
import { findTable, tableKey, type Catalogue, type TableFacts, type TableLayout, type TableName } from "../../src/core/index.ts";
import type { ColumnHint, ColumnHints } from "./types.ts";

/** Where markers are written on the source. */
export const MARKS: TableName = { schema: "dualrun", name: "marks" };

const BETWEEN = "\t";

export function layoutsOf(catalogue: Catalogue, tables: readonly TableName[]): Map<string, TableLayout> {
  return new Map(tables.flatMap((name) => {
    const facts = findTable(catalogue, name);
    return facts === undefined ? [] : [[tableKey(name), layoutOf(facts)] as const];
  }));
}

function layoutOf(facts: TableFacts): TableLayout {
  const key = facts.uniqueKeys.find(({ primary }) => primary);
  return {
    columns: facts.columns.map((column) => [column.name, column.type, column.collation ?? "", column.generated ?? ""].join(BETWEEN)),
    facts: [`primary key ${key === undefined ? "none" : key.columns.join(", ")}`],
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
export function hintsOf(catalogue: Catalogue): Map<string, ColumnHints> {
  return new Map(catalogue.tables.flatMap((facts) => {
    const hints = new Map(facts.columns.flatMap((column): [string, ColumnHint][] => {
      const kind = /^(uuid|inet4|inet6)\b/i.exec(column.type)?.[1]?.toLowerCase() as ColumnHint["kind"];
      const decimals = /^(?:float|double)\(\d+,(\d+)\)/i.exec(column.type)?.[1];
      return kind === undefined && decimals === undefined ? [] : [[column.name, { ...(kind === undefined ? {} : { kind }), ...(decimals === undefined ? {} : { decimals: Number(decimals) }) }]];
    }));
    return hints.size === 0 ? [] : [[tableKey(facts.table), hints] as const];
  }));
}
