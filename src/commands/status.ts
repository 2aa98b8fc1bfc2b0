import type { ClassProgress, StatusDocument } from "../core/index.ts";
import { callDaemon } from "./client.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

/** Phase, lag, progress, what is wrong and what to do. */
export async function status(options: CommonOptions): Promise<void> {
  const document = await callDaemon<StatusDocument>(await configOf(options), "GET", "/status");
  if (options.json === true) printJson(document);
  else print(statusText(document));
}

const count = (value: number): string => Math.round(value).toLocaleString("en");
const bytes = (value: number | null): string => (value === null ? "unknown" : value < 1 << 20 ? `${count(value / 1024)} KiB` : `${count(value / (1 << 20))} MiB`);

/** 350 ms, 4.2 s, 12 min, 3 h 20 min. */
function seconds(value: number | null): string {
  if (value === null) return "not measured";
  if (value < 1) return `${(value * 1000).toFixed(0)} ms`;
  if (value < 120) return `${value.toFixed(1)} s`;
  const minutes = Math.round(value / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** The status as an operator reads it. */
export function statusText(document: StatusDocument): string {
  const lines = [
    `migration   ${document.migration}`,
    `phase       ${document.phase} (${document.state})`,
    `lag         ${seconds(document.lagSeconds)}, ${bytes(document.lagBytes)}`,
    `position    ${document.position ?? "none"} of ${document.head ?? "unknown"}`,
    `rate        ${count(document.changesPerSecond)} rows/s, ${count(document.transactionsPerSecond)} transactions/s`,
    `slot        ${document.slot.state}, ${bytes(document.slot.retainedBytes)} retained${document.slot.detail === "" ? "" : `: ${document.slot.detail}`}`,
  ];
  const { snapshot, journal } = document;
  if (journal !== null) lines.push(`journal     ${journal.state}, ${bytes(journal.bytes)} of ${bytes(journal.maxBytes)}, ${journal.first ?? "none"} … ${journal.last ?? "none"}${journal.oldestCommitAt === null ? "" : `, oldest commit ${journal.oldestCommitAt}`}`);
  if (snapshot !== null) {
    lines.push(`snapshot    ${count(snapshot.rows)} of ${count(snapshot.expectedRows)} rows, ${bytes(snapshot.bytes)}${snapshot.done ? ", done" : `, ETA ${seconds(snapshot.etaSeconds)}, open for ${seconds(snapshot.ageSeconds)}, holds ${snapshot.holds}`}`);
    if (snapshot.refused > 0) lines.push(`            ${count(snapshot.refused)} rows were refused by the target`);
  }
  lines.push("", ...classTable(document.classes));
  for (const table of document.newTables) lines.push("", `not mirrored yet: ${table} (dualrun resnapshot --class … adds it)`);
  if (document.warnings.length > 0) lines.push("", ...document.warnings.map((warning) => `warning: ${warning}`));
  const { halt } = document;
  if (halt !== null) lines.push("", `${document.state}: ${halt.code} ${halt.what}`, ...(halt.where === null ? [] : [`  in ${halt.where}`]), ...halt.details.map((line) => `  ${line}`), `next: ${halt.next}`);
  return lines.join("\n");
}

function classTable(classes: readonly ClassProgress[]): string[] {
  const width = Math.max(5, ...classes.map(({ name }) => name.length));
  const row = (cells: readonly string[]): string => cells.map((cell, i) => (i === 0 ? cell.padEnd(width) : cell.padStart(12))).join(" ");
  return [
    row(["class", "copied", "inserts", "updates", "deletes", "conflicts"]),
    ...classes.map((cls) => row([cls.name, count(cls.snapshotRows), count(cls.inserts), count(cls.updates), count(cls.deletes), count(cls.conflicts)])),
  ];
}
