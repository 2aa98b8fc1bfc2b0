/**
 * One connected life of a mirror, from a source to a target: the copy of what exists, then the change stream,
 * and beside it whatever is still to be copied. Ends by its signal or by the first failure.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import {
  CopyAfresh, DualrunError, NotComparable, tableKey,
  type AgreedClass, type Agreement, type ChangeStream, type Checkpoint, type Chunk, type ChunkMark, type CutMaker, type CutReader, type CutWay, type LeftOut, type Position, type ReadLimits,
  type RecordClass, type Snapshot, type Source, type SourceCut, type StreamTable, type TableName, type Target, type TouchLedger, type ValueFormat,
} from "../core/index.ts";
import { Pipeline, compileMapping, type AppliedBatch, type Hold, type Mapping, type SchemaHalt } from "../pipeline/index.ts";
import { copyChunks, type SnapshotMeter } from "../snapshot/index.ts";
import type { MirrorFigures } from "./figures.ts";

export interface MirrorSettings {
  readonly snapshot: { readonly parallel: number; readonly chunkRows: number; readonly maxRowsPerSecond: number; readonly maxRefusedShare: number; readonly maxAge: number };
  readonly apply: { readonly batchRows: number; readonly batchDelay: number; readonly maxBuffer: number; readonly onConflict: "source-wins" | "halt" };
  readonly truncateTarget: boolean;
}

export interface MirrorEvents {
  phase(phase: "snapshotting" | "dual-run"): Promise<void>;
  streaming(): void;
  applied(batch: AppliedBatch): void;
  backpressure(seconds: number): void;
  bytesRead(total: number): void;
  mark(token: string): void;
  warn(message: string, facts: Readonly<Record<string, unknown>>): void;
}

/** Milliseconds: `hold` for a running writer while the applier waits, `cut` for the stream to come to the moment. */
export interface CutTimeouts {
  readonly hold: number;
  readonly cut: number;
}

/** Both sides at one logical moment. Whoever has it disposes both readers. */
export interface ExactCut {
  readonly position: Position;
  readonly by: CutWay;
  readonly at: Date;
  /** Marks of this generation and before belong to the cut. */
  readonly generation: bigint;
  /** What the readers do not show: it was being written while a plain snapshot was taken. */
  readonly leftOut: LeftOut;
  readonly source: CutReader;
  readonly target: CutReader;
  /** For how long nothing was applied because of the cut. */
  readonly holdMs: number;
  /** How long the stream took from the source's moment to its own place, applying: long behind a huge transaction. */
  readonly waitMs: number;
}

/** Where the change stream comes from: the source itself, or a journal that stands before it. */
export interface StreamOrigin {
  readonly format: ValueFormat;
  /** The stream begins at a checkpoint that was just made, while the copy is still to come. */
  begun(held: Checkpoint): Promise<void>;
  open(after: Position, signal: AbortSignal): Promise<ChangeStream>;
}

export interface SessionOptions {
  readonly source: Source;
  readonly origin: StreamOrigin;
  readonly target: Target;
  readonly agreement: Agreement;
  readonly held: Checkpoint;
  readonly settings: MirrorSettings;
  readonly events: MirrorEvents;
  readonly meter: SnapshotMeter;
  readonly figures: MirrorFigures;
  readonly ledger: TouchLedger;
  readonly haltBefore: SchemaHalt | null;
  readonly signal: AbortSignal;
}

const NOTHING: LeftOut = new Map();
const POLL_MS = 2_000;
/** How long everything may stand still while the source makes a later snapshot: it waits for every transaction that is writing. */
const SNAPSHOT_PATIENCE_MS = 3_000;
/** The catalogue is compared at every so manieth poll. */
const LAYOUT_POLLS = 10;

export class MirrorSession {
  private readonly options: SessionOptions;
  private readonly classes: ReadonlyMap<string, AgreedClass>;
  private readonly abort = new AbortController();
  private readonly signal: AbortSignal;
  /** Classes whose copy is not complete: rows may be missing. */
  private readonly tolerant = new Set<string>();
  /** Classes that must be copied from the beginning. */
  private readonly afresh = new Set<string>();
  private held: Checkpoint;
  private pipeline: Pipeline | null = null;
  private changes: ChangeStream | null = null;
  private failure: unknown = null;
  private stopped = false;
  private holding: Promise<void> = Promise.resolve();

  constructor(options: SessionOptions) {
    this.options = options;
    this.held = options.held;
    this.classes = new Map(options.agreement.classes.map((agreed) => [agreed.cls.name, agreed]));
    this.signal = AbortSignal.any([options.signal, this.abort.signal]);
  }

  /** Seconds that the target is behind the source; null until known. */
  lagSeconds(): number | null {
    return this.options.figures.lagSeconds(this.pipeline?.pendingSince ?? null, (position) => this.hasArrived(position));
  }

  get bufferBytes(): number {
    return this.pipeline?.bufferBytes ?? 0;
  }

  async run(): Promise<void> {
    try {
      if (this.held.position === null) await this.begin();
      if (!this.signal.aborted) await this.stream();
    } catch (error) {
      if (!this.stopped) throw error;
    }
  }

  /** Ends at the next transaction's end. */
  stop(): void {
    this.stopped = true;
    if (this.pipeline === null) this.abort.abort(new Error("stopped"));
    else this.pipeline.stop();
  }

  // ------------------------------------------------------------ the first copy

  private async begin(): Promise<void> {
    const { source, target, settings, agreement } = this.options;
    const classes = this.recordClasses();
    await this.emptyTarget(classes);
    await using snapshot = await source.openSnapshot(classes, "first", settings.snapshot.parallel, this.signal);
    await this.refuseChangedLayouts(agreement);
    const chunks: Chunk[] = [];
    for (const cls of classes) chunks.push(...(await snapshot.plan(cls, settings.snapshot.chunkRows)));
    this.held = await target.startStream(this.held, snapshot.position, await source.identity(), chunks);
    this.options.figures.position = snapshot.position;
    await this.options.origin.begun(this.held);
    await this.options.events.phase("snapshotting");
    await this.copy(snapshot, await target.chunks(this.held.stream), false);
  }

  private async emptyTarget(classes: readonly RecordClass[]): Promise<void> {
    const { target, settings } = this.options;
    const filled = await target.isEmpty(classes);
    if (filled.length === 0) return;
    if (!settings.truncateTarget) {
      throw new DualrunError("DR3002", `${filled.length} target tables hold rows`, { where: "target", details: filled.map((name) => `class ${name}`) });
    }
    await target.truncateAll(classes, this.held);
  }

  private async refuseChangedLayouts(agreement: Agreement): Promise<void> {
    const difference = await this.layoutDifference(agreement);
    if (difference !== null) throw difference;
  }

  /** Copies undone chunks at the snapshot's position; false when the snapshot grew too old before all were done. */
  private async copy(snapshot: Snapshot, marks: readonly ChunkMark[], merge: boolean): Promise<boolean> {
    const { target, settings, meter } = this.options;
    meter.begin(marks);
    meter.opened(snapshot);
    const complete = await copyChunks(marks, {
      snapshot, target, held: this.held, merge, meter, signal: this.signal,
      classes: new Map([...this.classes].map(([name, { cls }]) => [name, cls])),
      formats: new Map([...this.classes].map(([name, { format }]) => [name, format])),
      ...settings.snapshot,
    });
    meter.closed();
    if (!complete) this.options.events.warn("the snapshot has reached its greatest age; the copy goes on in a new one", { openedAt: snapshot.openedAt });
    return complete;
  }

  // ------------------------------------------------------------ the stream

  private async stream(): Promise<void> {
    const { source, origin, target, agreement, settings, events, figures } = this.options;
    const undone = await this.undoneClasses();
    await using stream = await origin.open(this.held.position!, this.signal);
    const pipeline = new Pipeline({
      stream, target,
      format: origin.format,
      positions: source.positions,
      checkpoint: this.held,
      mappingsOf: (table) => this.mappingsOf(table),
      passesBy: (table) => this.passesBy(table),
      ...settings.apply,
      ledger: this.options.ledger,
      write: { onConflict: settings.apply.onConflict, tolerant: this.tolerant },
      acceptedUpTo: agreement.acceptedUpTo ?? null,
      haltBefore: this.options.haltBefore,
      signal: this.signal,
      abort: () => this.abort.abort(new Error("the pipeline has ended")),
      onApplied: (batch) => this.applied(batch),
      onBackpressure: events.backpressure,
      onMark: events.mark,
    });
    this.pipeline = pipeline;
    this.changes = stream;
    figures.position = this.held.position;
    figures.health = null; // what was measured before an interruption says nothing of now
    events.streaming();
    const beside = Promise.all([
      this.failing(undone.size > 0 ? this.finishCopy(pipeline) : events.phase("dual-run")),
      this.failing(this.watch(pipeline, stream)),
    ]);
    try {
      await pipeline.run();
    } catch (error) {
      if (error instanceof CopyAfresh) await this.forgetCopy(error.className, pipeline.current);
      this.failure ??= error;
    } finally {
      this.abort.abort(new Error("the pipeline has ended"));
      await beside;
      this.held = pipeline.current;
      this.pipeline = null;
      this.changes = null;
    }
    if (this.failure !== null) throw this.failure;
  }

  /** The class is emptied and its copy begins again, which the next session does. */
  private async forgetCopy(className: string, held: Checkpoint): Promise<void> {
    const { cls } = this.classes.get(className)!;
    this.options.events.warn("a class is copied from the beginning: a row that had moved while the copy was interrupted is not in the log as a whole", { class: className });
    await this.options.target.resetClass(cls, held, [wholeClass(cls)]);
  }

  /** Work beside the pipeline: its failure ends the session. */
  private async failing(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (this.signal.aborted) return;
      this.failure = error;
      this.abort.abort(error);
    }
  }

  private mappingsOf(table: StreamTable): readonly Mapping[] {
    return this.classesOf(table.table)
      .filter(({ cls }) => !this.afresh.has(cls.name))
      .map(({ cls, whereTypes }) => compileMapping(cls, table, (column) => whereTypes[column] ?? "text"));
  }

  /** A class that is copied from the beginning is emptied then: until that moment its changes mean nothing. */
  private passesBy(table: TableName): boolean {
    const classes = this.classesOf(table);
    return classes.length > 0 && classes.every(({ cls }) => this.afresh.has(cls.name));
  }

  private classesOf(table: TableName): AgreedClass[] {
    return this.options.agreement.classes.filter(({ cls }) => tableKey(cls.source) === tableKey(table));
  }

  private applied(batch: AppliedBatch): void {
    this.options.figures.applied(batch);
    this.options.events.applied(batch);
  }

  // ------------------------------------------------------------ what is still to be copied

  private async undoneClasses(): Promise<ReadonlySet<string>> {
    const marks = await this.options.target.chunks(this.held.stream);
    this.options.meter.begin(marks);
    this.tolerant.clear();
    this.afresh.clear();
    for (const mark of marks) {
      if (mark.done || !this.classes.has(mark.className)) continue;
      this.tolerant.add(mark.className);
      if (!mark.resumable) this.afresh.add(mark.className);
    }
    for (const name of this.tolerant) if (marks.every((mark) => mark.className !== name || !mark.done)) this.afresh.add(name);
    return this.tolerant;
  }

  /**
   * The stream is brought up to a new snapshot's position and held there; what is missing is then exactly what the
   * snapshot shows. Rows that the stream has brought in the meantime are the same rows.
   */
  private async finishCopy(pipeline: Pipeline): Promise<void> {
    await this.options.events.phase("snapshotting");
    while (this.tolerant.size > 0) {
      await this.catchUp(pipeline);
      await this.copyAtNewSnapshot(pipeline);
      if (this.tolerant.size > 0) await sleep(1_000, undefined, { signal: this.signal });
    }
    await this.options.events.phase("dual-run");
  }

  private async copyAtNewSnapshot(pipeline: Pipeline): Promise<void> {
    const { source, target, settings, events } = this.options;
    const ceiling = await this.holdWithMark(pipeline, null);
    const patience = AbortSignal.timeout(SNAPSHOT_PATIENCE_MS);
    let reached: Promise<Hold>;
    let snapshot: Snapshot;
    try {
      snapshot = await source.openSnapshot(this.recordClasses(), "more", settings.snapshot.parallel, AbortSignal.any([this.signal, patience]));
      reached = this.holdWithMark(pipeline, snapshot.position);
    } catch (error) {
      if (!patience.aborted || this.signal.aborted) throw error;
      events.warn("a transaction on the source has been writing for long: the copy waits for its end, the mirror goes on meanwhile", {});
      return;
    } finally {
      ceiling.release();
    }
    await using _ = snapshot;
    const hold = await reached;
    try {
      this.held = hold.checkpoint;
      if (hold.checkpoint.position !== snapshot.position) {
        throw new DualrunError("DR9001", `the stream stands at ${hold.checkpoint.position}, the snapshot at ${snapshot.position}`, { where: "snapshot" });
      }
      await this.refuseChangedLayouts(this.options.agreement);
      for (const name of this.afresh) {
        const { cls } = this.classes.get(name)!;
        await target.resetClass(cls, this.held, await snapshot.plan(cls, settings.snapshot.chunkRows));
      }
      await this.copy(snapshot, await target.chunks(this.held.stream), true);
      await this.undoneClasses();
      pipeline.relearn();
    } finally {
      hold.release();
    }
  }

  /** The barrier is set before the mark is written, so that the stream comes to it however idle the source is. */
  private async holdWithMark(pipeline: Pipeline, position: Position | null): Promise<Hold> {
    const reached = pipeline.holdAt(position);
    reached.catch(() => undefined); // it may fail while the mark is being written; whoever awaits it hears of it
    await this.options.source.mark(`hold ${randomUUID()}`);
    return reached;
  }

  // ------------------------------------------------------------ the exact cut

  /**
   * One logical moment on both sides: the stream is held, the source's moment is taken behind it, the stream goes on to that
   * moment and is held again until the target's snapshot stands. NotComparable, with the stream going on, where that takes too long.
   */
  cut(limits: ReadLimits, timeouts: CutTimeouts): Promise<ExactCut> {
    return this.atCut(limits, timeouts, (cut) => Promise.resolve(cut));
  }

  /** The same, with the stream held until `work` is done: what it writes to the target is as if it stood in the log there. */
  async whileHeldAtCut<T>(limits: ReadLimits, timeouts: CutTimeouts, work: (cut: ExactCut, held: Checkpoint) => Promise<T>): Promise<T> {
    return this.atCut(limits, timeouts, async (cut, held) => {
      try {
        return await work(cut, held);
      } finally {
        await Promise.allSettled([cut.source[Symbol.asyncDispose](), cut.target[Symbol.asyncDispose]()]);
      }
    });
  }

  private async atCut<T>(limits: ReadLimits, timeouts: CutTimeouts, work: (cut: ExactCut, held: Checkpoint) => Promise<T>): Promise<T> {
    const { pipeline } = this;
    if (pipeline === null) throw new NotComparable("the mirror is not streaming");
    if (this.tolerant.size > 0) throw new NotComparable("the copy is not complete");
    return this.oneHoldAtATime(async () => {
      await using stack = new AsyncDisposableStack();
      const maker = stack.use(await this.options.source.prepareCut(limits, pipeline.passed, this.recordClasses().map((cls) => cls.source)));
      const target = await this.options.target.prepareCutReader(limits);
      stack.use(target.reader);
      const result = await this.heldCut(pipeline, maker, target, timeouts, work);
      stack.move();
      return result;
    });
  }

  private async heldCut<T>(
    pipeline: Pipeline, maker: CutMaker, target: { readonly reader: CutReader; snapshot(): Promise<void> }, timeouts: CutTimeouts,
    work: (cut: ExactCut, held: Checkpoint) => Promise<T>,
  ): Promise<T> {
    const ceiling = await this.holdWithin(pipeline, null, timeouts.cut);
    const since = performance.now();
    let taken: SourceCut;
    let reached: Promise<Hold>;
    this.options.ledger.watch();
    try {
      taken = await maker.take(timeouts.hold);
      reached = this.holdWithin(pipeline, taken.position, timeouts.cut);
      reached.catch(() => undefined); // it may fail before it is awaited
    } catch (error) {
      if (error instanceof NotComparable) error.heldMs = performance.now() - since;
      throw error;
    } finally {
      ceiling.release();
    }
    const firstHold = performance.now() - since;
    try {
      const hold = await this.exactly(await reached, taken.position);
      const heldSince = performance.now();
      try {
        await target.snapshot();
        const generation = this.options.ledger.rotate();
        const leftOut = this.leaveOut(taken, target.reader);
        return await work({
          position: taken.position, by: taken.by, at: new Date(), generation, leftOut, source: taken.reader, target: target.reader,
          holdMs: firstHold + performance.now() - heldSince, waitMs: heldSince - since - firstHold,
        }, hold.checkpoint);
      } finally {
        hold.release();
      }
    } catch (error) {
      this.options.ledger.watchedSlices();
      await taken.reader[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Where places in a log are not in one line, the stream may stand beside the source's moment instead of at it. */
  private async exactly(hold: Hold, position: Position): Promise<Hold> {
    if (hold.checkpoint.position !== null && this.options.source.positions.relate(hold.checkpoint.position, position) === "equal") return hold;
    hold.release();
    throw new NotComparable("the log's order and the source's own differ at that moment");
  }

  /** What was written between the ceiling and a plain snapshot's place may be on either side of it: neither reader shows it. */
  private leaveOut(taken: SourceCut, target: CutReader): LeftOut {
    const watched = this.options.ledger.watchedSlices();
    if (taken.by !== "slot-free") return NOTHING;
    taken.reader.leaveOut(watched);
    target.leaveOut(watched);
    return watched;
  }

  /** A hold that is reached too late is released at once. */
  private async holdWithin(pipeline: Pipeline, position: Position | null, timeout: number): Promise<Hold> {
    const held = this.holdWithMark(pipeline, position);
    const expiry = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      const late = new NotComparable(`the mirror did not come to the cut within ${timeout} ms`);
      pipeline.cancelHold(late);
      expiry.reject(late);
    }, timeout);
    try {
      return await Promise.race([held, expiry.promise]);
    } catch (error) {
      held.then((hold) => hold.release(), () => undefined); // its failure is the one that is thrown here, or came after it
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Until the mirror has passed a mark that was set now: the snapshot that follows is then held open as briefly as can be. */
  private async catchUp(pipeline: Pipeline): Promise<void> {
    const { source } = this.options;
    const goal = await source.mark(`catch-up ${randomUUID()}`);
    while (pipeline.current.position === null || source.positions.relate(pipeline.current.position, goal) === "before") {
      await sleep(50, undefined, { signal: this.signal });
    }
  }

  // ------------------------------------------------------------ watching

  private async watch(pipeline: Pipeline, stream: ChangeStream): Promise<void> {
    for (let poll = 0; !this.signal.aborted; poll++) {
      this.options.events.bytesRead(stream.bytesRead());
      await this.watchSource();
      await this.options.source.forgetVisible(pipeline.passed);
      await this.watchFence();
      if (poll % LAYOUT_POLLS === LAYOUT_POLLS - 1) await this.watchLayouts(pipeline);
      await sleep(POLL_MS, undefined, { signal: this.signal }).catch(() => undefined);
    }
  }

  private async watchSource(): Promise<void> {
    const { source, figures } = this.options;
    const health = await source.streamHealth();
    figures.health = health;
    figures.headSeen(health.head, (position) => this.hasArrived(position));
    if (health.state === "lost" || health.state === "missing") throw new DualrunError("DR4004", health.detail, { where: "source" });
  }

  private async watchFence(): Promise<void> {
    const now = await this.options.target.checkpoint(this.held.stream);
    if (now?.epoch !== this.held.epoch) {
      throw new DualrunError("DR4001", `epoch ${this.held.epoch} of stream "${this.held.stream}" is over: another daemon writes to this target`, { where: "target" });
    }
  }

  /** Everything that was written before the change was noticed is applied first; the stream halts by itself where it sees the change. */
  private async watchLayouts(pipeline: Pipeline): Promise<void> {
    if (this.tolerant.size > 0) return; // the copy holds the pipeline itself
    const difference = await this.layoutDifference(this.options.agreement);
    if (difference === null) return;
    await this.oneHoldAtATime(async () => {
      const hold = await this.holdWithMark(pipeline, await this.options.source.head());
      this.failure = difference;
      this.abort.abort(difference);
      hold.release();
    });
  }

  private async oneHoldAtATime<T>(work: () => Promise<T>): Promise<T> {
    const before = this.holding;
    const mine = Promise.withResolvers<void>();
    this.holding = mine.promise;
    await before;
    try {
      return await work();
    } finally {
      mine.resolve();
    }
  }

  private async layoutDifference(agreement: Agreement): Promise<DualrunError | null> {
    const { source } = this.options;
    const found = await source.layouts(this.recordClasses().map((cls) => cls.source));
    const details = [...agreement.layouts].flatMap(([table, agreed]) => {
      const present = found.get(table);
      const differences = present === undefined ? ["the table is gone"] : source.layoutDifferences(agreed, present);
      if (present?.streamed === false) differences.push("its changes are no longer in the stream");
      return differences.map((difference) => `${table}: ${difference}`);
    });
    return details.length === 0 ? null : new DualrunError("DR5001", "a mapped table has changed on the source", { where: "source", details });
  }

  private hasArrived(position: Position): boolean {
    return this.changes !== null && this.options.source.positions.relate(this.changes.head(), position) !== "before";
  }

  private recordClasses(): RecordClass[] {
    return [...this.classes.values()].map(({ cls }) => cls);
  }
}

/** A copy that has not begun: what it consists of is decided when its snapshot is open. */
export function wholeClass(cls: RecordClass): Chunk {
  return { className: cls.name, ordinal: 0, lower: null, upper: null, resumable: cls.key.length > 0, estimatedRows: 0, estimatedBytes: 0 };
}
