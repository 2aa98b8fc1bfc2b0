/** Rows of a batch in the forms that PostgreSQL takes: COPY payloads and statement parameters. */
import { LENGTH_NULL, LENGTH_UNCHANGED, rowEnd, rowValues, type ValueFormat } from "../../src/core/index.ts";

const COPY_SIGNATURE = Buffer.from("PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", "latin1");
const COPY_TRAILER = Buffer.from([0xff, 0xff]);
/** A CopyData frame may not be longer than PostgreSQL's limit on a message. */
const MAX_PIECE = 256 << 20;

/** The payload of `COPY … FROM STDIN` for rows that lie back to back in `bytes`. */
export function copyPayload(bytes: Buffer, format: ValueFormat): Buffer[] {
  if (format === "text") return inPieces(textRows(bytes));
  return [COPY_SIGNATURE, ...inPieces(bytes), COPY_TRAILER];
}

function inPieces(bytes: Buffer): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += MAX_PIECE) pieces.push(bytes.subarray(at, at + MAX_PIECE));
  return pieces;
}

/** Gathers the rows at `offsets` back to back. */
export function gatherRows(bytes: Buffer, offsets: readonly number[]): Buffer {
  const ends = offsets.map((at) => rowEnd(bytes, at));
  const gathered = Buffer.allocUnsafe(offsets.reduce((sum, at, i) => sum + ends[i]! - at, 0));
  let to = 0;
  offsets.forEach((at, i) => {
    to += bytes.copy(gathered, to, at, ends[i]);
  });
  return gathered;
}

/** Gathers chosen columns of the rows at `offsets` back to back. */
export function gatherColumns(bytes: Buffer, offsets: readonly number[], columns: readonly number[]): Buffer {
  const parts: Buffer[] = [];
  const count = Buffer.alloc(2);
  count.writeInt16BE(columns.length);
  for (const at of offsets) {
    const starts = columnStarts(bytes, at);
    parts.push(count);
    for (const column of columns) parts.push(bytes.subarray(starts[column]!, starts[column]! + 4 + Math.max(0, bytes.readInt32BE(starts[column]!))));
  }
  return Buffer.concat(parts);
}

function columnStarts(bytes: Buffer, at: number): number[] {
  const starts: number[] = [];
  let next = at + 2;
  for (let left = bytes.readInt16BE(at); left > 0; left--) {
    starts.push(next);
    next += 4 + Math.max(0, bytes.readInt32BE(next));
  }
  return starts;
}

/** A row's values as parameters: text as string, binary as bytes, UNCHANGED as undefined. */
export function parameters(bytes: Buffer, at: number, format: ValueFormat): (string | Buffer | null | undefined)[] {
  return rowValues(bytes, at).map((value) => (value === null || value === undefined || format === "binary" ? value : value.toString("utf8")));
}

const BACKSLASH = 0x5c, TAB = 0x09, NEWLINE = 0x0a, RETURN = 0x0d, UPPER_N = 0x4e, LOWER_T = 0x74, LOWER_N = 0x6e, LOWER_R = 0x72;

/** COPY's text format: every byte of a value may double, every column adds at most a delimiter and `\N`. */
function textRows(bytes: Buffer): Buffer {
  let out = Buffer.allocUnsafe(bytes.length + (bytes.length >> 3) + 1024);
  let to = 0;
  let at = 0;
  while (at < bytes.length) {
    const columns = bytes.readInt16BE(at);
    at += 2;
    for (let i = 0; i < columns; i++) {
      const length = bytes.readInt32BE(at);
      at += 4;
      const needed = to + 2 * Math.max(length, 1) + 2;
      if (needed > out.length) {
        const grown = Buffer.allocUnsafe(Math.max(needed, out.length * 2));
        out.copy(grown, 0, 0, to);
        out = grown;
      }
      if (i > 0) out[to++] = TAB;
      if (length === LENGTH_UNCHANGED) throw new Error("an UNCHANGED column cannot be copied");
      if (length === LENGTH_NULL) {
        out[to++] = BACKSLASH;
        out[to++] = UPPER_N;
      } else {
        to = escapeInto(bytes, at, at + length, out, to);
        at += length;
      }
    }
    if (to === out.length) out = Buffer.concat([out, Buffer.allocUnsafe(1024)]);
    out[to++] = NEWLINE;
  }
  return out.subarray(0, to);
}

function escapeInto(bytes: Buffer, from: number, end: number, out: Buffer, to: number): number {
  for (; from < end; from++) {
    const byte = bytes[from]!;
    if (byte > RETURN && byte !== BACKSLASH) {
      out[to++] = byte;
      continue;
    }
    const letter = byte === TAB ? LOWER_T : byte === NEWLINE ? LOWER_N : byte === RETURN ? LOWER_R : byte === BACKSLASH ? BACKSLASH : -1;
    if (letter < 0) out[to++] = byte;
    else {
      out[to++] = BACKSLASH;
      out[to++] = letter;
    }
  }
  return to;
}
