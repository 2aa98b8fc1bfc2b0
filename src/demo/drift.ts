/** What a difference looks like: planted on the target, found at an exact cut, explained by row and column, repaired, proven. */
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { RunningDaemon } from "../daemon.ts";

export interface DriftResult {
  /** One line per planted error. */
  readonly planted: readonly string[];
  readonly found: boolean;
  readonly repaired: boolean;
}

const PLANTS = [
  { class: "credit_notes", what: "one cent is added to a credit note", sql: "UPDATE billing.credit_notes SET amount = amount + 0.01 WHERE (customer_id, sequence) = (SELECT customer_id, sequence FROM billing.credit_notes ORDER BY 1, 2 LIMIT 1)" },
  { class: "audit_log", what: "a line of the audit log is deleted", sql: "DELETE FROM billing.audit_log WHERE id = (SELECT min(id) FROM billing.audit_log)" },
] as const;

export async function showDrift(daemon: RunningDaemon, targetUrl: string, say: (line: string) => void): Promise<DriftResult> {
  const { proof } = daemon.control;
  while (daemon.control.status().state !== "streaming") await sleep(100);
  say("\n  somebody writes to the target behind dualrun's back:");
  await plant(targetUrl);
  for (const { what } of PLANTS) say(`    ${what}`);
  const comparison = await proof.compare(null, true);
  const bad = comparison.classes.filter(({ verdict }) => verdict === "confirmed_out_of_sync");
  say(`  compared in ${comparison.seconds.toFixed(1)} s: ${bad.map((one) => one.class).join(" and ") || "nothing"} out of sync; ${(await proof.breaks(true)).length} breaks are open; dualrun_comparison_in_sync is 0, which pages`);
  for (const { class: name } of bad) await explain(daemon, name, say);
  const repaired = await Promise.all(bad.map(async ({ class: name }) => (await proof.repair(name, true, "demo")).comparison?.verdict === "in_sync"));
  say(`  repaired under the fence and compared again: ${repaired.every(Boolean) ? "in sync" : "NOT in sync"}; ${(await proof.breaks(true)).length} breaks are open`);
  say("");
  return { planted: PLANTS.map(({ what }) => what), found: PLANTS.every((one) => bad.some((found) => found.class === one.class)), repaired: repaired.length === PLANTS.length && repaired.every(Boolean) };
}

async function plant(connectionString: string): Promise<void> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    for (const { sql } of PLANTS) await client.query(sql);
  } finally {
    await client.end();
  }
}

async function explain(daemon: RunningDaemon, name: string, say: (line: string) => void): Promise<void> {
  const { rows } = await daemon.control.proof.diff(name, 5);
  for (const row of rows) {
    const key = Object.entries(row.key).map(([column, value]) => `${column} ${value}`).join(", ");
    const columns = row.kind === "mismatched" ? `: ${row.columns.map(({ name: column, source, target }) => `${column} is ${source} on the source and ${target} on the target`).join("; ")}` : "";
    say(`    ${name}, ${key}: ${row.kind}${columns}`);
  }
}
