/** Totals that were read piece by piece are put together here. */
import { addDecimals, compareDecimals } from "./decimal.ts";
import { EARLIER, LATER, NO_LANES, UNDATED, type BusinessDays, type DayCount, type Lanes, type MoneyTotal, type Totals } from "./comparison.ts";
import type { RecordClass } from "./words.ts";

export function addLanes(left: Lanes, right: Lanes): Lanes {
  return { count: left.count + right.count, a: left.a + right.a, b: left.b + right.b };
}

/** Everything in them is additive, or a minimum or maximum. */
export function mergeTotals(pieces: readonly Totals[]): Totals {
  return {
    count: pieces.reduce((sum, piece) => sum + piece.count, 0n),
    days: mergeDays(pieces.flatMap((piece) => piece.days)),
    money: mergeMoney(pieces.flatMap((piece) => piece.money)),
    lanes: pieces.reduce((sum, piece) => addLanes(sum, piece.lanes), NO_LANES),
  };
}

function mergeDays(days: readonly DayCount[]): DayCount[] {
  const rows = new Map<string | null, bigint>();
  for (const { day, rows: more } of days) rows.set(day, (rows.get(day) ?? 0n) + more);
  return [...rows].map(([day, count]) => ({ day, rows: count }));
}

/** Each currency of the class with its money columns: rows and days are counted with the first of them only. */
export async function totalsByCurrency(cls: RecordClass, figures: (currency: string | null, money: readonly string[]) => Promise<Totals>): Promise<Totals> {
  const currencies = [...new Set(cls.money.map(({ currency }) => currency))];
  const whole: Totals[] = [];
  for (const [i, currency] of (currencies.length === 0 ? [null] : currencies).entries()) {
    const totals = await figures(currency, cls.money.filter((one) => one.currency === currency).map(({ column }) => column));
    whole.push(i === 0 ? totals : { ...totals, count: 0n, days: [] });
  }
  return mergeTotals(whole);
}

/** What a bucket among the days' bounds is called: 0 is before the first, null has no date. */
export function dayName(bucket: number | null, days: BusinessDays): string {
  if (bucket === null) return UNDATED;
  return bucket === 0 ? EARLIER : days.names[bucket - 1] ?? LATER;
}

/** One total per column, currency and day. */
export function mergeMoney(totals: readonly MoneyTotal[]): MoneyTotal[] {
  const merged = new Map<string, MoneyTotal>();
  for (const total of totals) {
    const place = JSON.stringify([total.column, total.currency, total.day]);
    const before = merged.get(place);
    merged.set(place, before === undefined ? total : addMoney(before, total));
  }
  return [...merged.values()];
}

/** The same figures without the days: one total per column and currency. */
export function overAllDays(totals: readonly MoneyTotal[]): MoneyTotal[] {
  return mergeMoney(totals.map((total) => ({ ...total, day: null })));
}

function addMoney(a: MoneyTotal, b: MoneyTotal): MoneyTotal {
  return {
    column: a.column, currency: a.currency, day: a.day,
    rows: a.rows + b.rows, nulls: a.nulls + b.nulls, nan: a.nan + b.nan, infinite: a.infinite + b.infinite, negativeInfinite: a.negativeInfinite + b.negativeInfinite,
    sum: addDecimals(a.sum, b.sum),
    min: extreme(a.min, b.min, -1), max: extreme(a.max, b.max, 1),
    scale: a.scale === null ? b.scale : b.scale === null ? a.scale : Math.max(a.scale, b.scale),
  };
}

function extreme(a: string | null, b: string | null, sign: number): string | null {
  if (a === null || b === null) return a ?? b;
  return compareDecimals(a, b) * sign >= 0 ? a : b;
}
