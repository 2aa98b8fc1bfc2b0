/** MariaDB's types that lie in the log as plain bytes. */
import type { TupleWriter } from "./tuple-writer.ts";

const DASH = 0x2d;
/** Where the parts of a UUID stand, in the order in which they are read. */
const REVERSED_PARTS = [[12, 16], [10, 12], [8, 10], [6, 8], [0, 6]] as const;
const PLAIN_PARTS = [[0, 4], [4, 6], [6, 8], [8, 10], [10, 16]] as const;

/** Sixteen stored bytes of a UUID column: versions 1 to 5 stand with their parts in reverse, all others as they are read. */
export function writeUuid(bytes: Buffer, out: TupleWriter): void {
  const parts = isReversed(bytes) ? REVERSED_PARTS : PLAIN_PARTS;
  parts.forEach(([from, to], i) => {
    if (i > 0) out.byte(DASH);
    out.hex(bytes, from, to);
  });
}

/** Reversed, the variant's high bit is in the seventh byte and the version, which is no larger than 5, in the ninth. */
function isReversed(stored: Buffer): boolean {
  const ninth = stored[8]!;
  return (stored[6]! & 0x80) !== 0 && ninth > 0 && ninth <= 0x80;
}

export function writeInet4(bytes: Buffer, out: TupleWriter): void {
  out.ascii(`${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`);
}

/** The longest run of zero groups, even of one, becomes `::`; addresses that embed IPv4 end in it. */
export function writeInet6(bytes: Buffer, out: TupleWriter): void {
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i));
  const embedded = embeddedPrefix(groups);
  if (embedded === null) {
    out.ascii(compressedGroups(groups));
    return;
  }
  out.ascii(embedded);
  writeInet4(bytes.subarray(12), out);
}

function embeddedPrefix(groups: readonly number[]): string | null {
  if (groups.slice(0, 5).some((group) => group !== 0)) return null;
  if (groups[5] === 0xffff) return "::ffff:";
  return groups[5] === 0 && groups[6] !== 0 ? "::" : null;
}

function compressedGroups(groups: readonly number[]): string {
  const text = (from: number, to: number): string => groups.slice(from, to).map((group) => group.toString(16)).join(":");
  const [start, length] = longestZeros(groups);
  return length === 0 ? text(0, 8) : `${text(0, start)}::${text(start + length, 8)}`;
}

function longestZeros(groups: readonly number[]): [start: number, length: number] {
  let best: [number, number] = [0, 0];
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (groups[start + length] === 0) length += 1;
    if (length > best[1]) best = [start, length];
  }
  return best;
}
