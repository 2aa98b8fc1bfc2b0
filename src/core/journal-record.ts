/**
 * Blocks of a change stream as records on disk: engine-neutral, readable without the source.
 *
 * Version 1, little-endian: 24 bytes of header (`DRJ1`, version, entries, where the words begin, 8 bytes of zero); then what
 * the words point to; then four int32 per entry as in a ChangeBlock, aligned to 4. Row images are tuples (tuple.ts). Begin,
 * commit, idle, mark and schema point to a fact: float64 commit time, uint32 transaction number, then position and text,
 * each a uint32 length and UTF-8. A table is a number of the journal's own; what it stands for is kept beside the records.
 */
import { DualrunError } from "./errors.ts";
import { ENTRY, ENTRY_WORDS, type ChangeBlock, type SchemaChange, type StreamTable } from "./ports.ts";
import { tupleEnd } from "./tuple.ts";
import type { Position, Positions } from "./words.ts";

export const RECORD_VERSION = 1;
const MAGIC = 0x314a_5244; // DRJ1
const HEADER = 24;
const FACT = 12;

/** A record and what is known of it without reading it. */
export interface JournalRecord {
  readonly body: Uint8Array<ArrayBuffer>;
  /** Where the last whole transaction (or idle position) in it ends; null: it is a piece of one that goes on. */
  readonly end: Position | null;
  /** Transactions that end in it. */
  readonly transactions: number;
  /** Commit time of the first transaction of which it holds anything, milliseconds since 1970; 0: it holds none. */
  readonly committedAt: number;
}

/** Turns blocks into records. A block that ends within a transaction becomes two, so that what is not committed can be cut off. */
export class RecordEncoder {
  private readonly positions: Positions;
  private readonly tableOf: (index: number) => number;
  /** Everything at or before it stands in the journal: a source may send it again. */
  private after: Position;
  private passed = false;
  private skipping = false;
  private openCommitAt = 0;

  constructor(positions: Positions, after: Position, tableOf: (index: number) => number) {
    this.positions = positions;
    this.after = after;
    this.tableOf = tableOf;
  }

  encode(block: ChangeBlock): JournalRecord[] {
    const whole = lastEndOf(block) + 1;
    return [this.record(block, 0, whole), this.record(block, whole, block.count)].filter((record) => record !== null);
  }

  private record(block: ChangeBlock, from: number, to: number): JournalRecord | null {
    if (from === to) return null;
    const builder = new RecordBuilder(block.buffer.length, to - from, this.openCommitAt);
    for (let entry = from; entry < to; entry++) this.entry(builder, block, entry);
    return builder.finish();
  }

  private entry(builder: RecordBuilder, block: ChangeBlock, entry: number): void {
    const at = entry * ENTRY_WORDS;
    const kind = block.words[at]!;
    if (kind >= ENTRY.insert && kind <= ENTRY.delete) {
      if (!this.skipping) builder.row(kind, this.tableOf(block.words[at + 1]!), block.buffer, block.words[at + 2]!, block.words[at + 3]!);
    } else if (kind === ENTRY.begin) this.begin(builder, block, entry);
    else if (kind === ENTRY.commit) this.commit(builder, block, entry);
    else if (kind === ENTRY.idle) this.idle(builder, block, entry);
    else if (!this.skipping) this.rare(builder, block, entry, kind);
  }

  private begin(builder: RecordBuilder, block: ChangeBlock, entry: number): void {
    const position = block.position(entry);
    if (!this.passed) this.skipping = this.positions.relate(position, this.after) === "before";
    this.passed = !this.skipping;
    if (this.skipping) return;
    this.openCommitAt = block.committedAt(entry);
    builder.committedAt ||= this.openCommitAt;
    builder.fact(ENTRY.begin, -1, { position, committedAt: this.openCommitAt, number: block.transactionNumber(entry) });
  }

  private commit(builder: RecordBuilder, block: ChangeBlock, entry: number): void {
    if (this.skipping) {
      this.skipping = false;
      return;
    }
    this.openCommitAt = 0;
    this.after = builder.end = block.position(entry);
    builder.transactions += 1;
    builder.fact(ENTRY.commit, -1, { position: this.after, committedAt: block.committedAt(entry) });
  }

  /** An idle position that is not new says nothing. */
  private idle(builder: RecordBuilder, block: ChangeBlock, entry: number): void {
    const position = block.position(entry);
    if (this.positions.relate(this.after, position) !== "before") return;
    this.after = builder.end = position;
    builder.fact(ENTRY.idle, -1, { position });
  }

  private rare(builder: RecordBuilder, block: ChangeBlock, entry: number, kind: number): void {
    const [, index, flags] = block.words.subarray(entry * ENTRY_WORDS, (entry + 1) * ENTRY_WORDS);
    const table = index! < 0 ? -1 : this.tableOf(index!);
    if (kind === ENTRY.truncate) builder.add(kind, table, flags!, -1);
    else if (kind === ENTRY.mark) builder.fact(kind, -1, { position: block.position(entry), text: block.mark(entry) });
    else if (kind === ENTRY.schema) builder.fact(kind, table, { text: JSON.stringify(block.schemaChange(entry)) });
    else throw new DualrunError("DR5005", `the change stream holds an entry of kind ${kind}, which a journal cannot keep`, { where: "journal" });
  }
}

/** The last entry behind which nothing is in flight; -1: there is none. */
export function lastEndOf({ words, count }: ChangeBlock): number {
  for (let entry = count - 1; entry >= 0; entry--) {
    const kind = words[entry * ENTRY_WORDS];
    if (kind === ENTRY.commit || kind === ENTRY.idle) return entry;
  }
  return -1;
}

interface Fact {
  readonly position?: string;
  readonly committedAt?: number;
  readonly number?: number;
  readonly text?: string;
}

class RecordBuilder {
  end: Position | null = null;
  transactions = 0;
  committedAt: number;
  private bytes: Buffer<ArrayBuffer>;
  private at = HEADER;
  private readonly words: Int32Array;
  private count = 0;

  constructor(payload: number, entries: number, committedAt: number) {
    this.committedAt = committedAt;
    this.words = new Int32Array(entries * ENTRY_WORDS);
    this.bytes = Buffer.allocUnsafeSlow(HEADER + payload + this.words.byteLength + 64);
  }

  add(kind: number, table: number, next: number, previous: number): void {
    this.words.set([kind, table, next, previous], this.count * ENTRY_WORDS);
    this.count += 1;
  }

  row(kind: number, table: number, source: Buffer, next: number, previous: number): void {
    const to = next < 0 ? -1 : this.tuple(source, next);
    const from = previous < 0 ? -1 : this.tuple(source, previous);
    const at = this.count++ * ENTRY_WORDS;
    this.words[at] = kind;
    this.words[at + 1] = table;
    this.words[at + 2] = to;
    this.words[at + 3] = from;
  }

  fact(kind: number, table: number, { position = "", committedAt = 0, number = 0, text = "" }: Fact): void {
    const start = this.at;
    this.room(FACT + 8 + 3 * (position.length + text.length));
    this.bytes.writeDoubleLE(committedAt, this.at);
    this.bytes.writeUInt32LE(number >>> 0, this.at + 8);
    this.at += FACT;
    this.text(position);
    this.text(text);
    this.add(kind, table, start, -1);
  }

  finish(): JournalRecord | null {
    if (this.count === 0) return null;
    const words = (this.at + 3) & ~3;
    const used = this.words.subarray(0, this.count * ENTRY_WORDS);
    this.room(words - this.at + used.byteLength);
    this.bytes.writeUInt32LE(MAGIC, 0);
    this.bytes.writeUInt32LE(RECORD_VERSION, 4);
    this.bytes.writeUInt32LE(this.count, 8);
    this.bytes.writeUInt32LE(words, 12);
    this.bytes.fill(0, 16, HEADER);
    this.bytes.fill(0, this.at, words);
    this.bytes.set(new Uint8Array(used.buffer, 0, used.byteLength), words);
    return { body: this.bytes.subarray(0, words + used.byteLength), end: this.end, transactions: this.transactions, committedAt: this.committedAt };
  }

  private tuple(source: Buffer, offset: number): number {
    const end = tupleEnd(source, offset);
    this.room(end - offset);
    const start = this.at;
    source.copy(this.bytes, start, offset, end);
    this.at += end - offset;
    return start;
  }

  private text(text: string): void {
    const length = this.bytes.write(text, this.at + 4, "utf8");
    this.bytes.writeUInt32LE(length, this.at);
    this.at += 4 + length;
  }

  private room(bytes: number): void {
    if (this.at + bytes <= this.bytes.length) return;
    const grown = Buffer.allocUnsafeSlow(2 * (this.at + bytes));
    this.bytes.copy(grown, 0, 0, this.at);
    this.bytes = grown;
  }
}

/** A block that was read back. */
class RecordBlock implements ChangeBlock {
  readonly buffer: Buffer;
  readonly words: Int32Array;
  readonly count: number;

  constructor(buffer: Buffer, words: Int32Array, count: number) {
    this.buffer = buffer;
    this.words = words;
    this.count = count;
  }

  position(entry: number): Position {
    return this.text(this.factOf(entry) + FACT) as Position;
  }

  committedAt(entry: number): number {
    return this.buffer.readDoubleLE(this.factOf(entry));
  }

  transactionNumber(entry: number): number {
    return this.buffer.readUInt32LE(this.factOf(entry) + 8);
  }

  mark(entry: number): string {
    return this.second(entry);
  }

  /** It stands where it was seen, and comes again whenever that place is read again: as good as announced. */
  schemaChange(entry: number): SchemaChange {
    return { ...(JSON.parse(this.second(entry)) as SchemaChange), announced: true };
  }

  private factOf(entry: number): number {
    return this.words[entry * ENTRY_WORDS + 2]!;
  }

  private second(entry: number): string {
    const first = this.factOf(entry) + FACT;
    return this.text(first + 4 + this.buffer.readUInt32LE(first));
  }

  private text(at: number): string {
    return this.buffer.toString("utf8", at + 4, at + 4 + this.buffer.readUInt32LE(at));
  }
}

/** Throws DR5101 for bytes that are no record of a version that is known. Checksums are whoever keeps the record's matter. */
export function decodeRecord(bytes: Uint8Array): ChangeBlock {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length < HEADER || buffer.readUInt32LE(0) !== MAGIC) throw new DualrunError("DR5101", "a record of the journal does not begin as one", { where: "journal" });
  const version = buffer.readUInt32LE(4);
  if (version !== RECORD_VERSION) throw new DualrunError("DR5101", `a record of the journal is of version ${version}, this program reads version ${RECORD_VERSION}`, { where: "journal", next: "Read this journal with the program that wrote it." });
  const count = buffer.readUInt32LE(8);
  const words = buffer.readUInt32LE(12);
  if (words + count * ENTRY_WORDS * 4 !== buffer.length) throw new DualrunError("DR5101", "a record of the journal is not as long as it says", { where: "journal" });
  return new RecordBlock(buffer, wordsOf(buffer, words), count);
}

/** In place where alignment allows. */
function wordsOf(buffer: Buffer, at: number): Int32Array {
  const offset = buffer.byteOffset + at;
  if (offset % 4 === 0) return new Int32Array(buffer.buffer, offset, (buffer.length - at) / 4);
  return new Int32Array(Uint8Array.from(buffer.subarray(at)).buffer);
}

/** A table as a journal keeps it: equal descriptions are equal text. */
export function formatTable({ table, columns, fullBeforeImage }: StreamTable): string {
  return JSON.stringify({ table: { schema: table.schema, name: table.name }, columns, fullBeforeImage });
}

export function parseTableDescription(text: string): StreamTable {
  return JSON.parse(text) as StreamTable;
}
