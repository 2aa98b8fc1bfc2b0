/** From the totals of both sides to what is said of a class. */
import {
  compareDecimals, isZero, overAllDays, sameLanes, subtractDecimals,
  type DayComparison, type MoneyComparison, type MoneyTotal, type SpecialCounts, type Totals,
} from "../core/index.ts";

const ISO_CURRENCIES: ReadonlySet<string> = new Set(Intl.supportedValuesOf("currency"));

export function isIsoCurrency(code: string | null): boolean {
  return code !== null && ISO_CURRENCIES.has(code);
}

/** Every figure of both sides is the same: counts, money, by day and as a whole, and the hashes that were asked for. */
export function totalsAgree(source: Totals, target: Totals): boolean {
  return source.count === target.count && sameLanes(source.lanes, target.lanes) && sameDays(source, target) && sameMoney(source.money, target.money);
}

export function compareMoney(source: Totals, target: Totals): MoneyComparison[] {
  return paired(overAllDays(source.money), overAllDays(target.money)).map(({ either, left, right }) => ({
    column: either.column, currency: either.currency,
    source: left?.sum ?? "0", target: right?.sum ?? "0", difference: subtractDecimals(right?.sum ?? "0", left?.sum ?? "0"),
    scale: Math.max(left?.scale ?? 0, right?.scale ?? 0),
    sourceSpecial: special(left), targetSpecial: special(right),
    sourceMin: left?.min ?? null, targetMin: right?.min ?? null, sourceMax: left?.max ?? null, targetMax: right?.max ?? null,
    iso: isIsoCurrency(either.currency),
  }));
}

/** The figures differ: by amount, or in what stands beside it. */
export function moneyDiffers(money: MoneyComparison): boolean {
  return !isZero(money.difference) || JSON.stringify(money.sourceSpecial) !== JSON.stringify(money.targetSpecial);
}

export function compareDays(source: Totals, target: Totals): DayComparison[] {
  const days = new Set([...source.days, ...target.days].flatMap(({ day }) => (day === null ? [] : [day])));
  const rows = (totals: Totals, day: string): string => (totals.days.find((one) => one.day === day)?.rows ?? 0n).toString();
  const money = paired(source.money, target.money);
  return [...days].toSorted().map((day) => ({
    day, sourceRows: rows(source, day), targetRows: rows(target, day),
    money: money.filter(({ either }) => either.day === day).map(({ either, left, right }) => ({ column: either.column, currency: either.currency, source: left?.sum ?? "0", target: right?.sum ?? "0" })),
  }));
}

interface Pair {
  readonly either: MoneyTotal;
  readonly left: MoneyTotal | undefined;
  readonly right: MoneyTotal | undefined;
}

function paired(source: readonly MoneyTotal[], target: readonly MoneyTotal[]): Pair[] {
  const place = ({ column, currency, day }: MoneyTotal): string => JSON.stringify([column, currency, day]);
  const left = new Map(source.map((total) => [place(total), total]));
  const right = new Map(target.map((total) => [place(total), total]));
  return [...new Set([...left.keys(), ...right.keys()])].map((key) => ({ either: (left.get(key) ?? right.get(key))!, left: left.get(key), right: right.get(key) }));
}

function sameDays(source: Totals, target: Totals): boolean {
  const target_ = new Map(target.days.map(({ day, rows }) => [day, rows]));
  return source.days.length === target.days.length && source.days.every(({ day, rows }) => target_.get(day) === rows);
}

function sameMoney(source: readonly MoneyTotal[], target: readonly MoneyTotal[]): boolean {
  return paired(source, target).every(({ left, right }) => left !== undefined && right !== undefined && sameFigures(left, right));
}

function sameFigures(a: MoneyTotal, b: MoneyTotal): boolean {
  return a.rows === b.rows && a.nulls === b.nulls && a.nan === b.nan && a.infinite === b.infinite && a.negativeInfinite === b.negativeInfinite &&
    sameDecimal(a.sum, b.sum) && sameDecimal(a.min, b.min) && sameDecimal(a.max, b.max);
}

function sameDecimal(a: string | null, b: string | null): boolean {
  return a === null || b === null ? a === b : compareDecimals(a, b) === 0;
}

function special(total: MoneyTotal | undefined): SpecialCounts {
  const text = (count: bigint | undefined): string => (count ?? 0n).toString();
  return { nulls: text(total?.nulls), nan: text(total?.nan), infinite: text(total?.infinite), negativeInfinite: text(total?.negativeInfinite) };
}
