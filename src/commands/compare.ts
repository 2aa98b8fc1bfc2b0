import { setTimeout as sleep } from "node:timers/promises";
import { DualrunError, EXIT, type ClassComparison, type ComparisonDocument } from "../core/index.ts";
import { callDaemon } from "./client.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

const POLL_MS = 250;

export interface CompareOptions extends CommonOptions {
  readonly class?: string;
  readonly full?: boolean;
}

/** A comparison now, by the running daemon; waits for its result. */
export async function compare(options: CompareOptions): Promise<void> {
  const config = await configOf(options);
  const { id } = await callDaemon<{ id: string }>(config, "POST", "/comparisons", { ...(options.class === undefined ? {} : { class: options.class }), full: options.full === true });
  let document: ComparisonDocument;
  do {
    await sleep(POLL_MS);
    document = await callDaemon<ComparisonDocument>(config, "GET", `/comparisons/${id}`);
  } while (document.finishedAt === null);
  if (options.json === true) printJson(document);
  else print(comparisonText(document));
  if (document.classes.length === 0) throw new DualrunError("DR7003", `comparison ${id} ended without a result`);
  if (document.verdict !== "in_sync") process.exitCode = EXIT.outOfSync;
}

const count = (text: string | null): string => (text === null ? "–" : BigInt(text).toLocaleString("en"));

/** A comparison as an operator reads it. */
export function comparisonText(document: ComparisonDocument): string {
  const head = `comparison ${document.id}${document.full ? " (full)" : ""} at ${document.position ?? "no cut"}: ${document.verdict}, ${document.seconds.toFixed(1)} s${document.holdMs === null ? "" : `, applying held for ${document.holdMs.toFixed(0)} ms`}`;
  return [head, "", ...table(document.classes), ...document.classes.flatMap(remarks)].join("\n");
}

function table(classes: readonly ClassComparison[]): string[] {
  const width = Math.max(5, ...classes.map((one) => one.class.length));
  const row = (cells: readonly string[]): string => cells.map((cell, i) => (i === 0 ? cell.padEnd(width) : i === 4 ? `  ${cell}` : cell.padStart(14))).join(" ");
  return [
    row(["class", "source", "target", "difference", "verdict"]),
    ...classes.map((one) => row([one.class, count(one.sourceRows), count(one.targetRows), count(one.difference), one.verdict])),
  ];
}

function remarks(result: ClassComparison): string[] {
  const money = result.money.filter(({ difference }) => /[1-9]/.test(difference))
    .map(({ column, currency, source, target, difference }) => `  ${result.class}.${column} ${currency ?? "without currency"}: source ${source}, target ${target}, difference ${difference}`);
  const odd = result.money.filter(({ iso }) => !iso).map(({ column, currency }) => `  ${result.class}.${column}: ${currency === null ? "some rows have no currency" : `"${currency}" is no ISO 4217 currency`}`);
  const { missing, extra, mismatched } = result.differences;
  const rows = missing + extra + mismatched === 0 ? [] : [`  ${result.class}: ${missing} missing, ${extra} extra, ${mismatched} mismatched rows (dualrun diff --class ${result.class})`];
  const note = result.note === null ? [] : [`  ${result.class}: ${result.note}`];
  return [...rows, ...money, ...odd, ...note];
}
