import { writeFileSync } from "node:fs";
import { DualrunError, EXIT, type Report } from "../core/index.ts";
import { callDaemon, fetchFromDaemon } from "./client.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

export interface ReportOptions extends CommonOptions {
  readonly date: string;
  readonly format?: string;
  readonly prepare?: boolean;
  readonly output?: string;
}

const FORMATS = ["html", "csv", "json", "pdf"];

/** The daily reconciliation of a business date; prepares it when there is none yet, or when asked to. */
export async function report(options: ReportOptions): Promise<void> {
  const format = options.format ?? "json";
  if (!FORMATS.includes(format)) throw new DualrunError("DR1004", `--format ${format}: one of ${FORMATS.join(", ")}`);
  const config = await configOf(options);
  const path = `/reports/${encodeURIComponent(options.date)}`;
  const found = options.prepare === true ? await callDaemon<Report>(config, "POST", path) : await foundOrMade(config, path);
  if (options.format === undefined) {
    if (options.json === true) printJson(found);
    else print(reportText(found));
  } else {
    const bytes = await fetchFromDaemon(config, `${path}?format=${format}`);
    if (options.output !== undefined) writeFileSync(options.output, bytes);
    else process.stdout.write(bytes);
  }
  if (!found.document.clean) process.exitCode = EXIT.outOfSync;
}

async function foundOrMade(config: Parameters<typeof callDaemon>[0], path: string): Promise<Report> {
  try {
    return await callDaemon<Report>(config, "GET", path);
  } catch (error) {
    if (!(error instanceof DualrunError) || !error.message.startsWith("There is no report")) throw error;
    return callDaemon<Report>(config, "POST", path);
  }
}

function reportText({ document, hash, signOff }: Report): string {
  const classes = document.classes.flatMap((cls) => [
    `${cls.class}: ${cls.verdict}, records ${cls.records.source} / ${cls.records.target}`,
    ...cls.money.map((one) => `  ${one.column} ${one.currency ?? "without currency"}: opening ${one.opening.target}, movements ${one.movements.target}, backdated ${one.backdated.target}, closing ${one.closing.target}, difference ${one.difference}${one.bank === null ? "" : `, bank ${one.bank.total} (${one.bank.within ? "within" : "beyond"} tolerance)`}`),
  ]);
  return [
    `daily reconciliation ${document.date}, version ${document.version}: ${document.clean ? "clean" : "NOT CLEAN"}${document.late ? ", late" : ""}${document.provisional ? ", provisional (the day was not over)" : ""}`,
    `comparison ${document.comparison.id} at ${document.comparison.sourcePosition}, ${document.comparison.at}`, "", ...classes, "",
    `${document.breaks.length} breaks open; ${document.cleanStreak} clean days in a row before`,
    signOff === null ? `not signed; prepared by ${document.preparer}` : `signed by ${signOff.approver} at ${signOff.at}: ${signOff.note}`,
    `hash ${hash}`,
  ].join("\n");
}

export interface SignOffOptions extends CommonOptions {
  readonly date: string;
  readonly note: string;
  readonly for?: string;
  readonly hash?: string;
}

/** Approves a report; needs a token of the role finance-approver in DUALRUN_TOKEN. */
export async function signOff(options: SignOffOptions): Promise<void> {
  const signed = await callDaemon<Report>(await configOf(options), "POST", `/reports/${encodeURIComponent(options.date)}/sign-off`, { note: options.note, onBehalfOf: options.for ?? null, hash: options.hash ?? null });
  if (options.json === true) printJson(signed);
  else print(reportText(signed));
}
