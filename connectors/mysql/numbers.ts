/** Numbers as MySQL and MariaDB print them. */
import { malformed } from "./faults.ts";
import type { EventReader } from "./event-reader.ts";
import type { TupleWriter } from "./tuple-writer.ts";

const ZERO = 0x30, MINUS = 0x2d, POINT = 0x2e, LETTER_E = 0x65;
const BILLION = 1_000_000_000;
const TWO_16 = 0x1_0000;
const TWO_32 = 0x1_0000_0000;
const LONGEST_INTEGER = 20;

function digitsOf(value: number): number {
  let digits = 1;
  for (let limit = 10; value >= limit; limit *= 10) digits += 1;
  return digits;
}

/** The last `digits` digits of `value` < 2^53, with leading zeros. */
export function writePadded(out: TupleWriter, value: number, digits: number): void {
  out.reserve(digits);
  const { bytes } = out;
  let at = out.at + digits;
  const start = out.at;
  out.at = at;
  while (value > 0x7fff_ffff && at > start) {
    const tenth = Math.floor(value / 10);
    bytes[--at] = ZERO + (value - tenth * 10);
    value = tenth;
  }
  let small = value | 0;
  while (at > start) {
    const tenth = (small / 10) | 0;
    bytes[--at] = ZERO + (small - tenth * 10);
    small = tenth;
  }
}

/** `value` is an integer, 0 ≤ value < 2^53. */
export function writeUnsigned(out: TupleWriter, value: number): void {
  writePadded(out, value, digitsOf(value));
}

/** `value` is an integer, |value| < 2^53. */
export function writeSigned(out: TupleWriter, value: number): void {
  if (value < 0) out.byte(MINUS);
  writeUnsigned(out, Math.abs(value));
}

/** An unsigned 64-bit integer from its halves. */
export function writeUnsigned64(out: TupleWriter, high: number, low: number): void {
  if (high < 0x20_0000) {
    writeUnsigned(out, high * TWO_32 + low);
    return;
  }
  // Long division by 10^9 in steps that stay below 2^53.
  const quotientHigh = Math.floor(high / BILLION);
  const middle = (high % BILLION) * TWO_16 + (low >>> 16);
  const last = (middle % BILLION) * TWO_16 + (low & 0xffff);
  writeUnsigned(out, quotientHigh * TWO_32 + Math.floor(middle / BILLION) * TWO_16 + Math.floor(last / BILLION));
  writePadded(out, last % BILLION, 9);
}

/** A signed 64-bit integer from its unsigned halves. */
export function writeSigned64(out: TupleWriter, high: number, low: number): void {
  if (high < 0x8000_0000) {
    writeUnsigned64(out, high, low);
    return;
  }
  out.reserve(LONGEST_INTEGER);
  out.byte(MINUS);
  writeUnsigned64(out, (~high + (low === 0 ? 1 : 0)) >>> 0, -low >>> 0);
}

const GROUP_DIGITS = 9;
const BYTES_OF_DIGITS = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
const POWERS = Array.from({ length: GROUP_DIGITS + 1 }, (_, digits) => 10 ** digits);

/** Bytes of a DECIMAL(precision, scale) in the log. */
export function decimalBytes(precision: number, scale: number): number {
  const integer = precision - scale;
  return groupBytes(integer) + groupBytes(scale);
}

function groupBytes(digits: number): number {
  return Math.floor(digits / GROUP_DIGITS) * 4 + BYTES_OF_DIGITS[digits % GROUP_DIGITS]!;
}

/** A DECIMAL: groups of nine digits, big-endian, the first bit inverted; all bits inverted when negative. */
export function writeDecimal(input: EventReader, out: TupleWriter, precision: number, scale: number): void {
  const from = input.at;
  const end = input.take(decimalBytes(precision, scale)) + decimalBytes(precision, scale);
  out.reserve(precision + 3);
  const negative = (input.buffer[from]! & 0x80) === 0;
  if (negative) out.byte(MINUS);
  input.at = from;
  const inverted = negative ? 0xff : 0;
  writeIntegerPart(input, out, precision - scale, from, inverted);
  if (scale > 0) writeFraction(input, out, scale, from, inverted);
  input.at = end;
}

function writeIntegerPart(input: EventReader, out: TupleWriter, digits: number, from: number, inverted: number): void {
  const start = out.at;
  const leading = digits % GROUP_DIGITS;
  if (leading > 0) writeUnlessLeadingZero(out, start, readGroup(input, leading, from, inverted), leading);
  for (let left = digits - leading; left > 0; left -= GROUP_DIGITS) writeUnlessLeadingZero(out, start, readGroup(input, GROUP_DIGITS, from, inverted), GROUP_DIGITS);
  if (out.at === start) out.byte(ZERO);
}

function writeUnlessLeadingZero(out: TupleWriter, start: number, group: number, digits: number): void {
  if (out.at > start) writePadded(out, group, digits);
  else if (group > 0) writeUnsigned(out, group);
}

function writeFraction(input: EventReader, out: TupleWriter, scale: number, from: number, inverted: number): void {
  out.byte(POINT);
  for (let left = scale; left > 0; left -= GROUP_DIGITS) {
    const digits = Math.min(left, GROUP_DIGITS);
    writePadded(out, readGroup(input, digits, from, inverted), digits);
  }
}

function readGroup(input: EventReader, digits: number, from: number, inverted: number): number {
  let value = 0;
  for (let left = BYTES_OF_DIGITS[digits]!; left > 0; left--) {
    const signBit = input.at === from ? 0x80 : 0;
    value = value * 256 + (input.buffer[input.at++]! ^ inverted ^ signBit);
  }
  if (value >= POWERS[digits]!) throw malformed("a DECIMAL holds a group of too many digits");
  return value;
}

/** In the text protocol, integers of 10^15 and more and what has 15 and more zeros behind the point have an exponent. (CAST in MySQL has it earlier, to stay within 22 characters.) */
const LONGEST_FIXED = 15;

/** The shortest text that reads back as the same double, in the text protocol's form: `0.1`, `1e16`, `-1.5e-300`. */
export function writeDouble(out: TupleWriter, value: number): void {
  if (Number.isInteger(value) && Math.abs(value) < 1e15 && !Object.is(value, -0)) writeSigned(out, value);
  else writeShortest(out, value, value.toExponential());
}

/** MySQL itself prints six digits of a FLOAT and so loses some; as many more as it takes to read back as the same 32-bit float. */
export function writeFloat(out: TupleWriter, value: number): void {
  if (Number.isInteger(value) && Math.abs(value) < 1_000_000 && !Object.is(value, -0)) {
    writeSigned(out, value);
    return;
  }
  let digits = 5;
  let text = value.toExponential(digits);
  while (Math.fround(Number(text)) !== value && digits < 8) text = value.toExponential(++digits);
  writeShortest(out, value, text);
}

/** `decimals` digits behind the point, as a FLOAT(M,D) or DOUBLE(M,D) is printed: zeros behind the shortest text, which is rounded when it is longer. */
export function writeFixed(out: TupleWriter, value: number, decimals: number): void {
  const text = fixedText(shortest(value.toExponential()));
  const behindPoint = text.includes(".") ? text.length - 1 - text.indexOf(".") : 0;
  if (behindPoint > decimals) return out.ascii(value.toFixed(decimals));
  if (value < 0) out.byte(MINUS);
  out.ascii(text);
  if (behindPoint === 0 && decimals > 0) out.byte(POINT);
  out.ascii("0".repeat(decimals - behindPoint));
}

/** The number 0.DIGITS × 10^point, its sign apart; no digits for zero. */
interface Shortest {
  readonly digits: string;
  readonly point: number;
}

function shortest(exponential: string): Shortest {
  const cut = exponential.indexOf("e");
  const digits = exponential.slice(0, cut).replace("-", "").replace(".", "").replace(/0+$/, "");
  return { digits, point: Number(exponential.slice(cut + 1)) + 1 };
}

function writeShortest(out: TupleWriter, value: number, exponential: string): void {
  if (!Number.isFinite(value)) throw malformed("a floating-point number is not finite");
  const number = shortest(exponential);
  if (value < 0 || Object.is(value, -0)) out.byte(MINUS);
  if (hasExponent(number)) writeWithExponent(out, number);
  else out.ascii(fixedText(number));
}

function hasExponent({ digits, point }: Shortest): boolean {
  return point < 1 - LONGEST_FIXED || (point > LONGEST_FIXED && digits.length <= point);
}

function fixedText({ digits, point }: Shortest): string {
  if (digits === "") return "0";
  if (point <= 0) return `0.${"0".repeat(-point)}${digits}`;
  return digits.length <= point ? digits.padEnd(point, "0") : `${digits.slice(0, point)}.${digits.slice(point)}`;
}

function writeWithExponent(out: TupleWriter, { digits, point }: Shortest): void {
  out.ascii(digits.length === 1 ? digits : `${digits[0]}.${digits.slice(1)}`);
  out.byte(LETTER_E);
  writeSigned(out, point - 1);
}
