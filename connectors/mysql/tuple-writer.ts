/** Writes rows in the layout of src/core/tuple.ts, one behind the other, into a buffer that grows. */
import { KIND_NULL, KIND_TEXT } from "../../src/core/index.ts";

const START_BYTES = 1 << 16;
/** Below this a loop is faster than a call into the runtime. */
const SMALL_COPY = 40;
const HEADER = 5;

/** Where decoders of values append text. */
export class TupleWriter {
  bytes: Buffer = Buffer.allocUnsafe(START_BYTES);
  at = 0;

  /** Hands the written bytes over and begins with a buffer of its own. */
  release(): Buffer {
    const written = this.bytes.subarray(0, this.at);
    this.bytes = Buffer.allocUnsafe(START_BYTES);
    this.at = 0;
    return written;
  }

  /** Forgets what was written and keeps the room. */
  clear(): void {
    this.at = 0;
  }

  /** Makes room for `more` bytes. `bytes` may be another buffer afterwards. */
  reserve(more: number): void {
    if (this.at + more <= this.bytes.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.bytes.length * 2, this.at + more));
    this.bytes.copy(grown, 0, 0, this.at);
    this.bytes = grown;
  }

  /** Begins a row and returns its offset. */
  row(columns: number): number {
    this.reserve(2);
    const start = this.at;
    this.at = this.bytes.writeInt16BE(columns, start);
    return start;
  }

  null(): void {
    this.reserve(1);
    this.bytes[this.at++] = KIND_NULL;
  }

  /** Begins a text value; what is appended until `close` is its text. */
  open(): number {
    this.reserve(HEADER);
    const start = this.at;
    this.bytes[start] = KIND_TEXT;
    this.at = start + HEADER;
    return start;
  }

  close(start: number): void {
    const length = this.at - start - HEADER;
    const { bytes } = this;
    bytes[start + 1] = length >>> 24;
    bytes[start + 2] = length >>> 16;
    bytes[start + 3] = length >>> 8;
    bytes[start + 4] = length;
  }

  byte(value: number): void {
    this.reserve(1);
    this.bytes[this.at++] = value;
  }

  ascii(text: string): void {
    this.reserve(text.length);
    this.at += this.bytes.write(text, this.at, "latin1");
  }

  utf8(text: string): void {
    this.reserve(text.length * 3);
    this.at += this.bytes.write(text, this.at, "utf8");
  }

  append(source: Buffer, from: number, to: number): void {
    this.reserve(to - from);
    if (to - from > SMALL_COPY) {
      source.copy(this.bytes, this.at, from, to);
      this.at += to - from;
      return;
    }
    const { bytes } = this;
    let { at } = this;
    while (from < to) bytes[at++] = source[from++]!;
    this.at = at;
  }

  hex(source: Buffer, from: number, to: number): void {
    this.reserve(2 * (to - from));
    if (to - from > SMALL_COPY) {
      this.at += this.bytes.write(source.toString("hex", from, to), this.at, "latin1");
      return;
    }
    const { bytes } = this;
    let { at } = this;
    while (from < to) {
      const byte = source[from++]!;
      bytes[at++] = HEX[byte >> 4]!;
      bytes[at++] = HEX[byte & 15]!;
    }
    this.at = at;
  }

  codePoint(point: number): void {
    this.reserve(4);
    const { bytes } = this;
    if (point < 0x80) {
      bytes[this.at++] = point;
    } else if (point < 0x800) {
      bytes[this.at++] = 0xc0 | (point >> 6);
      bytes[this.at++] = 0x80 | (point & 63);
    } else if (point < 0x10000) {
      bytes[this.at++] = 0xe0 | (point >> 12);
      bytes[this.at++] = 0x80 | ((point >> 6) & 63);
      bytes[this.at++] = 0x80 | (point & 63);
    } else {
      bytes[this.at++] = 0xf0 | (point >> 18);
      bytes[this.at++] = 0x80 | ((point >> 12) & 63);
      bytes[this.at++] = 0x80 | ((point >> 6) & 63);
      bytes[this.at++] = 0x80 | (point & 63);
    }
  }
}

const HEX = Buffer.from("0123456789abcdef", "latin1");
