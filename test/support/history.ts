/** Change streams made by hand: blocks as a source would bring them, cut anywhere, and what they say in plain words. */
import { ENTRY, ENTRY_WORDS, type ChangeBlock, type Position, type SchemaChange, type StreamTable } from "../../src/core/index.ts";
import { formatLsn } from "../../connectors/postgres/lsn.ts";

export const TABLES: readonly StreamTable[] = [
  { table: { schema: "public", name: "invoices" }, columns: ["id", "note"], fullBeforeImage: false },
  { table: { schema: "public", name: "ünï \"odd\"" }, columns: ["id", "note"], fullBeforeImage: true },
];

export const at = (number: number): Position => formatLsn(Math.floor(number / 2 ** 32), number % 2 ** 32);

/** One entry of a stream, before it lies in a buffer. */
export interface Entry {
  readonly kind: number;
  readonly table?: number;
  readonly next?: readonly (string | null | undefined)[];
  readonly previous?: readonly (string | null | undefined)[];
  readonly flags?: number;
  readonly position?: Position;
  readonly committedAt?: number;
  readonly number?: number;
  readonly mark?: string;
  readonly change?: SchemaChange;
}

/** A transaction whose end is at `end`; it begins 4 before. */
export function transaction(end: number, ...changes: readonly Entry[]): Entry[] {
  return [
    { kind: ENTRY.begin, position: at(end - 4), committedAt: 1_700_000_000_000 + end, number: end >>> 0 },
    ...changes,
    { kind: ENTRY.commit, position: at(end), committedAt: 1_700_000_000_000 + end },
  ];
}

export const insert = (id: number, note: string | null, table = 0): Entry => ({ kind: ENTRY.insert, table, next: [String(id), note] });
export const update = (id: number, note: string | undefined, table = 1): Entry => ({ kind: ENTRY.update, table, next: [String(id), note], previous: [String(id - 1), null] });
export const remove = (id: number, table = 0): Entry => ({ kind: ENTRY.delete, table, previous: [String(id), null] });
export const idle = (position: number): Entry => ({ kind: ENTRY.idle, position: at(position) });

/** Entries over one buffer, with other bytes between the row images, as in a received chunk. */
export class HandMadeBlock implements ChangeBlock {
  readonly buffer: Buffer;
  readonly words: Int32Array;
  readonly count: number;
  private readonly entries: readonly Entry[];

  constructor(entries: readonly Entry[]) {
    this.entries = entries;
    this.count = entries.length;
    this.words = new Int32Array(entries.length * ENTRY_WORDS);
    const parts: Buffer[] = [Buffer.from("frame")];
    let length = 5;
    const lay = (values: Entry["next"]): number => {
      if (values === undefined) return -1;
      const tuple = tupleOf(values);
      parts.push(tuple, Buffer.from("frame"));
      length += tuple.length + 5;
      return length - tuple.length - 5;
    };
    entries.forEach((entry, i) => this.words.set([entry.kind, entry.table ?? -1, entry.flags ?? lay(entry.next), lay(entry.previous)], i * ENTRY_WORDS));
    this.buffer = Buffer.concat(parts);
  }

  position(entry: number): Position {
    return this.entries[entry]!.position!;
  }

  committedAt(entry: number): number {
    return this.entries[entry]!.committedAt!;
  }

  transactionNumber(entry: number): number {
    return this.entries[entry]!.number!;
  }

  mark(entry: number): string {
    return this.entries[entry]!.mark!;
  }

  schemaChange(entry: number): SchemaChange {
    return this.entries[entry]!.change!;
  }
}

function tupleOf(values: readonly (string | null | undefined)[]): Buffer {
  const head = Buffer.alloc(2);
  head.writeInt16BE(values.length);
  return Buffer.concat([head, ...values.map((value) => {
    if (value === null) return Buffer.from("n");
    if (value === undefined) return Buffer.from("u");
    const length = Buffer.alloc(4);
    length.writeInt32BE(Buffer.byteLength(value));
    return Buffer.concat([Buffer.from("t"), length, Buffer.from(value)]);
  })]);
}

/** What a block says, entry by entry, whatever its layout; equal lines mean equal streams. */
export function tell(block: ChangeBlock, tables: readonly StreamTable[]): string[] {
  return Array.from({ length: block.count }, (_, entry) => {
    const [kind, table, next, previous] = block.words.subarray(entry * ENTRY_WORDS, (entry + 1) * ENTRY_WORDS) as unknown as [number, number, number, number];
    const name = table < 0 ? "" : JSON.stringify(tables[table]);
    if (kind >= ENTRY.insert && kind <= ENTRY.delete) return `${kind} ${name} ${imageOf(block.buffer, next)} ${imageOf(block.buffer, previous)}`;
    switch (kind) {
      case ENTRY.begin: return `begin ${block.position(entry)} ${block.committedAt(entry)} ${block.transactionNumber(entry)}`;
      case ENTRY.commit: return `commit ${block.position(entry)} ${block.committedAt(entry)}`;
      case ENTRY.idle: return `idle ${block.position(entry)}`;
      case ENTRY.mark: return `mark ${block.position(entry)} ${block.mark(entry)}`;
      case ENTRY.truncate: return `truncate ${name} ${next}`;
      default: return `schema ${JSON.stringify({ ...block.schemaChange(entry), announced: true })}`;
    }
  });
}

function imageOf(buffer: Buffer, offset: number): string {
  if (offset < 0) return "-";
  let position = offset + 2;
  return Array.from({ length: buffer.readInt16BE(offset) }, () => {
    const kind = String.fromCharCode(buffer[position]!);
    if (kind !== "t") {
      position += 1;
      return kind;
    }
    const length = buffer.readInt32BE(position + 1);
    position += 5 + length;
    return JSON.stringify(buffer.toString("utf8", position - length, position));
  }).join(",");
}

/** The same entries in blocks of `sizes`, taken in turn. */
export function inBlocks(entries: readonly Entry[], sizes: readonly number[]): HandMadeBlock[] {
  const blocks: HandMadeBlock[] = [];
  for (let from = 0, i = 0; from < entries.length; i++) {
    const size = sizes[i % sizes.length]!;
    blocks.push(new HandMadeBlock(entries.slice(from, from + size)));
    from += size;
  }
  return blocks;
}
