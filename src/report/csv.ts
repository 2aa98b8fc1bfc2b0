/** A report as CSV: one line per figure, safe to open in a spreadsheet. */
import type { ClassReport, Report } from "../core/index.ts";

const HEADER = ["date", "class", "figure", "column", "currency", "source", "target", "difference"];

export function reportCsv(report: Report): string {
  const { document, hash, signOff } = report;
  const head: string[][] = [
    ["migration", document.migration], ["business date", document.date], ["version", String(document.version)], ["comparison", document.comparison.id], ["position", document.comparison.sourcePosition],
    ["cut", document.comparison.at], ["cut-off", document.cutOff], ["zone", `${document.zone} (${document.zoneData})`], ["configuration", document.configuration], ["clean", document.clean ? "yes" : "no"],
    ["preparer", document.preparer], ["approver", signOff === null ? "" : signOff.approver], ["hash", hash], ["hash of the report before", document.previousHash ?? ""],
  ];
  const lines = document.classes.flatMap((cls) => classLines(document.date, cls));
  const breaks = document.breaks.map((one) => [document.date, one.class, `break ${one.id}: ${one.category}`, "", "", "", "", String(one.rows)]);
  return [...head, [], HEADER, ...lines, ...breaks].map((cells) => cells.map(cell).join(",")).join("\r\n") + "\r\n";
}

function classLines(date: string, cls: ClassReport): string[][] {
  const line = (figure: string, column: string, currency: string, source: string, target: string, difference: string): string[] => [date, cls.class, figure, column, currency, source, target, difference];
  const money = cls.money.flatMap((one) => {
    const named = (figure: string, { source, target }: { readonly source: string; readonly target: string }, difference = ""): string[] => line(figure, one.column, one.currency ?? "", source, target, difference);
    const bank = one.bank === null ? [] : [line("bank", one.column, one.currency ?? "", "", one.bank.total, one.bank.difference)];
    return [named("opening", one.opening), named("movements", one.movements), named("backdated", one.backdated), named("closing", one.closing, one.difference), ...bank];
  });
  return [line(`records, ${cls.verdict}`, "", "", cls.records.source, cls.records.target, cls.difference), ...money];
}

/** What a spreadsheet would take for a formula is made text; numbers stay numbers. */
export function cell(text: string): string {
  const harmless = /^[=+\-@\t\r]/.test(text) && !/^-?\d+(\.\d+)?$/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}
