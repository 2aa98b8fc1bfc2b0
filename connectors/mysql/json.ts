/** MySQL's binary JSON as the text that the server prints: keys in stored order, `", "` and `": "` between, numbers exact. */
import { malformed } from "./faults.ts";
import { decimalBytes, writeDecimal, writeDouble, writePadded, writeSigned, writeSigned64, writeUnsigned, writeUnsigned64 } from "./numbers.ts";
import { writePackedDate, writePackedDatetime, writePackedTime } from "./temporal.ts";
import { EventReader } from "./event-reader.ts";
import { TYPE } from "./types.ts";
import type { TupleWriter } from "./tuple-writer.ts";

const KIND = {
  smallObject: 0, largeObject: 1, smallArray: 2, largeArray: 3, literal: 4, int16: 5, uint16: 6, int32: 7, uint32: 8, int64: 9, uint64: 10,
  double: 11, string: 12, opaque: 15,
} as const;

const LITERALS = ["null", "true", "false"];
const QUOTE = 0x22, BACKSLASH = 0x5c, LETTER_U = 0x75, ZERO = 0x30, SPACE = 0x20, POINT = 0x2e;
const SHORT_ESCAPES: Readonly<Record<number, number>> = { 8: 0x62, 9: 0x74, 10: 0x6e, 12: 0x66, 13: 0x72, [QUOTE]: QUOTE, [BACKSLASH]: BACKSLASH };
const HEX = "0123456789abcdef";
const MICROSECOND_BITS = 0x100_0000;
/** MySQL refuses deeper documents. */
const DEEPEST = 100;
const LONGEST_LENGTH = 5;

/** Appends the text of the document in [from, to) of `bytes`. Throws DR5005 when it is none. */
export function writeJson(bytes: Buffer, from: number, to: number, out: TupleWriter): void {
  if (from === to) out.ascii("null");
  else new JsonDocument(bytes, from, to, out).write();
}

class JsonDocument {
  private readonly bytes: Buffer;
  private readonly from: number;
  private readonly to: number;
  private readonly out: TupleWriter;
  private readonly reader = new EventReader();
  /** Every value and every character has bytes of its own: what needs more of them than there are points at itself. */
  private bytesLeft: number;

  constructor(bytes: Buffer, from: number, to: number, out: TupleWriter) {
    this.bytes = bytes;
    this.from = from;
    this.to = to;
    this.out = out;
    this.bytesLeft = to - from;
  }

  write(): void {
    this.value(this.bytes[this.from]!, this.from + 1, 0);
  }

  private value(kind: number, at: number, depth: number): void {
    if (depth > DEEPEST) throw malformed("a JSON document is nested beyond measure");
    this.spend(1);
    switch (kind) {
      case KIND.smallObject: return this.container(at, 2, true, depth);
      case KIND.largeObject: return this.container(at, 4, true, depth);
      case KIND.smallArray: return this.container(at, 2, false, depth);
      case KIND.largeArray: return this.container(at, 4, false, depth);
      case KIND.string: return this.string(at);
      case KIND.opaque: return this.opaque(at);
      default: return this.scalar(kind, at);
    }
  }

  private spend(bytes: number): void {
    this.bytesLeft -= bytes;
    if (this.bytesLeft < 0) throw malformed("a JSON document points at itself");
  }

  private scalar(kind: number, at: number): void {
    const { out } = this;
    const input = this.readerAt(at);
    switch (kind) {
      case KIND.literal: return out.ascii(literal(input.u8()));
      case KIND.int16: return writeSigned(out, (input.u16() << 16) >> 16);
      case KIND.uint16: return writeUnsigned(out, input.u16());
      case KIND.int32: return writeSigned(out, input.u32() | 0);
      case KIND.uint32: return writeUnsigned(out, input.u32());
      case KIND.int64: return this.integer64(input, writeSigned64);
      case KIND.uint64: return this.integer64(input, writeUnsigned64);
      case KIND.double: return this.double(input);
      default: throw malformed(`a JSON value of the unknown kind ${kind}`);
    }
  }

  private integer64(input: EventReader, write: typeof writeSigned64): void {
    const low = input.u32();
    write(this.out, input.u32(), low);
  }

  /** A double whose text would be an integer's has `.0` behind it. */
  private double(input: EventReader): void {
    const { out } = this;
    const start = out.at;
    writeDouble(out, this.bytes.readDoubleLE(input.take(8)));
    for (let i = start; i < out.at; i++) if (out.bytes[i] === POINT || out.bytes[i] === 0x65) return;
    out.byte(POINT);
    out.byte(ZERO);
  }

  /** `width` bytes per number: count, size, then the entries of keys and of values. */
  private container(start: number, width: 2 | 4, isObject: boolean, depth: number): void {
    const header = this.readerAt(start);
    const count = header.lengthOf(width);
    const end = start + header.lengthOf(width);
    const keyWidth = isObject ? width + 2 : 0;
    const values = start + 2 * width + count * keyWidth;
    if (end > this.to || values + count * (1 + width) > end) throw malformed("a JSON container is longer than its document");
    this.out.byte(isObject ? 0x7b : 0x5b);
    for (let i = 0; i < count; i++) {
      if (i > 0) this.out.ascii(", ");
      if (isObject) this.key(start, start + 2 * width + i * keyWidth, width);
      this.entry(start, values + i * (1 + width), width, depth);
    }
    this.out.byte(isObject ? 0x7d : 0x5d);
  }

  private key(start: number, at: number, width: number): void {
    const entry = this.readerAt(at);
    const from = start + entry.lengthOf(width);
    this.quoted(from, entry.u16());
    this.out.ascii(": ");
  }

  private entry(start: number, at: number, width: number, depth: number): void {
    const entry = this.readerAt(at);
    const kind = entry.u8();
    if (isInlined(kind, width)) this.value(kind, at + 1, depth + 1);
    else this.value(kind, start + entry.lengthOf(width), depth + 1);
  }

  private string(at: number): void {
    const input = this.readerAt(at);
    const length = variableLength(input);
    this.quoted(input.at, length);
  }

  private quoted(from: number, length: number): void {
    this.readerAt(from).take(length);
    this.spend(length);
    writeQuoted(this.bytes, from, from + length, this.out);
  }

  private opaque(at: number): void {
    const input = this.readerAt(at);
    const type = input.u8();
    const length = variableLength(input);
    const from = input.take(length);
    this.spend(length);
    input.open(this.bytes, from, from + length);
    writeOpaque(type, input, this.out);
  }

  private readerAt(at: number): EventReader {
    if (at < this.from || at > this.to) throw malformed("a JSON document points beyond its end");
    this.reader.open(this.bytes, at, this.to);
    return this.reader;
  }
}

function literal(value: number): string {
  const text = LITERALS[value];
  if (text === undefined) throw malformed("a JSON literal is unknown");
  return text;
}

function isInlined(kind: number, width: number): boolean {
  if (kind === KIND.literal || kind === KIND.int16 || kind === KIND.uint16) return true;
  return width === 4 && (kind === KIND.int32 || kind === KIND.uint32);
}

/** Seven bits per byte, the lowest first; the high bit says that more follow. */
function variableLength(input: EventReader): number {
  let value = 0;
  for (let i = 0; i < LONGEST_LENGTH; i++) {
    const byte = input.u8();
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return value;
  }
  throw malformed("a JSON value's length is too long");
}

function writeQuoted(bytes: Buffer, from: number, to: number, out: TupleWriter): void {
  out.byte(QUOTE);
  let plain = from;
  for (let at = from; at < to; at++) {
    const byte = bytes[at]!;
    if (byte >= SPACE && byte !== QUOTE && byte !== BACKSLASH) continue;
    out.append(bytes, plain, at);
    writeEscape(byte, out);
    plain = at + 1;
  }
  out.append(bytes, plain, to);
  out.byte(QUOTE);
}

function writeEscape(byte: number, out: TupleWriter): void {
  const short = SHORT_ESCAPES[byte];
  out.byte(BACKSLASH);
  if (short !== undefined) return out.byte(short);
  out.byte(LETTER_U);
  out.ascii(`00${HEX[byte >> 4]}${HEX[byte & 15]}`);
}

/** Values of SQL types within JSON: DECIMAL as a number, dates and times quoted, anything else in base64. */
function writeOpaque(type: number, input: EventReader, out: TupleWriter): void {
  switch (type) {
    case TYPE.newDecimal: return writeOpaqueDecimal(input, out);
    case TYPE.date:
    case TYPE.datetime:
    case TYPE.timestamp:
    case TYPE.time: return writeOpaqueTemporal(type, input, out);
    default: return writeBase64(type, input, out);
  }
}

function writeOpaqueDecimal(input: EventReader, out: TupleWriter): void {
  const precision = input.u8();
  const scale = input.u8();
  if (scale > precision || decimalBytes(precision, scale) !== input.left) throw malformed("a DECIMAL within JSON has another length than its precision");
  writeDecimal(input, out, precision, scale);
}

/** A packed date and time: microseconds in the low 24 bits, negative as a whole for times below zero. */
function writeOpaqueTemporal(type: number, input: EventReader, out: TupleWriter): void {
  const packed = BigInt.asIntN(64, input.u64());
  const negative = packed < 0n;
  const magnitude = negative ? -packed : packed;
  const seconds = Number(magnitude >> 24n);
  out.byte(QUOTE);
  if (type === TYPE.date) writePackedDate(out, seconds);
  else {
    if (type === TYPE.time) writePackedTime(out, negative ? -seconds : seconds, 1);
    else writePackedDatetime(out, seconds);
    out.byte(POINT);
    writePadded(out, Number(magnitude % BigInt(MICROSECOND_BITS)), 6);
  }
  out.byte(QUOTE);
}

const BASE64_LINE = 76;

/** The server breaks base64 into lines, and within JSON a line break is an escape. */
function writeBase64(type: number, input: EventReader, out: TupleWriter): void {
  const from = input.take(input.left);
  const text = input.buffer.toString("base64", from, input.end);
  out.ascii(`"base64:type${type}:`);
  for (let at = 0; at < text.length; at += BASE64_LINE) {
    if (at > 0) out.ascii("\\n");
    out.ascii(text.slice(at, at + BASE64_LINE));
  }
  out.byte(QUOTE);
}
