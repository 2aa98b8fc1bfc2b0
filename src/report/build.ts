/** From a comparison to the report of one business date. Pure: what it is made of is handed in. */
import {
  addDecimals, breakAge, compareDecimals, subtractDecimals,
  type BreakDocument, type ClassComparison, type ClassReport, type ComparisonDocument, type DayComparison, type MoneyComparison, type MoneyLine, type Pair, type RecordClass, type Report, type ReportDocument,
} from "../core/index.ts";

/** Which column the bank's totals stand beside. */
export interface BankRule {
  readonly class: string;
  readonly column: string;
  /** Decimal text. */
  readonly tolerance: string;
}

export interface ReportParts {
  readonly migration: string;
  readonly date: string;
  readonly version: number;
  readonly createdAt: string;
  readonly preparer: string;
  readonly program: string;
  readonly configuration: string;
  readonly zone: string;
  readonly zoneData: string;
  /** ISO time. */
  readonly cutOff: string;
  readonly comparison: ComparisonDocument;
  readonly classes: readonly RecordClass[];
  readonly breaks: readonly BreakDocument[];
  readonly refused: readonly { readonly className: string; readonly reason: string; readonly rows: string }[];
  /** By currency. */
  readonly bank: ReadonlyMap<string, string>;
  readonly bankRules: readonly BankRule[];
  readonly previous: Report | null;
  readonly previousHash: string | null;
  readonly cleanStreak: number;
  readonly lagSeconds: number | null;
  readonly auditHead: string | null;
}

const ON_TIME_MS = 86_400_000;

export function buildReport(parts: ReportParts): ReportDocument {
  const { migration, date, version, createdAt, preparer, program, configuration, zone, zoneData, cutOff, comparison, lagSeconds, cleanStreak, previousHash, auditHead } = parts;
  const at = comparison.cutAt ?? comparison.startedAt;
  const classes = comparison.classes.map((result) => classReport(parts, result));
  const breaks = parts.breaks.map(({ id, class: name, category, rows, openedAt, owner, note }) => ({ id, class: name, category, rows, openedAt, age: breakAge(openedAt, Date.parse(createdAt)), owner, note }));
  return {
    migration, date, version, createdAt, preparer, program, configuration, zone, zoneData, cutOff,
    comparison: { id: comparison.id, full: comparison.full, at, sourcePosition: comparison.position ?? "none", targetPosition: comparison.position ?? "none" },
    provisional: at < cutOff,
    late: Date.parse(at) > Date.parse(cutOff) + ON_TIME_MS,
    clean: breaks.length === 0 && classes.length > 0 && classes.every(({ verdict }) => verdict === "in_sync"),
    classes, breaks, lagSeconds, cleanStreak, previousHash, auditHead,
  };
}

function classReport(parts: ReportParts, result: ClassComparison): ClassReport {
  const cls = parts.classes.find(({ name }) => name === result.class);
  const hasDates = cls !== undefined && cls.occurredAt !== null;
  return {
    class: result.class, kind: cls?.kind ?? "record", verdict: result.verdict, note: result.note,
    records: { source: result.sourceRows ?? "0", target: result.targetRows ?? "0" }, difference: result.difference ?? "0",
    dated: hasDates ? rowsOn(result.days, parts.date) : null,
    undated: hasDates ? rowsOn(result.days, "undated") : null,
    money: result.money.map((money) => moneyLine(parts, result, money, hasDates)),
    excluded: [
      ...(cls?.where == null ? [] : [{ reason: "outside of the class's `where`", rows: null }]),
      ...parts.refused.filter(({ className }) => className === result.class).map(({ reason, rows }) => ({ reason, rows })),
    ],
    provenSince: result.provenSince,
  };
}

function rowsOn(days: readonly DayComparison[], day: string): Pair {
  const found = days.find((one) => one.day === day);
  return { source: found?.sourceRows ?? "0", target: found?.targetRows ?? "0" };
}

/** Closing is what is dated up to the day; a class without dates closes with all that it holds. */
function moneyLine(parts: ReportParts, { class: name, days }: ClassComparison, money: MoneyComparison, hasDates: boolean): MoneyLine {
  const { column, currency } = money;
  const day = hasDates ? sumOver(days, column, currency, (one) => one === parts.date) : ZERO;
  const before = sumOver(days, column, currency, (day) => day === "earlier" || (isDate(day) && day < parts.date));
  const since = parts.previous?.document.date ?? null;
  const movements = hasDates ? sumOver(days, column, currency, (day) => (since === null ? day === parts.date : isDate(day) && day > since && day <= parts.date)) : ZERO;
  const closing = hasDates ? each(before, day, addDecimals) : { source: money.source, target: money.target };
  const opening = previousClosing(parts.previous, name, column, currency) ?? (hasDates ? before : closing);
  const backdated = each(each(closing, opening, subtractDecimals), movements, subtractDecimals);
  return {
    column, currency, iso: money.iso, opening, movements, backdated, closing, difference: subtractDecimals(closing.target, closing.source),
    bank: bankLine(parts, name, column, currency, day),
  };
}

const ZERO: Pair = { source: "0", target: "0" };
const isDate = (day: string): boolean => /^\d{4}-/.test(day);

function sumOver(days: readonly DayComparison[], column: string, currency: string | null, chosen: (day: string) => boolean): Pair {
  const lines = days.filter(({ day }) => chosen(day)).flatMap(({ money }) => money.filter((one) => one.column === column && one.currency === currency));
  return lines.reduce<Pair>((sum, line) => each(sum, line, addDecimals), ZERO);
}

function each(a: Pair, b: Pair, work: (a: string, b: string) => string): Pair {
  return { source: work(a.source, b.source), target: work(a.target, b.target) };
}

function previousClosing(previous: Report | null, name: string, column: string, currency: string | null): Pair | null {
  const line = previous?.document.classes.find((one) => one.class === name)?.money.find((one) => one.column === column && one.currency === currency);
  return line?.closing ?? null;
}

function bankLine({ bank, bankRules }: ReportParts, name: string, column: string, currency: string | null, movements: Pair): MoneyLine["bank"] {
  const rule = bankRules.find((one) => one.class === name && one.column === column);
  const total = currency === null ? undefined : bank.get(currency);
  if (rule === undefined || total === undefined) return null;
  const difference = subtractDecimals(movements.target, total);
  const size = difference.startsWith("-") ? difference.slice(1) : difference;
  return { total, difference, tolerance: rule.tolerance, within: compareDecimals(size, rule.tolerance) <= 0 };
}
