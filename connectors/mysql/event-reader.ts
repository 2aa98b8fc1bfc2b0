/** A cursor over the bytes of one event. */
import { malformed } from "./faults.ts";

const NOTHING = Buffer.alloc(0);
const TWO_32 = 0x1_0000_0000;

/** Reads little-endian numbers from [at, end) of a buffer and never a byte beyond: what is missing throws DR5005. */
export class EventReader {
  buffer: Buffer = NOTHING;
  at = 0;
  end = 0;

  /** Begins anew with the bytes [from, to) of `buffer`. */
  open(buffer: Buffer, from: number, to: number): void {
    if (from < 0 || from > to || to > buffer.length) throw malformed("an event lies outside of its packet");
    this.buffer = buffer;
    this.at = from;
    this.end = to;
  }

  /** Passes `length` bytes and returns the offset of the first. */
  take(length: number): number {
    const from = this.at;
    const next = from + length;
    if (next > this.end) throw malformed("an event ends in the middle of a value");
    this.at = next;
    return from;
  }

  get left(): number {
    return this.end - this.at;
  }

  u8(): number {
    return this.buffer[this.take(1)]!;
  }

  u16(): number {
    const at = this.take(2);
    return this.buffer[at]! | (this.buffer[at + 1]! << 8);
  }

  u24(): number {
    const at = this.take(3);
    return this.buffer[at]! | (this.buffer[at + 1]! << 8) | (this.buffer[at + 2]! << 16);
  }

  u32(): number {
    const at = this.take(4);
    return (this.buffer[at]! | (this.buffer[at + 1]! << 8) | (this.buffer[at + 2]! << 16) | (this.buffer[at + 3]! << 24)) >>> 0;
  }

  u48(): number {
    return this.u32() + this.u16() * TWO_32;
  }

  /** Microseconds since 1970 fit into 53 bits until the year 2255. */
  u56(): number {
    return this.u32() + this.u24() * TWO_32;
  }

  u64(): bigint {
    return this.buffer.readBigUInt64LE(this.take(8));
  }

  /** Big-endian, of `length` ≤ 6 bytes. */
  bigEndian(length: number): number {
    const at = this.take(length);
    let value = 0;
    for (let i = 0; i < length; i++) value = value * 256 + this.buffer[at + i]!;
    return value;
  }

  /** Little-endian, of `length` ≤ 4 bytes: the lengths that stand before values. */
  lengthOf(length: number): number {
    switch (length) {
      case 1: return this.u8();
      case 2: return this.u16();
      case 3: return this.u24();
      case 4: return this.u32();
      default: throw malformed(`a length of ${length} bytes`);
    }
  }

  /** MySQL's length-encoded integer. */
  packed(): number {
    const first = this.u8();
    if (first < 251) return first;
    if (first === 252) return this.u16();
    if (first === 253) return this.u24();
    if (first !== 254) throw malformed("a length-encoded number is none");
    const value = this.u64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw malformed("a length-encoded number is too large");
    return Number(value);
  }

  utf8(length: number): string {
    const at = this.take(length);
    return this.buffer.toString("utf8", at, at + length);
  }

  /** A copy: the packet's bytes may be overwritten later. */
  copy(length: number): Buffer {
    const at = this.take(length);
    return Buffer.from(this.buffer.subarray(at, at + length));
  }
}
