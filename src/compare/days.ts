/** Business dates: the days of a zone as ranges that SQL can compare. The zone data are this process's own. */
import type { BusinessDays } from "../core/index.ts";

/** Version of the zone data, for reports. */
export const ZONE_DATA_VERSION = process.versions["tz"] ?? "unknown";

const DAY_MS = 86_400_000;
/** Days before today that have figures of their own; what is older is taken together. */
const DAYS_BACK = 400;
const DAYS_AHEAD = 2;

/** `declaredZone` is what wall-clock columns are in. */
export function businessDays(zone: string, declaredZone: string, now = Date.now()): BusinessDays {
  const today = localDate(zone, now);
  const dates = Array.from({ length: DAYS_BACK + DAYS_AHEAD + 2 }, (_, i) => addDays(today, i - DAYS_BACK));
  const starts = dates.map((date) => startOfDay(zone, date));
  return {
    names: dates.slice(0, -1),
    dates,
    moments: starts.map((at) => new Date(at).toISOString()),
    wallClock: starts.map((at) => wallClock(declaredZone, at)),
  };
}

/** `2026-11-21` */
export function localDate(zone: string, at: number): string {
  return wallClock(zone, at).slice(0, 10);
}

export function addDays(date: string, days: number): string {
  return new Date(Date.parse(`${date}T00:00:00Z`) + days * DAY_MS).toISOString().slice(0, 10);
}

/** The first moment of a day, milliseconds since 1970. Days on which midnight is skipped begin at what the clock shows first. */
export function startOfDay(zone: string, date: string): number {
  const midnight = Date.parse(`${date}T00:00:00Z`);
  const guess = midnight - offset(zone, midnight - offset(zone, midnight));
  if (localDate(zone, guess) === date && localDate(zone, guess - 1) < date) return guess;
  let [before, after] = [midnight - 2 * DAY_MS, midnight + 2 * DAY_MS];
  while (after - before > 1) {
    const middle = Math.floor((before + after) / 2);
    if (localDate(zone, middle) < date) before = middle;
    else after = middle;
  }
  return after;
}

/** `2026-11-21T09:30:00`, as clocks in the zone show it. */
function wallClock(zone: string, at: number): string {
  const part = Object.fromEntries(formatter(zone).formatToParts(at).map(({ type, value }) => [type, value]));
  return `${part["year"]!.padStart(4, "0")}-${part["month"]}-${part["day"]}T${part["hour"]}:${part["minute"]}:${part["second"]}`;
}

function offset(zone: string, at: number): number {
  return Date.parse(`${wallClock(zone, at)}Z`) - Math.floor(at / 1000) * 1000;
}

const formatters = new Map<string, Intl.DateTimeFormat>();

function formatter(zone: string): Intl.DateTimeFormat {
  let found = formatters.get(zone);
  if (found === undefined) {
    found = new Intl.DateTimeFormat("en-US", { timeZone: zone, hourCycle: "h23", year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" });
    formatters.set(zone, found);
  }
  return found;
}
