/** Daily totals from the bank: CSV with the columns date, currency, amount and, optionally, account. */
import { DualrunError } from "../core/index.ts";
import type { BankLine } from "../state/index.ts";

const MOST_LINES = 100_000;
const MOST_FAULTS = 50;

/** Reads a statement; DR7103 with every fault and its line. */
export function parseBankCsv(text: string): BankLine[] {
  if (text.includes("\uFFFD")) throw refused(["the file is not UTF-8"]);
  const lines = text.replace(/^\uFEFF/, "").split(/\r\n|\n|\r/);
  while (lines.length > 0 && lines.at(-1)!.trim() === "") lines.pop();
  if (lines.length === 0) throw refused(["the file is empty"]);
  if (lines.length > MOST_LINES) throw refused([`more than ${MOST_LINES} lines`]);
  const separator = lines[0]!.includes(";") ? ";" : ",";
  const header = cells(lines[0]!, separator).map((name) => name.trim().toLowerCase());
  const missing = ["date", "currency", "amount"].filter((name) => !header.includes(name));
  const unknown = header.filter((name) => !["date", "currency", "amount", "account"].includes(name));
  if (missing.length + unknown.length > 0) throw refused([`line 1: found ${header.join(", ")}; allowed: date, currency, amount and, optionally, account`]);
  return readLines(lines.slice(1), header, separator);
}

function readLines(lines: readonly string[], header: readonly string[], separator: string): BankLine[] {
  const faults: string[] = [];
  const seen = new Map<string, number>();
  const read = lines.map((text, i): BankLine => {
    const values = cells(text, separator);
    const cell = (name: string): string => values[header.indexOf(name)]?.trim() ?? "";
    const line = { date: cell("date"), currency: cell("currency"), amount: cell("amount"), account: cell("account") };
    const number = i + 2;
    faults.push(...lineFaults(line, values.length, header.length).map((fault) => `line ${number}: ${fault}`));
    const place = `${line.date} ${line.currency} ${line.account}`;
    if (seen.has(place)) faults.push(`line ${number}: ${line.date} ${line.currency}${line.account === "" ? "" : ` ${line.account}`} stands in line ${seen.get(place)} already`);
    else seen.set(place, number);
    return line;
  });
  if (faults.length > 0) throw refused(faults);
  if (read.length === 0) throw refused(["there is no line below the header"]);
  return read;
}

function lineFaults({ date, currency, amount }: BankLine, found: number, wanted: number): string[] {
  if (found !== wanted) return [`${found} cells instead of ${wanted}`];
  return [
    ...(isDate(date) ? [] : ["the date is not like 2026-11-21"]),
    ...(/^[A-Z]{3}$/.test(currency) ? [] : ["the currency is not an ISO 4217 code"]),
    ...(/^-?\d{1,30}(\.\d{1,10})?$/.test(amount) ? [] : ["the amount is not a decimal like -1234.50, without grouping"]),
  ];
}

function isDate(text: string): boolean {
  return /^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(`${text}T00:00:00Z`)) && new Date(`${text}T00:00:00Z`).toISOString().startsWith(text);
}

/** Cells may stand in double quotes, in which two stand for one. */
function cells(line: string, separator: string): string[] {
  const found: string[] = [];
  let at = 0;
  do {
    if (line[at] === '"') {
      const quoted = /^"((?:[^"]|"")*)"/.exec(line.slice(at));
      if (quoted === null) return [];
      found.push(quoted[1]!.replaceAll('""', '"'));
      at += quoted[0].length;
      if (at < line.length && line[at] !== separator) return [];
    } else {
      const end = line.indexOf(separator, at);
      found.push(line.slice(at, end === -1 ? line.length : end));
      at = end === -1 ? line.length : end;
    }
  } while (at++ < line.length);
  return found;
}

function refused(faults: readonly string[]): DualrunError {
  const more = faults.length > MOST_FAULTS ? [`and ${faults.length - MOST_FAULTS} more`] : [];
  return new DualrunError("DR7103", faults.length === 1 ? faults[0]! : `${faults.length} lines cannot be read`, { details: [...faults.slice(0, MOST_FAULTS), ...more] });
}
