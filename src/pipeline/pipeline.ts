/**
 * The life of a transaction: read, mapped, batched, written, committed with its position, acknowledged.
 *
 * One batch fills while the one before is being written. A batch is handed over at a source commit's end;
 * a transaction that does not fit in memory is handed over piece by piece into one target transaction.
 */
import {
  DualrunError, ENTRY, ENTRY_WORDS, OP, PassedTransactions, failpoint, tableKey,
  type ChangeBlock, type ChangeStream, type Checkpoint, type Position, type Positions, type RecordClass,
  type SchemaChange, type StreamTable, type TableName, type Target, type TargetTransaction, type TouchLedger, type ValueFormat, type WriteOptions, type WriteResult,
} from "../core/index.ts";
import { Batch } from "./batch.ts";
import { filterChange, type Mapping } from "./mapper.ts";

/** An idle position is stored at most this often. */
const IDLE_CHECKPOINT_MS = 5_000;
const OP_OF_ENTRY: Readonly<Record<number, number>> = { [ENTRY.insert]: OP.insert, [ENTRY.update]: OP.update, [ENTRY.delete]: OP.delete };

export interface AppliedBatch {
  readonly position: Position;
  readonly transactions: number;
  readonly rows: number;
  readonly seconds: number;
  readonly firstCommitAt: number | null;
  readonly lastCommitAt: number | null;
  readonly operations: ReadonlyMap<string, { readonly insert: number; readonly update: number; readonly delete: number }>;
  readonly truncates: readonly string[];
  readonly result: WriteResult;
}

export interface PipelineOptions {
  readonly stream: ChangeStream;
  readonly target: Target;
  readonly positions: Positions;
  readonly checkpoint: Checkpoint;
  readonly format: ValueFormat;
  readonly mappingsOf: (table: StreamTable) => readonly Mapping[];
  /** The table's changes pass by, whatever its layout: all its classes are copied whole at a later position. */
  readonly passesBy: (table: TableName) => boolean;
  readonly batchRows: number;
  /** Milliseconds. */
  readonly batchDelay: number;
  /** Bytes. */
  readonly maxBuffer: number;
  readonly write: WriteOptions;
  /** Notes what is touched; recorded with the rows. */
  readonly ledger: TouchLedger;
  /** Announced schema changes before this place were accepted. */
  readonly acceptedUpTo: Position | null;
  /** Where a schema change was seen: everything before it is applied, then the pipeline halts with it. */
  readonly haltBefore: SchemaHalt | null;
  /** Ends the stream: reading stops, `run` returns or throws what failed. */
  readonly abort: () => void;
  /** Aborts with the stream. */
  readonly signal: AbortSignal;
  readonly onApplied: (batch: AppliedBatch) => void;
  readonly onBackpressure: (seconds: number) => void;
  readonly onMark: (token: string) => void;
}

/** Thrown when a schema change stands in the middle of a transaction of which a part is already in the batch. */
export interface SchemaHalt {
  readonly position: Position;
  readonly change: SchemaChange;
}

export class SchemaHaltSignal extends Error implements SchemaHalt {
  readonly position: Position;
  readonly change: SchemaChange;

  constructor(position: Position, change: SchemaChange) {
    super("a schema change stands in the middle of a transaction");
    this.position = position;
    this.change = change;
  }
}

/** While it is held nothing is committed on the target beyond its position. */
export interface Hold {
  readonly checkpoint: Checkpoint;
  release(): void;
}

interface Barrier {
  /** null: wherever the pipeline comes to a transaction's end next. */
  readonly position: Position | null;
  readonly reached: (hold: Hold) => void;
  readonly failed: (error: unknown) => void;
}

export class Pipeline {
  /** Everything that this stream has come past. */
  readonly passed = new PassedTransactions();
  private readonly options: PipelineOptions;
  private readonly mappings: (readonly Mapping[])[] = [];
  private checkpoint: Checkpoint;
  private filling = new Batch();
  private spare = new Batch();
  private flushing: Promise<void> | null = null;
  private failure: unknown = null;
  private transaction: TargetTransaction | null = null;
  /** Rows, operations and truncates of the pieces that were written into the open target transaction. */
  private pieces: Piece[] = [];
  private truncated: string[] = [];
  private inTransaction = false;
  private rowsOfTransaction = 0;
  private begun: { readonly block: ChangeBlock; readonly entry: number } | null = null;
  private skipping = false;
  private pastCheckpoint = false;
  private barrier: Barrier | null = null;
  private stopping = false;
  private ended = false;
  private lastCommitOfUs = performance.now();
  private timer: NodeJS.Timeout | null = null;
  private timerDue = 0;
  private applyingSince: number | null = null;
  private pendingTruncate: RecordClass[] = [];

  constructor(options: PipelineOptions) {
    this.options = options;
    this.checkpoint = options.checkpoint;
    this.pastCheckpoint = options.checkpoint.position === null;
  }

  /** Commit time of the oldest transaction that has been received and not yet applied; null when there is none. */
  get pendingSince(): number | null {
    return this.applyingSince ?? this.filling.firstCommitAt ?? (this.inTransaction && this.begun !== null ? this.begun.block.committedAt(this.begun.entry) : null);
  }

  get bufferBytes(): number {
    return this.filling.bytes + this.spare.bytes;
  }

  get current(): Checkpoint {
    return this.checkpoint;
  }

  /** Runs until `stop`, or until the stream's signal aborts; throws what stopped it. */
  async run(): Promise<void> {
    try {
      for await (const block of this.options.stream.blocks()) {
        await this.consume(block);
        if (this.stopping && !this.inTransaction) break;
      }
      await this.drain();
      await this.settle();
    } finally {
      this.ended = true;
      if (this.timer !== null) clearTimeout(this.timer);
      await this.flushing?.catch(() => undefined); // its failure is in this.failure
      await this.transaction?.[Symbol.asyncDispose]();
      this.barrier?.failed(new Error("the pipeline ended before the barrier was reached"));
    }
  }

  /** Ends after the transaction that is being read. */
  stop(): void {
    this.stopping = true;
    if (!this.inTransaction) this.options.abort();
  }

  /**
   * Applies everything up to `position`, and nothing beyond it until the hold is released. Without a position it holds
   * at the next transaction's end: the way to make sure that a later position has not been passed yet.
   */
  holdAt(position: Position | null): Promise<Hold> {
    if (this.ended || this.barrier !== null) return Promise.reject(new Error(this.ended ? "the pipeline has ended" : "another hold is awaited"));
    return new Promise((reached, failed) => (this.barrier = { position, reached, failed }));
  }

  /** What passes by has changed: to be called while the stream is held. */
  relearn(): void {
    this.mappings.length = 0;
  }

  /** Gives up a hold that is still awaited; one that was reached is released by its holder. */
  cancelHold(reason: Error): void {
    const awaited = this.barrier;
    this.barrier = null;
    awaited?.failed(reason);
  }

  private async consume(block: ChangeBlock): Promise<void> {
    const { words, count, buffer } = block;
    for (let entry = 0; entry < count; entry++) {
      const at = entry * ENTRY_WORDS;
      const kind = words[at]!;
      if (kind >= ENTRY.insert && kind <= ENTRY.delete) {
        if (!this.skipping) this.change(kind, words[at + 1]!, buffer, words[at + 2]!, words[at + 3]!);
      } else if (kind === ENTRY.begin) await this.begin(block, entry);
      else if (kind === ENTRY.commit) await this.commit(block, entry);
      else await this.rare(kind, block, entry);
    }
    if (this.failure !== null) throw this.failure;
    if (this.isFull()) await this.makeRoom();
    if (!this.inTransaction && this.isDue()) this.handOver();
    else this.armTimer();
  }

  private change(kind: number, table: number, buffer: Buffer, next: number, previous: number): void {
    const mappings = this.mappings[table] ?? this.learn(table);
    const op = OP_OF_ENTRY[kind]!;
    for (const mapping of mappings) {
      const change = filterChange(mapping, mapping.plan.cls.name, op, buffer, next, previous);
      if (change === null) continue;
      this.filling.add(mapping, change.op, buffer, change.next, change.previous);
      this.rowsOfTransaction += 1;
    }
  }

  private learn(table: number): readonly Mapping[] {
    return (this.mappings[table] = this.options.mappingsOf(this.options.stream.tables[table]!));
  }

  private async begin(block: ChangeBlock, entry: number): Promise<void> {
    failpoint("read.before");
    const { haltBefore } = this.options;
    if (this.barrier !== null || haltBefore !== null || !this.pastCheckpoint) {
      const commitStart = block.position(entry);
      if (!this.pastCheckpoint) this.skipping = this.isBefore(commitStart, this.checkpoint.position!);
      this.pastCheckpoint = !this.skipping;
      if (haltBefore !== null && !this.isBefore(commitStart, haltBefore.position)) await this.halt(haltBefore.change, haltBefore.position);
      await this.holdFrom(commitStart);
    }
    this.passed.add(block.transactionNumber(entry));
    this.inTransaction = true;
    this.rowsOfTransaction = 0;
    this.begun = { block, entry };
  }

  private async commit(block: ChangeBlock, entry: number): Promise<void> {
    this.inTransaction = false;
    this.begun = null;
    if (this.skipping) {
      this.skipping = false;
      return;
    }
    failpoint("read.after");
    const { filling } = this;
    filling.transactions += 1;
    filling.position = block.position(entry);
    filling.lastCommitAt = block.committedAt(entry);
    filling.firstCommitAt ??= filling.lastCommitAt;
    if (this.barrier !== null) await this.holdFrom(filling.position);
    else if (filling.rows >= this.options.batchRows) this.handOver();
  }

  private async rare(kind: number, block: ChangeBlock, entry: number): Promise<void> {
    switch (kind) {
      case ENTRY.idle:
        await this.idle(block.position(entry));
        return;
      case ENTRY.mark:
        this.options.onMark(block.mark(entry));
        return;
      case ENTRY.truncate:
        if (!this.skipping) await this.truncate(block, entry);
        return;
      case ENTRY.schema:
        if (!this.skipping) await this.schemaChange(block.schemaChange(entry));
    }
  }

  private async idle(position: Position): Promise<void> {
    const stored = this.filling.position ?? this.checkpoint.position;
    if (stored === null || this.isBefore(stored, position)) this.filling.position = position;
    await this.holdFrom(position);
  }

  private async schemaChange(change: SchemaChange): Promise<void> {
    const position = this.begun?.block.position(this.begun.entry) ?? this.checkpoint.position!;
    const { acceptedUpTo } = this.options;
    if (this.options.passesBy(change.table)) return;
    if (change.announced === true && acceptedUpTo !== null && this.isBefore(position, acceptedUpTo)) return;
    if (this.inTransaction && this.rowsOfTransaction > 0) throw new SchemaHaltSignal(position, change);
    await this.halt(change, position);
  }

  private async halt(change: SchemaChange, position: Position): Promise<never> {
    await this.drain();
    throw new DualrunError("DR5001", `${tableKey(change.table)} has changed on the source`, { where: `source, transaction at ${position}`, details: change.differences });
  }

  // ------------------------------------------------------------ handing over

  private isFull(): boolean {
    return this.filling.bytes >= this.options.maxBuffer / 2;
  }

  private isDue(): boolean {
    const { filling } = this;
    if (filling.rows > 0) return filling.rows >= this.options.batchRows || performance.now() - filling.openedAt >= this.options.batchDelay;
    if (filling.position === null) return false;
    return filling.transactions > 0 ? performance.now() - this.lastCommitOfUs >= this.options.batchDelay : performance.now() - this.lastCommitOfUs >= IDLE_CHECKPOINT_MS;
  }

  private armTimer(): void {
    if (this.filling.isEmpty) return;
    const delay = this.filling.rows > 0 || this.filling.transactions > 0 ? this.options.batchDelay : IDLE_CHECKPOINT_MS;
    const due = performance.now() + delay;
    if (this.timer !== null && this.timerDue <= due) return;
    if (this.timer !== null) clearTimeout(this.timer);
    this.timerDue = due;
    this.timer = setTimeout(() => {
      this.timer = null;
      if (this.inTransaction) return;
      if (this.isDue()) this.handOver();
      this.armTimer();
    }, delay);
  }

  /** Gives the filled batch to the target, unless the target is still busy: then it grows on. */
  private handOver(): void {
    if (this.flushing !== null || this.failure !== null || this.filling.isEmpty) return;
    const batch = this.filling;
    this.filling = this.spare;
    this.spare = batch;
    this.applyingSince = batch.firstCommitAt;
    const whole = !this.inTransaction;
    this.flushing = (whole ? this.applyWhole(batch) : this.applyPiece(batch))
      .catch((error: unknown) => {
        this.failure ??= error;
        this.options.abort();
      })
      .finally(() => {
        batch.clear();
        this.applyingSince = null;
        this.flushing = null;
        if (!this.inTransaction && this.failure === null && this.isDue()) this.handOver();
      });
  }

  /** Waits until the filling batch may go on: the bound on memory and the source of back pressure. */
  private async makeRoom(): Promise<void> {
    const since = performance.now();
    await this.settle();
    this.options.onBackpressure((performance.now() - since) / 1000);
    this.handOver();
  }

  private async settle(): Promise<void> {
    while (this.flushing !== null) await this.flushing;
    if (this.failure !== null) throw this.failure;
  }

  /** Applies all whole transactions that were received. */
  private async drain(): Promise<void> {
    await this.settle();
    if (this.inTransaction && this.rowsOfTransaction > 0) return;
    const open = this.inTransaction;
    this.inTransaction = false;
    this.handOver();
    this.inTransaction = open;
    await this.settle();
  }

  /** Holds while a barrier stands at or before `position`; one hold can be followed by the next. */
  private async holdFrom(position: Position): Promise<void> {
    while (this.barrier !== null && (this.barrier.position === null || !this.isBefore(position, this.barrier.position))) await this.reach(this.barrier);
  }

  private async reach(barrier: Barrier): Promise<void> {
    this.barrier = null;
    try {
      const stored = this.filling.position ?? this.checkpoint.position;
      if (barrier.position !== null && (stored === null || this.isBefore(stored, barrier.position))) this.filling.position = barrier.position;
      await this.drain();
    } catch (error) {
      barrier.failed(error);
      throw error;
    }
    const { signal } = this.options;
    signal.throwIfAborted();
    await new Promise<void>((release, ended) => {
      signal.addEventListener("abort", () => ended(signal.reason), { once: true });
      barrier.reached({ checkpoint: this.checkpoint, release });
    });
  }

  // ------------------------------------------------------------ writing

  private async applyPiece(batch: Batch): Promise<void> {
    const started = performance.now();
    failpoint("apply.before-write");
    this.transaction ??= await this.options.target.begin(this.options.format);
    const classes = batch.classes();
    const result = await this.transaction.write(classes, this.options.write);
    this.options.ledger.note(classes);
    failpoint("apply.after-write");
    this.pieces.push({
      rows: batch.rows,
      transactions: batch.transactions,
      seconds: (performance.now() - started) / 1000,
      operations: new Map(classes.map(({ cls, changes }) => [cls.name, { ...changes.operations }])),
      result,
    });
  }

  private async applyWhole(batch: Batch): Promise<void> {
    if (batch.rows > 0) await this.applyPiece(batch);
    const started = performance.now();
    this.transaction ??= await this.options.target.begin(this.options.format);
    failpoint("commit.before");
    this.checkpoint = await this.transaction.commit(this.checkpoint, batch.position!, this.options.ledger.take());
    failpoint("commit.after");
    this.transaction = null;
    failpoint("acknowledge.before");
    this.options.stream.acknowledge(batch.position!);
    failpoint("acknowledge.after");
    this.lastCommitOfUs = performance.now();
    this.report(batch, (performance.now() - started) / 1000);
  }

  private report(batch: Batch, commitSeconds: number): void {
    const { pieces, truncated } = this;
    this.pieces = [];
    this.truncated = [];
    this.options.onApplied({
      position: batch.position!,
      transactions: pieces.reduce((sum, piece) => sum + piece.transactions, batch.rows > 0 ? 0 : batch.transactions),
      rows: pieces.reduce((sum, piece) => sum + piece.rows, 0),
      seconds: pieces.reduce((sum, piece) => sum + piece.seconds, commitSeconds),
      firstCommitAt: batch.firstCommitAt,
      lastCommitAt: batch.lastCommitAt,
      operations: sumOperations(pieces),
      truncates: truncated,
      result: {
        conflicts: pieces.flatMap((piece) => piece.result.conflicts),
        ordered: pieces.flatMap((piece) => piece.result.ordered),
      },
    });
  }

  /** Tables of one statement come as consecutive entries and are truncated by one statement. */
  private async truncate(block: ChangeBlock, entry: number): Promise<void> {
    const flags = block.words[entry * ENTRY_WORDS + 2]!;
    const table = block.words[entry * ENTRY_WORDS + 1]!;
    for (const mapping of this.mappings[table] ?? this.learn(table)) this.pendingTruncate.push(mapping.plan.cls);
    if ((flags & 4) !== 0) return;
    const classes = this.pendingTruncate;
    this.pendingTruncate = [];
    if (classes.length === 0) return;
    await this.settle();
    if (this.filling.rows > 0) {
      this.handOver();
      await this.settle();
    }
    this.rowsOfTransaction += classes.length;
    this.transaction ??= await this.options.target.begin(this.options.format);
    await this.transaction.truncate(classes);
    for (const cls of classes) this.options.ledger.noteWhole(cls);
    this.truncated.push(...classes.map((cls) => cls.name));
  }

  private isBefore(a: Position, b: Position): boolean {
    return this.options.positions.relate(a, b) === "before";
  }
}

interface Piece {
  readonly rows: number;
  /** Whole transactions in it. */
  readonly transactions: number;
  readonly seconds: number;
  readonly operations: AppliedBatch["operations"];
  readonly result: WriteResult;
}

function sumOperations(pieces: readonly Piece[]): AppliedBatch["operations"] {
  const sum = new Map<string, { insert: number; update: number; delete: number }>();
  for (const [name, operations] of pieces.flatMap((piece) => [...piece.operations])) {
    const total = sum.get(name) ?? { insert: 0, update: 0, delete: 0 };
    total.insert += operations.insert;
    total.update += operations.update;
    total.delete += operations.delete;
    sum.set(name, total);
  }
  return sum;
}
