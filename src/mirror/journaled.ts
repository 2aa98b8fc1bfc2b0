/**
 * The change stream by way of a journal: what the source sends is made durable and acknowledged, and the pipeline reads it from there.
 *
 * It stands in this room, and not in the pipeline's, because it is about connections that come and go: the feed outlives sessions,
 * so that the source is relieved while the target is down, the mirror paused or halted.
 */
import { setTimeout as sleep } from "node:timers/promises";
import {
  DualrunError, failpoint, isDualrunError, lastEndOf,
  type Agreement, type ChangeBlock, type ChangeStream, type Checkpoint, type Journal, type Position, type Source, type StreamTable,
} from "../core/index.ts";

/** Bytes that may be received and not yet durable. */
const WINDOW_BYTES = 8 << 20;
const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 30_000;
/** Values that wait in a journal must outlive a change of their types: every engine reads text. */
export const JOURNAL_FORMAT = "text";

export interface FeedOptions {
  readonly journal: Journal;
  /** The feed has a connection of its own: the mirror's goes with the target's. */
  readonly connect: () => Promise<Source>;
  /** The same work can succeed later. */
  readonly isTransient: (error: unknown) => boolean;
  readonly warn: (message: string, facts: Readonly<Record<string, unknown>>) => void;
}

interface Run {
  readonly agreement: Agreement;
  /** Whose checkpoint it began with, and the source's identity then. */
  readonly held: Checkpoint;
  readonly abort: AbortController;
  /** Aborts with what ended the feed for good. */
  readonly broken: AbortController;
  ended: Promise<void>;
}

export class JournalFeed implements AsyncDisposable {
  readonly journal: Journal;
  private readonly options: FeedOptions;
  private run: Run | null = null;
  private stream: ChangeStream | null = null;
  private bytesBefore = 0;

  constructor(options: FeedOptions) {
    this.options = options;
    this.journal = options.journal;
  }

  /**
   * Makes sure that journal and source together go on from a checkpoint, and lets the feed run. Returns the source's identity.
   * DR5102: the source has forgotten what the journal does not hold; DR4002: the target has gone back behind both; and what `resumeCheck` throws.
   */
  async resume(source: Source, held: Checkpoint, agreement: Agreement): Promise<string> {
    const joins = this.joins(source, held.position!);
    if (joins && (await this.isRunningFor(source, agreement))) return this.run!.held.sourceIdentity!;
    await this.stop();
    const identity = joins ? await this.checkBehindJournal(source, held) : await this.beginAnew(source, held);
    this.start({ ...held, sourceIdentity: identity }, agreement);
    return identity;
  }

  /** What the pipeline reads: whole transactions behind `after`. */
  open(after: Position, signal: AbortSignal): ChangeStream {
    if (this.run === null) throw new Error("the feed does not run");
    return new JournaledStream(this, after, signal, this.run.broken.signal);
  }

  /** What the source has told of, as far as the feed hears from it. */
  head(): Position | null {
    return this.stream?.head() ?? null;
  }

  bytesRead(): number {
    return this.bytesBefore + (this.stream?.bytesRead() ?? 0);
  }

  /** Ends the feed for good: whoever reads from it hears of it. */
  break(error: unknown): void {
    this.run?.broken.abort(error);
    this.run?.abort.abort(error);
  }

  async stop(): Promise<void> {
    const { run } = this;
    this.run = null;
    run?.abort.abort(new Error("the feed was stopped"));
    await run?.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  // ------------------------------------------------------------ may we go on?

  private joins({ positions }: Source, checkpoint: Position): boolean {
    const [start, durable] = [this.journal.start(), this.journal.durable()];
    const isUpTo = (a: Position, b: Position): boolean => ["before", "equal"].includes(positions.relate(a, b));
    return start !== null && durable !== null && isUpTo(start, checkpoint) && isUpTo(checkpoint, durable);
  }

  private async isRunningFor(source: Source, agreement: Agreement): Promise<boolean> {
    const { run } = this;
    if (run === null || run.abort.signal.aborted || run.agreement !== agreement) return false;
    return (await source.identity()) === run.held.sourceIdentity;
  }

  private async checkBehindJournal(source: Source, held: Checkpoint): Promise<string> {
    const durable = this.journal.durable()!;
    try {
      return await source.resumeCheck({ ...held, position: durable });
    } catch (error) {
      throw hasForgotten(error) ? this.lost(`the journal ends at ${durable}, but the source was told to forget more`, error) : error;
    }
  }

  /** Where the source still has everything behind the checkpoint, a journal that does not join it is not needed. */
  private async beginAnew(source: Source, held: Checkpoint): Promise<string> {
    const { journal } = this;
    const [start, durable, position] = [journal.start(), journal.durable(), held.position!];
    let identity: string;
    try {
      identity = await source.resumeCheck(held);
    } catch (error) {
      if (!hasForgotten(error)) throw error;
      if (start === null) throw this.lost(`the journal is empty, but the source was told to forget more than the target has, which stands at ${position}`, error);
      if (source.positions.relate(durable!, position) === "before") throw this.lost(`the journal ends at ${durable}, the target stands at ${position}, and the source was told to forget more`, error);
      throw new DualrunError("DR4002", `the target stands at ${position}, but the journal begins at ${start} only, and the source was told to forget what is before it`, { where: "target", cause: error });
    }
    if (start !== null) this.options.warn("the journal does not join the target's checkpoint: it is emptied and filled again from the source", { first: start, last: durable, checkpoint: position });
    await journal.begin(position);
    return identity;
  }

  private lost(what: string, cause: unknown): DualrunError {
    return new DualrunError("DR5102", what, { where: "journal", cause });
  }

  // ------------------------------------------------------------ from source to journal

  private start(held: Checkpoint, agreement: Agreement): void {
    const run: Run = { agreement, held, abort: new AbortController(), broken: new AbortController(), ended: Promise.resolve() };
    this.run = run;
    run.ended = this.keepGoing(run);
  }

  private async keepGoing(run: Run): Promise<void> {
    const { signal } = run.abort;
    for (let wait = RETRY_FIRST_MS; !signal.aborted; wait = Math.min(2 * wait, RETRY_MOST_MS)) {
      const since = performance.now();
      try {
        await this.connected(run);
      } catch (error) {
        if (signal.aborted) return;
        if (!this.options.isTransient(error)) {
          run.broken.abort(error);
          run.abort.abort(error);
          return;
        }
        if (performance.now() - since > RETRY_MOST_MS) wait = RETRY_FIRST_MS;
        this.options.warn("the journal is cut off from the source; it will be tried again", { err: error instanceof Error ? error.message : String(error), waitMs: wait });
        await sleep(wait, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  /** One connection to the source. */
  private async connected(run: Run): Promise<void> {
    await using source = await this.options.connect();
    const identity = await this.checkBehindJournal(source, run.held);
    if (identity !== run.held.sourceIdentity) throw new DualrunError("DR2001", `the source is now ${identity}: waiting for the mirror to follow it`, { where: "source" });
    await this.journal.cutOff();
    const failed = new AbortController();
    const signal = AbortSignal.any([run.abort.signal, failed.signal]);
    await using stream = await source.openStream(this.journal.durable()!, JOURNAL_FORMAT, run.agreement.layouts, signal);
    this.stream = stream;
    try {
      await this.pump(stream, signal, failed);
    } finally {
      this.stream = null;
      this.bytesBefore += stream.bytesRead();
    }
    failed.signal.throwIfAborted();
  }

  private async pump(stream: ChangeStream, signal: AbortSignal, failed: AbortController): Promise<void> {
    let unwritten = 0;
    let wake = (): void => undefined;
    signal.addEventListener("abort", () => wake(), { once: true });
    for await (const block of stream.blocks()) {
      const { length } = block.buffer;
      unwritten += length;
      this.journal.append(block, stream.tables).then(() => {
        unwritten -= length;
        if (!signal.aborted) this.acknowledge(stream);
        wake();
      }, (error: unknown) => failed.abort(error));
      while (unwritten > WINDOW_BYTES && !signal.aborted) await new Promise<void>((resolve) => (wake = resolve));
    }
  }

  private acknowledge(stream: ChangeStream): void {
    failpoint("journal.before-acknowledge");
    stream.acknowledge(this.journal.durable()!);
    failpoint("journal.after-acknowledge");
  }
}

/** Ends on abort; throws what ended the feed for good. */
class JournaledStream implements ChangeStream {
  private readonly feed: JournalFeed;
  private readonly after: Position;
  private readonly signal: AbortSignal;
  private readonly broken: AbortSignal;
  private passed: { readonly block: ChangeBlock; readonly entry: number } | null = null;

  constructor(feed: JournalFeed, after: Position, signal: AbortSignal, broken: AbortSignal) {
    this.feed = feed;
    this.after = after;
    this.signal = signal;
    this.broken = broken;
  }

  get tables(): readonly StreamTable[] {
    return this.feed.journal.tables;
  }

  async *blocks(): AsyncGenerator<ChangeBlock, void, undefined> {
    for await (const block of this.feed.journal.read(this.after, AbortSignal.any([this.signal, this.broken]))) {
      const entry = lastEndOf(block);
      if (entry >= 0) this.passed = { block, entry };
      yield block;
    }
    if (!this.signal.aborted) throw this.broken.reason;
  }

  acknowledge(durable: Position): void {
    this.feed.journal.trim(durable).catch((error: unknown) => this.feed.break(error));
  }

  /** What is still to be read has not arrived, however long the journal has had it. */
  head(): Position {
    const passed = this.passed === null ? this.after : this.passed.block.position(this.passed.entry);
    return passed === this.feed.journal.durable() ? (this.feed.head() ?? passed) : passed;
  }

  bytesRead(): number {
    return this.feed.bytesRead();
  }

  /** The feed goes on. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.resolve();
  }
}

const hasForgotten = (error: unknown): boolean => isDualrunError(error) && error.code === "DR4002";
