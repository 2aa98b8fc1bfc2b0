/** Dates and times as MySQL and MariaDB print them in a session whose time zone is +00:00; zero and partial dates as they are. */
import { malformed } from "./faults.ts";
import { writePadded } from "./numbers.ts";
import type { EventReader } from "./event-reader.ts";
import type { TupleWriter } from "./tuple-writer.ts";

const DASH = 0x2d, COLON = 0x3a, SPACE = 0x20, POINT = 0x2e;
const LONGEST = 32;
const DAY_SECONDS = 86_400;
const TWO_17 = 0x2_0000;
const TWO_32 = 0x1_0000_0000;
const SIGN_BIT_OF_DATETIME = 0x80_0000_0000;

/** Bytes of a fraction with `digits` digits. */
export const fractionBytes = (digits: number): number => (digits + 1) >> 1;

function writeYmd(out: TupleWriter, year: number, month: number, day: number): void {
  writePadded(out, year, 4);
  out.byte(DASH);
  writePadded(out, month, 2);
  out.byte(DASH);
  writePadded(out, day, 2);
}

function writeHms(out: TupleWriter, hour: number, minute: number, second: number): void {
  writePadded(out, hour, hour > 99 ? 3 : 2);
  out.byte(COLON);
  writePadded(out, minute, 2);
  out.byte(COLON);
  writePadded(out, second, 2);
}

/** `value` stands in whole bytes, so an odd number of digits has a zero behind it. */
function writeStoredFraction(out: TupleWriter, value: number, digits: number): void {
  writeFraction(out, (digits & 1) === 1 ? Math.floor(value / 10) : value, digits);
}

function writeFraction(out: TupleWriter, value: number, digits: number): void {
  if (digits === 0) return;
  out.byte(POINT);
  writePadded(out, value, digits);
}

/** DATE: three bytes, `2024-02-30` and `0000-00-00` as they are. */
export function writeDate(input: EventReader, out: TupleWriter): void {
  const value = input.u24();
  out.reserve(LONGEST);
  writeYmd(out, value >> 9, (value >> 5) & 15, value & 31);
}

/** YEAR: one byte, years since 1900; 0 is the year 0000. */
export function writeYear(input: EventReader, out: TupleWriter): void {
  const value = input.u8();
  writePadded(out, value === 0 ? 0 : 1900 + value, 4);
}

/** DATETIME(digits). */
export function writeDatetime2(input: EventReader, out: TupleWriter, digits: number): void {
  const value = input.bigEndian(5) - SIGN_BIT_OF_DATETIME;
  if (value < 0) throw malformed("a DATETIME is negative");
  writePackedDatetime(out, value);
  writeStoredFraction(out, input.bigEndian(fractionBytes(digits)), digits);
}

/** Year and month, day, hour, minute and second as MySQL packs them, without the fraction. */
export function writePackedDatetime(out: TupleWriter, packed: number): void {
  out.reserve(LONGEST);
  writePackedDate(out, packed);
  out.byte(SPACE);
  const time = packed % TWO_17;
  writeHms(out, time >> 12, (time >> 6) & 63, time & 63);
}

/** The date of such a packed value. */
export function writePackedDate(out: TupleWriter, packed: number): void {
  const date = Math.floor(packed / TWO_17);
  const month = date >> 5;
  out.reserve(LONGEST);
  writeYmd(out, Math.floor(month / 13), month % 13, date & 31);
}

/** TIME(digits): -838:59:59 to 838:59:59. */
export function writeTime2(input: EventReader, out: TupleWriter, digits: number): void {
  const bytes = fractionBytes(digits);
  const unit = 256 ** bytes;
  const value = input.bigEndian(3 + bytes) - 0x80_0000 * unit;
  writePackedTime(out, value, unit);
  writeStoredFraction(out, Math.abs(value) % unit, digits);
}

/** A packed time whose seconds stand above `unit`; negative values have a minus before them. */
export function writePackedTime(out: TupleWriter, value: number, unit: number): void {
  out.reserve(LONGEST);
  if (value < 0) out.byte(DASH);
  const time = Math.floor(Math.abs(value) / unit);
  writeHms(out, (time >> 12) & 0x3ff, (time >> 6) & 63, time & 63);
}

/** TIMESTAMP(digits): unsigned seconds, so that MariaDB's reach to 2106. */
export function writeTimestamp2(input: EventReader, out: TupleWriter, digits: number): void {
  const seconds = input.bigEndian(4);
  writeTimestamp(out, seconds, input.bigEndian(fractionBytes(digits)), digits);
}

function writeTimestamp(out: TupleWriter, seconds: number, fraction: number, digits: number): void {
  out.reserve(LONGEST);
  if (seconds === 0 && fraction === 0) writeYmd(out, 0, 0, 0);
  else writeDayOf(out, Math.floor(seconds / DAY_SECONDS));
  out.byte(SPACE);
  const time = seconds % DAY_SECONDS;
  writeHms(out, Math.floor(time / 3600), Math.floor(time / 60) % 60, time % 60);
  writeStoredFraction(out, fraction, digits);
}

/** The Gregorian date of a day counted from 1970-01-01; years begin in March, so that leap days come last. */
function writeDayOf(out: TupleWriter, day: number): void {
  const fromMarch0 = day + 719_468;
  const era = Math.floor(fromMarch0 / 146_097);
  const inEra = fromMarch0 - era * 146_097;
  const yearOfEra = Math.floor((inEra - Math.floor(inEra / 1460) + Math.floor(inEra / 36_524) - Math.floor(inEra / 146_096)) / 365);
  const inYear = inEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const monthFromMarch = Math.floor((5 * inYear + 2) / 153);
  const month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9;
  writeYmd(out, yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, inYear - Math.floor((153 * monthFromMarch + 2) / 5) + 1);
}

/*
 * MariaDB's older forms (mysql56_temporal_format = OFF). The log does not tell how many digits their fraction has: the catalogue does.
 */

/** Bytes of the fraction in MariaDB's older TIMESTAMP(digits). */
const OLD_FRACTION_BYTES = [0, 1, 1, 2, 2, 3, 3];
const OLD_TIME_BYTES = [3, 4, 4, 5, 5, 5, 6];
const OLD_DATETIME_BYTES = [8, 6, 6, 7, 7, 7, 8];
/** One second more than the longest TIME, added so that negative times sort. */
const OLD_TIME_ZERO = 838 * 3600 + 59 * 60 + 59 + 1;

export function writeOldTimestamp(input: EventReader, out: TupleWriter, digits: number): void {
  const seconds = digits === 0 ? input.u32() : input.bigEndian(4);
  const fraction = input.bigEndian(OLD_FRACTION_BYTES[digits]!);
  writeTimestamp(out, seconds, (digits & 1) === 1 ? fraction * 10 : fraction, digits);
}

/** Without a fraction the digits HHMMSS as a signed number. */
export function writeOldTime(input: EventReader, out: TupleWriter, digits: number): void {
  out.reserve(LONGEST);
  if (digits === 0) {
    const value = (input.u24() << 8) >> 8;
    const time = Math.abs(value);
    if (value < 0) out.byte(DASH);
    writeHms(out, Math.floor(time / 10_000), Math.floor(time / 100) % 100, time % 100);
    return;
  }
  const unit = 10 ** digits;
  const value = input.bigEndian(OLD_TIME_BYTES[digits]!) - OLD_TIME_ZERO * unit;
  const seconds = Math.floor(Math.abs(value) / unit);
  if (value < 0) out.byte(DASH);
  writeHms(out, Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60);
  writeFraction(out, Math.abs(value) % unit, digits);
}

/** Without a fraction the digits YYYYMMDDHHMMSS as a number. */
export function writeOldDatetime(input: EventReader, out: TupleWriter, digits: number): void {
  out.reserve(LONGEST);
  if (digits === 0) {
    const low = input.u32();
    const value = low + input.u32() * TWO_32;
    const time = value % 1_000_000;
    const date = Math.floor(value / 1_000_000);
    writeYmd(out, Math.floor(date / 10_000), Math.floor(date / 100) % 100, date % 100);
    out.byte(SPACE);
    writeHms(out, Math.floor(time / 10_000), Math.floor(time / 100) % 100, time % 100);
    return;
  }
  writeOldPackedDatetime(out, bigEndian64(input, OLD_DATETIME_BYTES[digits]!), digits);
}

function bigEndian64(input: EventReader, length: number): bigint {
  let value = 0n;
  for (let i = 0; i < length; i++) value = (value << 8n) | BigInt(input.u8());
  return value;
}

function writeOldPackedDatetime(out: TupleWriter, packed: bigint, digits: number): void {
  const unit = 10n ** BigInt(digits);
  const seconds = Number(packed / unit);
  const days = Math.floor(seconds / DAY_SECONDS);
  const time = seconds % DAY_SECONDS;
  const months = days >> 5;
  writeYmd(out, Math.floor(months / 13), months % 13, days & 31);
  out.byte(SPACE);
  writeHms(out, Math.floor(time / 3600), Math.floor(time / 60) % 60, time % 60);
  writeFraction(out, Number(packed % unit), digits);
}
