/** Exact decimals as text: what money is summed, compared and printed as. Never a float. */

interface Parts {
  readonly units: bigint;
  readonly scale: number;
}

const FORM = /^([+-]?)(\d+)(?:\.(\d*))?$/;

function parts(text: string): Parts {
  const match = FORM.exec(text);
  if (match === null) throw new TypeError(`not a decimal: ${JSON.stringify(text.slice(0, 40))}`);
  const fraction = match[3] ?? "";
  const units = BigInt(match[2]! + fraction);
  return { units: match[1] === "-" ? -units : units, scale: fraction.length };
}

function at(scale: number, value: Parts): bigint {
  return value.units * 10n ** BigInt(scale - value.scale);
}

function print(units: bigint, scale: number): string {
  const digits = (units < 0n ? -units : units).toString().padStart(scale + 1, "0");
  const whole = digits.slice(0, digits.length - scale);
  return `${units < 0n ? "-" : ""}${whole}${scale === 0 ? "" : `.${digits.slice(-scale)}`}`;
}

/** The sum, with the larger of both scales: `1.5 + 0.25 = 1.75`. */
export function addDecimals(a: string, b: string): string {
  const [left, right] = [parts(a), parts(b)];
  const scale = Math.max(left.scale, right.scale);
  return print(at(scale, left) + at(scale, right), scale);
}

/** `a - b`, with the larger of both scales. */
export function subtractDecimals(a: string, b: string): string {
  const [left, right] = [parts(a), parts(b)];
  const scale = Math.max(left.scale, right.scale);
  return print(at(scale, left) - at(scale, right), scale);
}

/** Negative, zero or positive, as for a sort. Scales do not matter: 1 equals 1.00. */
export function compareDecimals(a: string, b: string): number {
  const [left, right] = [parts(a), parts(b)];
  const scale = Math.max(left.scale, right.scale);
  const difference = at(scale, left) - at(scale, right);
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

export function isZero(text: string): boolean {
  return parts(text).units === 0n;
}

/** How many units of the given scale a decimal is: `1.50` at scale 2 is 150; at a smaller scale than its own it is exact too, as a fraction is never cut. */
export function minorUnits(text: string, scale: number): bigint {
  const value = parts(text);
  return at(Math.max(scale, value.scale), value);
}

export function scaleOf(text: string): number {
  return parts(text).scale;
}
