/**
 * The change stream in one file of SQLite. One thread writes, a commit per gathered batch; this one encodes, reads and knows
 * what stands where. What was handed over while the last fsync ran becomes the next batch.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import {
  DualrunError, RecordEncoder, decodeRecord, formatTable,
  type ChangeBlock, type Journal, type JournalFacts, type JournalLevel, type Position, type Positions, type StreamTable,
} from "../../src/core/index.ts";
import { Seal, openRecord, type RecordRow } from "./seal.ts";
import { lockJournal, storeError, type NewRecord, type StoreOptions, type StoreState } from "./store.ts";
import { Writer } from "./writer.ts";

/** A batch is committed at about this size at most, or at a sixteenth of the bound. */
const BATCH_BYTES = 4 << 20;
/** What a record takes beside its bytes. */
const RECORD_OVERHEAD = 64;
/** What is not needed any more is gathered for this long. */
const TRIM_DELAY_MS = 250;
const TRIMMED_AT_ONCE = 2_000;
/** The reader lets others have their turn after this many bytes. */
const TURN_BYTES = 128 << 10;
const NEAR_LIMIT = 0.8;
const LEAVE_NEAR_LIMIT = 0.72;

export interface SqliteJournalOptions extends StoreOptions {
  readonly positions: Positions;
}

interface Pending {
  readonly records: readonly NewRecord[];
  readonly tables: readonly { readonly id: number; readonly table: StreamTable }[];
  readonly bytes: number;
  readonly settled: PromiseWithResolvers<void>;
}

/** Opens the file, or makes it. DR5101 damaged, DR5103 another migration's, DR5104 cannot be opened. */
export async function openSqliteJournal(options: SqliteJournalOptions): Promise<Journal> {
  const journal = new SqliteJournal(options, lockJournal(options.path));
  try {
    await journal.open();
    return journal;
  } catch (error) {
    await journal[Symbol.asyncDispose]();
    throw error;
  }
}

class SqliteJournal implements Journal {
  readonly tables: StreamTable[] = [];
  private readonly options: SqliteJournalOptions;
  private readonly lock: Disposable;
  private readonly writer: Writer;
  private reader: Reader | null = null;
  private readonly tableIds = new Map<string, number>();
  private newTables: { readonly id: number; readonly table: StreamTable }[] = [];
  /** Which of ours a table of the stream is; what the stream has put in its place since is another one. */
  private known: { readonly table: StreamTable; readonly id: number }[] = [];
  private streamTables: readonly StreamTable[] = [];
  private encoder: RecordEncoder | null = null;
  private startAt: Position | null = null;
  private startSeq = 0;
  private lastSeq = 0;
  private committedSeq = 0;
  private durableAt: Position | null = null;
  private readonly pending: Pending[] = [];
  private pendingBytes = 0;
  private writing: Promise<void> | null = null;
  private trimming: Promise<void> | null = null;
  private trimTimer: NodeJS.Timeout | null = null;
  private dispensable: Position | null = null;
  private waitingSince: number | null = null;
  private waited = 0;
  private near = false;
  private failure: unknown = null;
  private readonly watchers = new Set<() => void>();

  constructor(options: SqliteJournalOptions, lock: Disposable) {
    this.options = options;
    this.lock = lock;
    this.writer = new Writer(options, () => this.fail(this.writer.failure));
  }

  async open(): Promise<void> {
    const state = await this.writer.opened;
    this.reader = new Reader(this.options, state);
    for (const table of state.tables) this.addTable(table);
    this.startSeq = state.startSeq;
    this.startAt = state.start as Position | null;
    this.lastSeq = this.committedSeq = state.committedSeq;
    this.durableAt = state.durable as Position | null;
    this.anew();
  }

  start(): Position | null {
    return this.startAt;
  }

  durable(): Position | null {
    return this.durableAt;
  }

  facts(): JournalFacts {
    const { maxBytes } = this.options;
    const bytes = this.writer.bytes + this.pendingBytes;
    return {
      kind: "sqlite", bytes, maxBytes, first: this.startAt, last: this.durableAt, oldestCommitAt: this.oldestCommitAt(),
      level: this.level(bytes / maxBytes),
      waitedSeconds: (this.waited + (this.waitingSince === null ? 0 : performance.now() - this.waitingSince)) / 1000,
    };
  }

  async begin(position: Position): Promise<void> {
    await this.cutOff();
    await this.trimming;
    await this.writer.perform({ kind: "begin", seq: this.lastSeq, position });
    this.startSeq = this.committedSeq = this.lastSeq;
    this.startAt = this.durableAt = position;
    this.dispensable = null;
    this.anew();
  }

  async append(block: ChangeBlock, tables: readonly StreamTable[]): Promise<void> {
    if (this.failure !== null) throw this.failure;
    if (this.encoder === null) throw new Error("the journal has not begun");
    this.streamTables = tables;
    const records = this.encoder.encode(block).map((record) => ({ ...record, seq: ++this.lastSeq }));
    if (records.length === 0) return;
    const bytes = records.reduce((sum, { body }) => sum + body.length + RECORD_OVERHEAD, 0);
    const settled = Promise.withResolvers<void>();
    this.pending.push({ records, tables: this.newTables, bytes, settled });
    this.newTables = [];
    this.pendingBytes += bytes;
    this.write();
    return settled.promise;
  }

  async *read(after: Position, signal: AbortSignal): AsyncGenerator<ChangeBlock, void, undefined> {
    let seq = this.firstBehind(after);
    let served = 0;
    while (!signal.aborted) {
      if (this.failure !== null) throw this.failure;
      if (seq > this.committedSeq) {
        await this.change(signal);
        continue;
      }
      const block = this.need().block(seq++);
      served += block.buffer.length;
      yield block;
      if (served < TURN_BYTES) continue;
      served = 0;
      await nextTurn();
    }
  }

  async trim(upTo: Position): Promise<void> {
    if (this.failure !== null) throw this.failure;
    this.dispensable = upTo;
    if (this.waitingSince !== null) this.trimNow();
    else this.trimTimer ??= setTimeout(() => this.trimNow(), TRIM_DELAY_MS);
  }

  async cutOff(): Promise<void> {
    for (const { settled } of this.pending.splice(0)) settled.reject(new Error("the stream ended before it was written"));
    this.pendingBytes = 0;
    this.hasRoomNow();
    await this.writing;
    if (this.failure !== null) throw this.failure;
    if (this.lastSeq > this.committedSeq) await this.writer.perform({ kind: "cut", seq: this.committedSeq });
    this.lastSeq = this.committedSeq;
    this.anew();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.trimTimer !== null) clearTimeout(this.trimTimer);
    this.fail(new Error("the journal was closed"));
    this.reader?.close(); // before the writer: who closes last writes SQLite's own log back
    await this.writer.close();
    this.lock[Symbol.dispose]();
  }

  // ------------------------------------------------------------ writing

  /** A new stream follows: its tables are not those of the one before. */
  private anew(): void {
    this.known = [];
    this.encoder = this.durableAt === null ? null : new RecordEncoder(this.options.positions, this.durableAt, (index) => this.tableId(index));
  }

  private tableId(index: number): number {
    const table = this.streamTables[index]!;
    const known = this.known[index];
    if (known?.table === table) return known.id;
    const id = this.tableIds.get(formatTable(table)) ?? this.addNewTable(table);
    this.known[index] = { table, id };
    return id;
  }

  private addNewTable(table: StreamTable): number {
    const id = this.addTable(table);
    this.newTables.push({ id, table });
    return id;
  }

  private addTable(table: StreamTable): number {
    const id = this.tables.push(table) - 1;
    this.tableIds.set(formatTable(table), id);
    return id;
  }

  private write(): void {
    if (this.writing !== null || this.pending.length === 0 || !this.findRoom()) return;
    const batch = this.takeBatch();
    this.writing = this.writer.perform({ kind: "append", records: batch.flatMap(({ records }) => records), tables: batch.flatMap(({ tables }) => tables) })
      .then(() => this.written(batch), (error: unknown) => this.fail(error, batch))
      .finally(() => {
        this.writing = null;
        this.write();
      });
  }

  private takeBatch(): Pending[] {
    const most = Math.min(BATCH_BYTES, this.options.maxBytes / 16, this.options.maxBytes - this.writer.bytes);
    const batch: Pending[] = [];
    for (let bytes = 0; this.pending.length > 0 && (bytes === 0 || bytes + this.pending[0]!.bytes <= most);) {
      bytes += this.pending[0]!.bytes;
      batch.push(this.pending.shift()!);
    }
    return batch;
  }

  private written(batch: readonly Pending[]): void {
    for (const { records, bytes, settled } of batch) {
      this.pendingBytes -= bytes;
      for (const { seq, end } of records) {
        if (end === null) continue;
        this.committedSeq = seq;
        this.durableAt = end;
      }
      settled.resolve();
    }
    this.tell();
  }

  // ------------------------------------------------------------ room

  /** Whether the next batch may be written. When it may not, what is read and done with makes room. */
  private findRoom(): boolean {
    if (this.writer.bytes + this.pending[0]!.bytes <= this.options.maxBytes) {
      this.hasRoomNow();
      return true;
    }
    this.waitingSince ??= performance.now();
    if (this.committedSeq > this.startSeq) this.trimNow();
    else this.fail(new DualrunError("DR5105", `a transaction, or a part of one that is received at once, needs more than ${this.options.maxBytes} bytes`, { where: "journal.maxBytes" }));
    return false;
  }

  private hasRoomNow(): void {
    if (this.waitingSince === null) return;
    this.waited += performance.now() - this.waitingSince;
    this.waitingSince = null;
  }

  private level(share: number): JournalLevel {
    this.near = share >= (this.near ? LEAVE_NEAR_LIMIT : NEAR_LIMIT);
    if (this.waitingSince !== null || this.writer.waiting !== null) return "waiting";
    return this.near ? "near-limit" : "ok";
  }

  private trimNow(): void {
    if (this.trimTimer !== null) clearTimeout(this.trimTimer);
    this.trimTimer = null;
    if (this.trimming !== null || this.dispensable === null || this.failure !== null) return;
    const upTo = this.dispensable;
    const last = this.need().lastUpTo(this.startSeq, TRIMMED_AT_ONCE, (end) => this.isUpTo(end, upTo));
    if (last === null) return;
    this.trimming = this.writer.perform({ kind: "trim", seq: last.seq, position: last.end })
      .then(() => this.trimmed(last), (error: unknown) => this.fail(error))
      .finally(() => {
        this.trimming = null;
        this.trimNow();
        this.write();
      });
  }

  private trimmed({ seq, end }: { readonly seq: number; readonly end: Position }): void {
    this.startSeq = seq;
    this.startAt = end;
  }

  private isUpTo(end: Position, upTo: Position): boolean {
    const relation = this.options.positions.relate(end, upTo);
    return relation === "before" || relation === "equal";
  }

  // ------------------------------------------------------------ reading

  private oldestCommitAt(): number | null {
    if (this.failure !== null || this.startSeq >= this.committedSeq) return null;
    try {
      return this.need().committedAt(this.startSeq + 1) || null;
    } catch (error) {
      this.fail(error);
      return null;
    }
  }

  private firstBehind(after: Position): number {
    if (this.startAt === null || !this.isUpTo(this.startAt, after)) {
      throw new DualrunError("DR5102", `the journal begins at ${this.startAt}, behind ${after}`, { where: "journal" });
    }
    return (this.need().lastUpTo(this.startSeq, Infinity, (end) => this.isUpTo(end, after))?.seq ?? this.startSeq) + 1;
  }

  private need(): Reader {
    if (this.failure !== null) throw this.failure;
    return this.reader!;
  }

  private async change(signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        this.watchers.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      this.watchers.add(wake);
      signal.addEventListener("abort", wake, { once: true });
    });
  }

  private tell(): void {
    for (const wake of this.watchers) wake();
  }

  private fail(error: unknown, batch: readonly Pending[] = []): void {
    this.failure ??= error;
    for (const { settled } of [...batch, ...this.pending.splice(0)]) settled.reject(this.failure);
    this.tell();
  }
}

/** The reading side of the file. Short statements, so that nothing is held back from being written over. */
class Reader {
  private readonly path: string;
  private readonly db: DatabaseSync;
  private readonly seal: Seal;
  private readonly record: StatementSync;
  private readonly commitTime: StatementSync;
  private readonly ends: StatementSync;

  constructor({ path, key }: StoreOptions, { fileId }: StoreState) {
    this.path = path;
    this.db = new DatabaseSync(path, { readOnly: true });
    this.db.exec("PRAGMA busy_timeout = 10000");
    this.seal = new Seal(key, fileId);
    this.record = this.db.prepare("SELECT seq, ended, transactions, committed_at, checksum, body FROM records WHERE seq = ?");
    this.commitTime = this.db.prepare("SELECT committed_at FROM records WHERE seq >= ? AND committed_at > 0 ORDER BY seq LIMIT 1");
    this.ends = this.db.prepare("SELECT seq, ended FROM records WHERE seq > ? AND ended IS NOT NULL ORDER BY seq");
  }

  block(seq: number): ChangeBlock {
    const row = this.guard(() => this.record.get(seq) as RecordRow | undefined);
    if (row === undefined) throw new DualrunError("DR5101", `record ${seq} is missing`, { where: this.path });
    return decodeRecord(openRecord(this.seal, row));
  }

  /** Of the first transaction from `seq` on, milliseconds since 1970; 0: there is none. */
  committedAt(seq: number): number {
    return this.guard(() => Number(this.commitTime.get(seq)?.["committed_at"] ?? 0));
  }

  /** The last record behind `seq` whose end fulfils what all before it do; looks at no more than `most`. */
  lastUpTo(seq: number, most: number, fulfils: (end: Position) => boolean): { readonly seq: number; readonly end: Position } | null {
    return this.guard(() => {
      let last: { seq: number; end: Position } | null = null;
      let looked = 0;
      for (const row of this.ends.iterate(seq)) {
        if (looked++ >= most || !fulfils(row["ended"] as Position)) break;
        last = { seq: Number(row["seq"]), end: row["ended"] as Position };
      }
      return last;
    });
  }

  close(): void {
    this.db.close();
  }

  private guard<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw storeError(error, this.path);
    }
  }
}
