import type { BreakDocument } from "../core/index.ts";
import { callDaemon } from "./client.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

export interface BreaksOptions extends CommonOptions {
  readonly all?: boolean;
}

/** Confirmed differences that nobody has settled; with `--all` the others too. */
export async function breaks(options: BreaksOptions): Promise<void> {
  const document = await callDaemon<{ breaks: readonly BreakDocument[] }>(await configOf(options), "GET", `/breaks?open=${options.all === true ? "false" : "true"}`);
  if (options.json === true) printJson(document);
  else print(document.breaks.length === 0 ? "no breaks are open" : document.breaks.map(breakText).join("\n"));
}

export interface ResolveOptions extends CommonOptions {
  readonly note: string;
  readonly as: string;
}

/** Settles a break, with the reason. */
export async function resolveBreak(id: string, options: ResolveOptions): Promise<void> {
  const document = await callDaemon<BreakDocument>(await configOf(options), "POST", `/breaks/${encodeURIComponent(id)}/resolve`, { note: options.note, resolution: options.as });
  if (options.json === true) printJson(document);
  else print(breakText(document));
}

/** Names who takes care of a break. */
export async function assignBreak(id: string, options: CommonOptions & { readonly to: string }): Promise<void> {
  const document = await callDaemon<BreakDocument>(await configOf(options), "POST", `/breaks/${encodeURIComponent(id)}/owner`, { owner: options.to });
  if (options.json === true) printJson(document);
  else print(breakText(document));
}

function breakText(one: BreakDocument): string {
  const state = one.resolvedAt === null ? `open since ${one.openedAt}` : `${one.resolution} by ${one.resolvedBy} at ${one.resolvedAt}: ${one.note}`;
  const owner = one.resolvedAt === null && one.owner !== null ? `, with ${one.owner}` : "";
  const clean = one.resolvedAt === null && one.cleanSince !== null ? `, not seen since ${one.cleanSince}` : "";
  const money = one.money.map(({ column, currency, difference }) => `, ${column} ${difference} ${currency ?? ""}`).join("");
  return `${one.id.padStart(4)}  ${one.class}  ${one.category}, ${one.rows} rows${money}  ${state}${owner}${clean}`;
}
