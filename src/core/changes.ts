/**
 * The rows of one class on their way to the target.
 *
 * Rows lie one behind the other in one buffer: int16 column count, then per column an int32 length and the bytes;
 * length -1 is NULL, -2 is UNCHANGED. A run of inserts is therefore the payload of a binary bulk copy as it stands.
 * Every change is kept in log order. As soon as something other than an insert comes, an index by key says what is
 * left of each key at the end (its fate), so that the target can be written set-wise.
 */
import { KIND_NULL, KIND_UNCHANGED, LENGTH_NULL, LENGTH_UNCHANGED } from "./tuple.ts";
import type { RecordClass } from "./words.ts";

export const OP = { insert: 0, update: 1, delete: 2 } as const;

/** How rows of a class are made from rows of the stream's table; see src/pipeline/mapper.ts. */
export interface ClassPlan {
  readonly cls: RecordClass;
  /** Source column index per target column; -1: constant. */
  readonly from: Int32Array;
  readonly constants: readonly (Buffer | null)[];
  readonly maps: readonly (((value: Buffer) => Buffer) | null)[];
  /** Target columns are the source's, in order, as they are. */
  readonly identity: boolean;
  /** Indexes of the key among the target's columns; all columns when the class has no key. */
  readonly keyColumns: Int32Array;
  /** The before image holds every column. */
  readonly fullBeforeImage: boolean;
}

type Key = string | number;

const START_BYTES = 1 << 16;
const START_ROWS = 1 << 10;
const KEPT_BYTES = 1 << 20;
/** Below this a loop is faster than a call into the runtime. */
const SMALL_COPY = 40;

/** An image of a row that the log does not carry whole: at least one column is UNCHANGED. */
const PARTIAL = 1;
const KEY_CHANGED = 2;

/** What is to be written, when the order of changes does not matter. Row numbers refer to the changes' row offsets. */
export interface Fates {
  readonly inserts: readonly number[];
  readonly updates: readonly number[];
  /** Updates in which some column is UNCHANGED, by which columns those are. */
  readonly partialUpdates: ReadonlyMap<string, readonly number[]>;
  /** Offsets of key rows (whole rows for a class without key). */
  readonly deletes: readonly number[];
}

class Bytes {
  buffer = Buffer.allocUnsafe(START_BYTES);
  used = 0;

  reserve(more: number): void {
    if (this.used + more <= this.buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, this.used + more));
    this.buffer.copy(grown, 0, 0, this.used);
    this.buffer = grown;
  }

  /** Keeps the room for the next batch, unless this one needed far less of it. */
  clear(): void {
    if (this.buffer.length > KEPT_BYTES && this.used < this.buffer.length / 4) this.buffer = Buffer.allocUnsafe(START_BYTES);
    this.used = 0;
  }

  append(source: Buffer, from: number, to: number): void {
    this.reserve(to - from);
    this.used = copyBytes(source, from, to, this.buffer, this.used);
  }

  int32(value: number): void {
    this.reserve(4);
    this.used = this.buffer.writeInt32BE(value, this.used);
  }

  int16(value: number): void {
    this.reserve(2);
    this.used = this.buffer.writeInt16BE(value, this.used);
  }
}

function copyBytes(source: Buffer, from: number, to: number, target: Buffer, at: number): number {
  if (to - from > SMALL_COPY) {
    source.copy(target, at, from, to);
    return at + to - from;
  }
  while (from < to) target[at++] = source[from++]!;
  return at;
}

/** Offset just behind the row that starts at `at`. */
export function rowEnd(bytes: Buffer, at: number): number {
  let next = at + 2;
  for (let left = bytes.readInt16BE(at); left > 0; left--) {
    const length = bytes.readInt32BE(next);
    next += length > 0 ? 4 + length : 4;
  }
  return next;
}

/** Where a column's length stands in the row that starts at `at`. */
function columnAt(bytes: Buffer, at: number, column: number): number {
  let next = at + 2;
  for (let left = column; left > 0; left--) next += 4 + Math.max(0, bytes.readInt32BE(next));
  return next;
}

/** A row's columns: null is NULL, undefined is UNCHANGED. For slow paths. */
export function rowValues(bytes: Buffer, at: number): (Buffer | null | undefined)[] {
  const values: (Buffer | null | undefined)[] = [];
  let next = at + 2;
  for (let left = bytes.readInt16BE(at); left > 0; left--) {
    const length = bytes.readInt32BE(next);
    next += 4;
    if (length === LENGTH_NULL) values.push(null);
    else if (length === LENGTH_UNCHANGED) values.push(undefined);
    else values.push(bytes.subarray(next, next += length));
  }
  return values;
}

export class ClassChanges {
  readonly plan: ClassPlan;
  /** New images in log order. */
  private readonly news = new Bytes();
  /** Keys (or whole before images, for a class without key) of updates and deletes. */
  private readonly olds = new Bytes();
  count = 0;
  readonly operations = { insert: 0, update: 0, delete: 0 };
  /** Some change cannot be merged with what came before: write one by one in log order. */
  ordered = false;
  private ops = new Uint8Array(START_ROWS);
  private flags = new Uint8Array(START_ROWS);
  private newAt = new Int32Array(START_ROWS);
  private oldAt = new Int32Array(START_ROWS);
  private slots: Map<Key, number> | null = null;
  private slotRow: number[] = [];
  private slotBorn: boolean[] = [];
  private slotOld: number[] = [];
  /** Classes without a key: how often a whole row comes (+) or goes (-). */
  private slotNet: number[] = [];
  private readonly scratch: Int32Array;

  constructor(plan: ClassPlan) {
    this.plan = plan;
    this.scratch = new Int32Array(1664);
  }

  /** Bytes held, for the bound on memory. */
  get bytes(): number {
    return this.news.used + this.olds.used;
  }

  get insertOnly(): boolean {
    return this.slots === null;
  }

  get hasKey(): boolean {
    return this.plan.cls.key.length > 0;
  }

  /** All new images back to back: the payload of a bulk copy when `insertOnly`. */
  get insertPayload(): Buffer {
    return this.news.buffer.subarray(0, this.news.used);
  }

  get rowBytes(): Buffer {
    return this.news.buffer;
  }

  get keyBytes(): Buffer {
    return this.olds.buffer;
  }

  op(row: number): number {
    return this.ops[row]!;
  }

  rowAt(row: number): number {
    return this.newAt[row]!;
  }

  oldKeyAt(row: number): number {
    return this.oldAt[row]!;
  }

  isPartial(row: number): boolean {
    return (this.flags[row]! & PARTIAL) !== 0;
  }

  clear(): void {
    this.news.clear();
    this.olds.clear();
    this.count = 0;
    this.operations.insert = this.operations.update = this.operations.delete = 0;
    this.ordered = false;
    this.slots = null;
    this.slotRow = [];
    this.slotBorn = [];
    this.slotOld = [];
    this.slotNet = [];
  }

  /**
   * Adds a change; `next` and `previous` are offsets of tuples in `source`, -1 where there is none.
   * An insert's before image, of a row that enters the class, only fills what is UNCHANGED.
   */
  add(op: number, source: Buffer, next: number, previous: number): void {
    const row = this.newRow(op);
    if (op !== OP.insert && this.slots === null) this.buildIndex(row);
    if (previous >= 0 && op !== OP.insert) this.oldAt[row] = this.appendOld(source, previous);
    if (next >= 0) {
      this.newAt[row] = this.news.used;
      if (this.appendNew(source, next, this.plan.fullBeforeImage ? previous : -1)) this.flags[row]! |= PARTIAL;
    }
    if (op === OP.insert) this.operations.insert += 1;
    else if (op === OP.update) this.operations.update += 1;
    else this.operations.delete += 1;
    if (this.slots !== null) this.index(row);
  }

  /** What is left to be written per key. Only when `insertOnly` and `ordered` are both false. */
  fates(): Fates {
    return this.hasKey ? this.keyedFates() : this.multisetFates();
  }

  private newRow(op: number): number {
    const row = this.count++;
    if (row === this.ops.length) this.growRows();
    this.ops[row] = op;
    this.flags[row] = 0;
    this.newAt[row] = -1;
    this.oldAt[row] = -1;
    return row;
  }

  private growRows(): void {
    const size = this.ops.length * 2;
    const bytes = (old: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> => { const grown = new Uint8Array(size); grown.set(old); return grown; };
    const words = (old: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> => { const grown = new Int32Array(size); grown.set(old); return grown; };
    this.ops = bytes(this.ops);
    this.flags = bytes(this.flags);
    this.newAt = words(this.newAt);
    this.oldAt = words(this.oldAt);
  }

  /** Returns true when a column is UNCHANGED and no before image has it. */
  private appendNew(source: Buffer, at: number, previous: number): boolean {
    return this.plan.identity ? this.appendIdentity(source, at, previous) : this.appendMapped(source, at, previous);
  }

  private appendIdentity(source: Buffer, at: number, previous: number): boolean {
    const columns = source.readInt16BE(at);
    const { news } = this;
    const start = news.used;
    news.reserve(Math.max(START_BYTES, source.length - at) + 2 + columns * 4);
    const target = news.buffer;
    let partial = false;
    let to = news.used;
    target[to++] = source[at++]!;
    target[to++] = source[at++]!;
    for (let i = 0; i < columns; i++) {
      const kind = source[at++]!;
      if (kind === KIND_NULL || kind === KIND_UNCHANGED) {
        target[to] = target[to + 1] = target[to + 2] = 0xff;
        target[to + 3] = kind === KIND_NULL ? 0xff : 0xfe;
        to += 4;
        partial ||= kind === KIND_UNCHANGED;
      } else {
        const end = at + 4 + ((source[at]! << 24) | (source[at + 1]! << 16) | (source[at + 2]! << 8) | source[at + 3]!);
        to = copyBytes(source, at, end, target, to);
        at = end;
      }
    }
    news.used = to;
    return partial && this.fillFromTuple(start, source, previous);
  }

  private appendMapped(source: Buffer, at: number, previous: number): boolean {
    const start = this.news.used;
    const offsets = this.columnOffsets(source, at);
    let partial = false;
    this.news.int16(this.plan.from.length);
    for (let i = 0; i < this.plan.from.length; i++) {
      const column = this.plan.from[i]!;
      partial = this.appendColumn(source, column < 0 ? -1 : offsets[column]!, i) || partial;
    }
    return partial && this.fillFromTuple(start, source, previous);
  }

  private appendColumn(source: Buffer, at: number, index: number): boolean {
    if (at < 0) this.appendValue(this.plan.constants[index]!);
    else if (source[at] === KIND_NULL) this.news.int32(LENGTH_NULL);
    else if (source[at] === KIND_UNCHANGED) {
      this.news.int32(LENGTH_UNCHANGED);
      return true;
    } else {
      const end = at + 5 + source.readInt32BE(at + 1);
      const map = this.plan.maps[index];
      if (map === null || map === undefined) this.news.append(source, at + 1, end);
      else this.appendValue(map(source.subarray(at + 5, end)));
    }
    return false;
  }

  private appendValue(value: Buffer | null): void {
    this.news.int32(value === null ? LENGTH_NULL : value.length);
    if (value !== null) this.news.append(value, 0, value.length);
  }

  /** Offset of each column's kind byte. */
  private columnOffsets(source: Buffer, at: number): Int32Array {
    const columns = source.readInt16BE(at);
    let next = at + 2;
    for (let i = 0; i < columns; i++) {
      this.scratch[i] = next;
      const kind = source[next];
      next += kind === KIND_NULL || kind === KIND_UNCHANGED ? 1 : 5 + source.readInt32BE(next + 1);
    }
    return this.scratch;
  }

  /** Takes UNCHANGED columns of the row at `start` from the before image; false when that made the row whole. */
  private fillFromTuple(start: number, source: Buffer, previous: number): boolean {
    if (previous < 0) return true;
    const row = Buffer.from(this.news.buffer.subarray(start, this.news.used));
    const offsets = this.columnOffsets(source, previous);
    this.news.used = start;
    let partial = false;
    this.news.int16(this.plan.from.length);
    rowValues(row, 0).forEach((value, i) => {
      if (value !== undefined) this.appendValue(value);
      else partial = this.appendColumn(source, offsets[this.plan.from[i]!]!, i) || partial;
    });
    return partial;
  }

  /** Takes UNCHANGED columns of the last row from an earlier row of the batch; false when that made it whole. */
  private fillFromRow(row: number, earlier: number): boolean {
    const start = this.newAt[row]!;
    const mine = Buffer.from(this.news.buffer.subarray(start, this.news.used));
    const theirs = rowValues(Buffer.from(this.news.buffer.subarray(this.newAt[earlier]!, rowEnd(this.news.buffer, this.newAt[earlier]!))), 0);
    this.news.used = start;
    let partial = false;
    this.news.int16(this.plan.from.length);
    rowValues(mine, 0).forEach((value, i) => {
      const filled = value === undefined ? theirs[i] : value;
      if (filled === undefined) {
        this.news.int32(LENGTH_UNCHANGED);
        partial = true;
      } else this.appendValue(filled);
    });
    return partial;
  }

  /** The key, or for a class without key the whole row, of a before image; as a row of its own. */
  private appendOld(source: Buffer, at: number): number {
    const { keyColumns, from } = this.plan;
    const offsets = this.columnOffsets(source, at);
    const start = this.olds.used;
    this.olds.int16(keyColumns.length);
    for (let i = 0; i < keyColumns.length; i++) {
      const column = keyColumns[i]!;
      const origin = from[column]!;
      const kindAt = origin < 0 ? -1 : offsets[origin]!;
      if (kindAt < 0) this.appendOldValue(this.plan.constants[column]!);
      else if (source[kindAt] === KIND_NULL || source[kindAt] === KIND_UNCHANGED) this.olds.int32(LENGTH_NULL);
      else {
        const end = kindAt + 5 + source.readInt32BE(kindAt + 1);
        const map = this.plan.maps[column];
        if (map === null || map === undefined) this.olds.append(source, kindAt + 1, end);
        else this.appendOldValue(map(source.subarray(kindAt + 5, end)));
      }
    }
    return start;
  }

  private appendOldValue(value: Buffer | null): void {
    this.olds.int32(value === null ? LENGTH_NULL : value.length);
    if (value !== null) this.olds.append(value, 0, value.length);
  }

  /** Calls with the place of the leading key column's value, for every new row and every key that a row had before. */
  forEachKey(visit: (bytes: Buffer, at: number) => void): void {
    const leading = this.plan.keyColumns[0]!;
    for (let row = 0; row < this.count; row++) {
      if (this.oldAt[row]! >= 0) visit(this.olds.buffer, this.oldAt[row]! + 2);
      if (this.newAt[row]! >= 0) visit(this.news.buffer, columnAt(this.news.buffer, this.newAt[row]!, leading));
    }
  }

  // ------------------------------------------------------------ index

  private buildIndex(rows: number): void {
    this.slots = new Map();
    for (let row = 0; row < rows; row++) this.index(row);
  }

  private index(row: number): void {
    if (this.hasKey) this.indexKeyed(row);
    else this.indexMultiset(row);
  }

  private indexMultiset(row: number): void {
    if (this.oldAt[row]! >= 0) this.count1(this.wholeRow(this.olds.buffer, this.oldAt[row]!), row, -1);
    if (this.newAt[row]! >= 0) {
      if (this.isPartial(row)) this.ordered = true;
      this.count1(this.wholeRow(this.news.buffer, this.newAt[row]!), row, 1);
    }
  }

  private count1(image: string, row: number, by: number): void {
    let slot = this.slots!.get(image);
    if (slot === undefined) {
      slot = this.slotNet.length;
      this.slots!.set(image, slot);
      this.slotNet.push(0);
      this.slotRow.push(-1);
      this.slotOld.push(-1);
    }
    this.slotNet[slot]! += by;
    if (by > 0) this.slotRow[slot] = row;
    else this.slotOld[slot] = this.oldAt[row]!;
  }

  private wholeRow(bytes: Buffer, at: number): string {
    return bytes.toString("latin1", at, rowEnd(bytes, at));
  }

  private indexKeyed(row: number): void {
    switch (this.ops[row]) {
      case OP.insert:
        this.put(this.keyOfRow(row), row, true);
        return;
      case OP.delete:
        this.remove(this.keyOfOld(this.oldAt[row]!), this.oldAt[row]!);
        return;
      default:
        this.indexUpdate(row);
    }
  }

  private indexUpdate(row: number): void {
    const key = this.keyOfRow(row);
    const old = this.oldAt[row]! >= 0 ? this.keyOfOld(this.oldAt[row]!) : key;
    if (this.isPartial(row)) this.completeFrom(old, row);
    if (old === key) {
      this.put(key, row, false);
      return;
    }
    this.flags[row]! |= KEY_CHANGED;
    if (this.isPartial(row)) this.ordered = true;
    this.remove(old, this.oldAt[row]!);
    this.put(key, row, true);
  }

  private completeFrom(key: Key, row: number): void {
    const slot = this.slots!.get(key);
    const earlier = slot === undefined ? -1 : this.slotRow[slot]!;
    if (earlier >= 0 && !this.fillFromRow(row, earlier)) this.flags[row]! &= ~PARTIAL;
  }

  private put(key: Key, row: number, insert: boolean): void {
    const slot = this.slots!.get(key);
    if (slot === undefined) {
      this.slots!.set(key, this.slotRow.length);
      this.slotRow.push(row);
      this.slotBorn.push(insert);
      this.slotOld.push(-1);
      return;
    }
    const alive = this.slotRow[slot]! >= 0;
    if (alive === insert) this.ordered = true; // an insert of what is there, or an update of what is gone
    this.slotRow[slot] = row;
  }

  private remove(key: Key, oldAt: number): void {
    const slot = this.slots!.get(key);
    if (slot === undefined) {
      this.slots!.set(key, this.slotRow.length);
      this.slotRow.push(-1);
      this.slotBorn.push(false);
      this.slotOld.push(oldAt);
      return;
    }
    if (this.slotRow[slot]! < 0) this.ordered = true;
    this.slotRow[slot] = -1;
    this.slotOld[slot] = oldAt;
  }

  private keyOfRow(row: number): Key {
    const { keyColumns } = this.plan;
    const bytes = this.news.buffer;
    let at = this.newAt[row]! + 2;
    if (keyColumns.length === 1) {
      for (let left = keyColumns[0]!; left > 0; left--) at += 4 + Math.max(0, bytes.readInt32BE(at));
      return keyValue(bytes, at);
    }
    const ends: number[] = [];
    for (let i = 0, last = Math.max(...keyColumns); i <= last; i++) {
      ends.push(at);
      at += 4 + Math.max(0, bytes.readInt32BE(at));
    }
    let key = "";
    for (const column of keyColumns) key += bytes.toString("latin1", ends[column]!, ends[column]! + 4 + Math.max(0, bytes.readInt32BE(ends[column]!)));
    return key;
  }

  private keyOfOld(at: number): Key {
    return this.plan.keyColumns.length === 1 ? keyValue(this.olds.buffer, at + 2) : this.olds.buffer.toString("latin1", at + 2, rowEnd(this.olds.buffer, at));
  }

  // ------------------------------------------------------------ fates

  private keyedFates(): Fates {
    const inserts: number[] = [];
    const updates: number[] = [];
    const partialUpdates = new Map<string, number[]>();
    const deletes: number[] = [];
    for (let slot = 0; slot < this.slotRow.length; slot++) {
      const row = this.slotRow[slot]!;
      if (row < 0) {
        if (!this.slotBorn[slot]!) deletes.push(this.slotOld[slot]!);
      } else if (this.slotBorn[slot]!) inserts.push(row);
      else if (this.isPartial(row)) pushTo(partialUpdates, this.unchangedColumns(row), row);
      else updates.push(row);
    }
    return { inserts, updates, partialUpdates, deletes };
  }

  private unchangedColumns(row: number): string {
    return rowValues(this.news.buffer, this.newAt[row]!).flatMap((value, i) => (value === undefined ? [i] : [])).join(",");
  }

  private multisetFates(): Fates {
    const inserts: number[] = [];
    const deletes: number[] = [];
    for (let slot = 0; slot < this.slotNet.length; slot++) {
      const net = this.slotNet[slot]!;
      for (let i = 0; i < net; i++) inserts.push(this.slotRow[slot]!);
      for (let i = 0; i > net; i--) deletes.push(this.slotOld[slot]!);
    }
    return { inserts, updates: [], partialUpdates: new Map(), deletes };
  }
}

function pushTo(map: Map<string, number[]>, key: string, value: number): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

/** Small binary integers make cheap map keys; everything else is its bytes. */
function keyValue(bytes: Buffer, at: number): Key {
  const length = bytes.readInt32BE(at);
  if (length === 4) return bytes.readInt32BE(at + 4);
  return bytes.toString("latin1", at + 4, at + 4 + Math.max(0, length));
}
