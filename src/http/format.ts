/** Figures as people read them. */

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const ONE_DIGIT = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;

export interface Figure {
  readonly value: string;
  readonly unit: string;
}

export function count(value: number): string {
  return WHOLE.format(value);
}

/** Per second; small rates keep a digit. */
export function rate(value: number): string {
  return value > 0 && value < 10 ? ONE_DIGIT.format(value) : WHOLE.format(value);
}

export function bytes(value: number): string {
  const step = value < 1024 ? 0 : Math.min(BYTES.length - 1, Math.floor(Math.log2(value) / 10));
  const scaled = value / 1024 ** step;
  return `${step === 0 || scaled >= 100 ? WHOLE.format(scaled) : ONE_DIGIT.format(scaled)} ${BYTES[step]!}`;
}

/** A share of a whole, rounded down, so that 100 % means all. */
export function percent(part: number, whole: number): string {
  const share = whole <= 0 ? 0 : Math.min(part / whole, 1);
  return `${ONE_DIGIT.format(Math.floor(share * 1000) / 10)} %`;
}

/** A lag as a figure with its unit: 120 ms, 4.2 s, 3 m 12 s. */
export function lag(seconds: number): Figure {
  if (seconds < 0.9995) return { value: WHOLE.format(Math.max(seconds, 0) * 1000), unit: "ms" };
  if (seconds < 59.95) return { value: ONE_DIGIT.format(seconds), unit: "s" };
  return { value: duration(seconds), unit: "" };
}

/** At most two units: 45 s, 3 m 12 s, 2 h 5 m, 4 d 1 h. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const units = [[Math.floor(whole / 86_400), "d"], [Math.floor(whole / 3_600) % 24, "h"], [Math.floor(whole / 60) % 60, "m"], [whole % 60, "s"]] as const;
  const first = units.findIndex(([amount]) => amount > 0);
  if (first < 0) return "0 s";
  return units.slice(first, first + 2).filter(([amount]) => amount > 0).map(([amount, unit]) => `${amount} ${unit}`).join(" ");
}

/** `2026-01-31 08:15:02 UTC`; what is no time comes back as it is. */
export function moment(iso: string): string {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? iso : `${date.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}
