import { DualrunError, EXIT, type DiffDocument, type DiffRow } from "../core/index.ts";
import { callDaemon } from "./client.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

export interface DiffOptions extends CommonOptions {
  readonly class: string;
  readonly limit: string;
}

/** The rows of a class that differ now. */
export async function diff(options: DiffOptions): Promise<void> {
  const limit = Number(options.limit);
  if (!Number.isInteger(limit) || limit < 1 || limit > 1_000) throw new DualrunError("DR1004", `--limit ${options.limit}: a number from 1 to 1000`);
  const document = await callDaemon<DiffDocument>(await configOf(options), "GET", `/classes/${encodeURIComponent(options.class)}/diff?limit=${limit}`);
  if (options.json === true) printJson(document);
  else print(diffText(document));
  if (document.total > 0) process.exitCode = EXIT.outOfSync;
}

function diffText({ class: name, total, complete, position, rows }: DiffDocument): string {
  if (total === 0) return `class ${name} does not differ at ${position}`;
  const more = rows.length < total ? `, ${rows.length} of them here` : "";
  return [`class ${name}: ${complete ? "" : "at least "}${total} rows differ at ${position}${more}`, ...rows.flatMap(rowText)].join("\n");
}

function rowText(row: DiffRow): string[] {
  const key = Object.entries(row.key).map(([column, value]) => `${column}=${value}`).join(" ");
  const times = row.times === 1 ? "" : ` ×${row.times}`;
  const shown = (value: string | null): string => (value === null ? "NULL" : JSON.stringify(value));
  const columns = row.columns.map(({ name, source, target }) => `    ${name}: ${row.kind === "extra" ? "" : `source ${shown(source)}`}${row.kind === "mismatched" ? ", " : ""}${row.kind === "missing" ? "" : `target ${shown(target)}`}`);
  return [`  ${row.kind}${times} ${key === "" ? row.keyHash : key}`, ...columns];
}
