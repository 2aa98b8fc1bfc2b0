/** The Prometheus series of a migration, on a registry of their own. Names and help stand in catalogue.ts. */
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";
import type { Conflict, Phase, Side, StatusDocument } from "../core/index.ts";
import { APPLY_ERROR_CODES, CHUNK_STATES, CONFLICT_KINDS, ENTRIES, OPERATIONS, PHASES, SIDES, SLOT_STATES, STATES, type MetricEntry } from "./catalogue.ts";
import { ProofMetrics } from "./proof.ts";

/** What one committed batch did. */
export interface BatchFigures {
  readonly transactions: number;
  readonly rows: number;
  readonly seconds: number;
  readonly operations: ReadonlyMap<string, { readonly insert: number; readonly update: number; readonly delete: number }>;
  /** Classes that were truncated, once per TRUNCATE. */
  readonly truncates: readonly string[];
  readonly result: { readonly conflicts: readonly Pick<Conflict, "className" | "kind">[]; readonly ordered: readonly string[] };
}

export interface MetricsOptions {
  readonly version: string;
  readonly migration: string;
  readonly classes: readonly string[];
  /** safety.slotRetainedBytesMax; absent: not known. */
  readonly retainedBytesMax?: number;
}

export type Metrics = MirrorMetrics;

/** Makes every series of the catalogue: counters at zero, gauges NaN until somebody has looked. */
export function createMetrics(options: MetricsOptions): Metrics {
  return new MirrorMetrics(options);
}

class MirrorMetrics {
  readonly registry = new Registry();
  readonly leader = this.gauge(ENTRIES.leader);
  readonly streamRestarts = this.counter(ENTRIES.streamRestarts);
  readonly applyErrors = this.counter(ENTRIES.applyErrors);
  readonly backpressureSeconds = this.counter(ENTRIES.backpressureSeconds);
  readonly fencingRejections = this.counter(ENTRIES.fencingRejections);
  readonly loopDropped = this.counter(ENTRIES.loopDropped);
  readonly foreignWrites = this.counter(ENTRIES.foreignWrites);
  private readonly info = this.gauge(ENTRIES.info);
  private readonly phase = this.gauge(ENTRIES.phase);
  private readonly lagSeconds = this.gauge(ENTRIES.lagSeconds);
  private readonly lagBytes = this.gauge(ENTRIES.lagBytes);
  private readonly lastEvent = this.gauge(ENTRIES.lastEvent);
  private readonly state = this.gauge(ENTRIES.state);
  private readonly slotState = this.gauge(ENTRIES.slotState);
  private readonly retainedBytesMax = this.gauge(ENTRIES.retainedBytesMax);
  private readonly certificateExpiry = this.gauge(ENTRIES.certificateExpiry);
  private readonly retainedBytes = this.gauge(ENTRIES.retainedBytes);
  private readonly changesApplied = this.counter(ENTRIES.changesApplied);
  private readonly transactionsApplied = this.counter(ENTRIES.transactionsApplied);
  private readonly bytesRead = this.counter(ENTRIES.bytesRead);
  private readonly batchSeconds = this.histogram(ENTRIES.batchSeconds);
  private readonly batchRows = this.histogram(ENTRIES.batchRows);
  private readonly orderedBatches = this.counter(ENTRIES.orderedBatches);
  private readonly conflicts = this.counter(ENTRIES.conflicts);
  private readonly bufferBytes = this.gauge(ENTRIES.bufferBytes);
  private readonly journalBytes = this.gauge(ENTRIES.journalBytes);
  private readonly journalMaxBytes = this.gauge(ENTRIES.journalMaxBytes);
  private readonly journalOldest = this.gauge(ENTRIES.journalOldest);
  private readonly journalWaited = this.counter(ENTRIES.journalWaited);
  private readonly snapshotRows = this.gauge(ENTRIES.snapshotRows);
  private readonly snapshotRowsExpected = this.gauge(ENTRIES.snapshotRowsExpected);
  private readonly snapshotChunks = this.gauge(ENTRIES.snapshotChunks);
  readonly proof = new ProofMetrics({ gauge: (entry) => this.gauge(entry), counter: (entry) => this.counter(entry), histogram: (entry) => this.histogram(entry) });
  private readonly known = new Set<string>();
  private streamBytes = 0;
  private journalWait = 0;

  constructor({ version, migration, classes, retainedBytesMax }: MetricsOptions) {
    this.info.set({ version, migration }, 1);
    for (const phase of PHASES) this.phase.set({ phase }, Number.NaN);
    for (const single of [this.leader, this.lagSeconds, this.lagBytes, this.lastEvent, this.retainedBytes, this.bufferBytes, this.journalBytes, this.journalMaxBytes, this.journalOldest]) single.set(Number.NaN);
    for (const state of STATES) this.state.set({ state }, Number.NaN);
    for (const state of SLOT_STATES) this.slotState.set({ state }, Number.NaN);
    for (const side of SIDES) this.certificateExpiry.set({ side }, Number.NaN);
    this.retainedBytesMax.set(retainedBytesMax ?? Number.NaN);
    for (const code of APPLY_ERROR_CODES) this.applyErrors.inc({ code }, 0);
    for (const name of classes) this.addClass(name);
    collectDefaultMetrics({ register: this.registry });
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  /** The exposition, as Prometheus reads it. */
  async text(): Promise<string> {
    // prom-client writes "Nan", which only lenient readers take for a number.
    return (await this.registry.metrics()).replace(/ Nan$/gm, " NaN");
  }

  /** Makes the series of a class that came later; calling it again does nothing. */
  addClass(name: string): void {
    if (this.known.has(name)) return;
    this.known.add(name);
    this.proof.addClass(name);
    for (const op of OPERATIONS) this.changesApplied.inc({ class: name, op }, 0);
    for (const kind of CONFLICT_KINDS) this.conflicts.inc({ class: name, kind }, 0);
    for (const side of SIDES) this.foreignWrites.inc({ side, class: name }, 0);
    for (const state of CHUNK_STATES) this.snapshotChunks.set({ class: name, state }, Number.NaN);
    this.orderedBatches.inc({ class: name }, 0);
    this.snapshotRows.set({ class: name }, Number.NaN);
    this.snapshotRowsExpected.set({ class: name }, Number.NaN);
  }

  setPhase(phase: Phase): void {
    for (const each of PHASES) this.phase.set({ phase: each }, Number(each === phase));
  }

  /** After a batch was committed on the target. */
  batchApplied({ transactions, rows, seconds, operations, truncates, result }: BatchFigures): void {
    this.transactionsApplied.inc(transactions);
    this.batchSeconds.observe(seconds);
    this.batchRows.observe(rows);
    for (const [name, counts] of operations) {
      this.addClass(name);
      for (const op of ["insert", "update", "delete"] as const) if (counts[op] > 0) this.changesApplied.inc({ class: name, op }, counts[op]);
    }
    for (const name of truncates) this.changesApplied.inc({ class: name, op: "truncate" });
    for (const name of result.ordered) this.orderedBatches.inc({ class: name });
    for (const { className, kind } of result.conflicts) this.conflicts.inc({ class: className, kind });
  }

  /** Takes a stream's own count of bytes; a count that has gone back belongs to a new stream. */
  bytesReadTo(total: number): void {
    this.bytesRead.inc(total >= this.streamBytes ? total - this.streamBytes : total);
    this.streamBytes = total;
  }

  foreignWrite(side: Side, className: string, count = 1): void {
    this.foreignWrites.inc({ side, class: className }, count);
  }

  /** When each side's certificate expires; null: it has none. */
  certificates(expiry: Readonly<Record<Side, Date | null>>): void {
    for (const side of SIDES) this.certificateExpiry.set({ side }, expiry[side] === null ? Number.NaN : expiry[side].getTime() / 1000);
  }

  /** Sets every gauge that the status document carries; what is not measured becomes NaN. */
  observe(status: StatusDocument): void {
    this.setPhase(status.phase);
    for (const state of STATES) this.state.set({ state }, Number(state === status.state));
    for (const state of SLOT_STATES) this.slotState.set({ state }, Number(state === status.slot.state));
    this.lagSeconds.set(status.lagSeconds ?? Number.NaN);
    this.lagBytes.set(status.lagBytes ?? Number.NaN);
    this.lastEvent.set(status.lastEventAt === null ? Number.NaN : Date.parse(status.lastEventAt) / 1000);
    this.retainedBytes.set(status.slot.retainedBytes ?? Number.NaN);
    this.bufferBytes.set(status.bufferBytes);
    this.observeJournal(status.journal);
    for (const cls of status.classes) {
      this.addClass(cls.name);
      if (cls.chunks === 0) continue;
      this.snapshotRows.set({ class: cls.name }, cls.snapshotRows);
      this.snapshotRowsExpected.set({ class: cls.name }, cls.snapshotRowsExpected);
      this.snapshotChunks.set({ class: cls.name, state: "done" }, cls.chunksDone);
      this.snapshotChunks.set({ class: cls.name, state: "open" }, cls.chunks - cls.chunksDone);
    }
  }

  private observeJournal(journal: StatusDocument["journal"]): void {
    this.journalBytes.set(journal?.bytes ?? Number.NaN);
    this.journalMaxBytes.set(journal?.maxBytes ?? Number.NaN);
    this.journalOldest.set(journal?.oldestCommitAt == null ? Number.NaN : Date.parse(journal.oldestCommitAt) / 1000);
    if (journal === null) return;
    this.journalWaited.inc(Math.max(0, journal.waitedSeconds - this.journalWait));
    this.journalWait = journal.waitedSeconds;
  }

  private gauge<E extends MetricEntry>({ name, help, labels }: E): Gauge<E["labels"][number]> {
    return new Gauge({ name, help, labelNames: labels, registers: [this.registry] });
  }

  private counter<E extends MetricEntry>({ name, help, labels }: E): Counter<E["labels"][number]> {
    return new Counter({ name, help, labelNames: labels, registers: [this.registry] });
  }

  private histogram({ name, help, buckets = [] }: MetricEntry): Histogram {
    return new Histogram({ name, help, buckets: [...buckets], registers: [this.registry] });
  }
}
