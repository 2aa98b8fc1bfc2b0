/**
 * A row as bytes: the engine's own text or binary form of every column, never decoded unless somebody looks.
 *
 * Layout: int16 number of columns; per column one kind byte, and for `t` and `b` an int32 length and that many bytes.
 * This is PostgreSQL's TupleData, so that its rows are used where they lie in the received chunk;
 * connectors for other engines write the same layout.
 */

export const KIND_NULL = 0x6e; // n
export const KIND_UNCHANGED = 0x75; // u
export const KIND_TEXT = 0x74; // t
export const KIND_BINARY = 0x62; // b

/** Offset just behind the tuple that starts at `offset`. */
export function tupleEnd(bytes: Buffer, offset: number): number {
  const columns = bytes.readInt16BE(offset);
  let at = offset + 2;
  for (let i = 0; i < columns; i++) {
    const kind = bytes[at]!;
    at += kind === KIND_NULL || kind === KIND_UNCHANGED ? 1 : 5 + bytes.readInt32BE(at + 1);
  }
  return at;
}

/**
 * A row on its way to the target: int32 length per column, then the bytes. -1 is NULL, -2 is UNCHANGED.
 * Without the leading column count, which the class knows.
 */
export const LENGTH_NULL = -1;
export const LENGTH_UNCHANGED = -2;

export interface ColumnView {
  /** null for NULL, undefined for UNCHANGED. */
  readonly value: Buffer | null | undefined;
}

/** Reads a tuple's columns; for the slow paths and tests. */
export function readTuple(bytes: Buffer, offset: number): (Buffer | null | undefined)[] {
  const columns = bytes.readInt16BE(offset);
  const out: (Buffer | null | undefined)[] = [];
  let at = offset + 2;
  for (let i = 0; i < columns; i++) {
    const kind = bytes[at]!;
    at += 1;
    if (kind === KIND_NULL) out.push(null);
    else if (kind === KIND_UNCHANGED) out.push(undefined);
    else {
      const length = bytes.readInt32BE(at);
      out.push(bytes.subarray(at + 4, at + 4 + length));
      at += 4 + length;
    }
  }
  return out;
}
