/** The composition root: puts engines, mirror, state and faces together and keeps the mirror going. */
import { setTimeout as sleep } from "node:timers/promises";
import { engineOf, openJournal } from "../connectors/registry.ts";
import { Verifier, type ComparisonMemory, type VerifierOptions } from "./compare/index.ts";
import { inertSections, type Config } from "./config/index.ts";
import {
  CopyAfresh, DualrunError, NotComparable, TouchLedger, asDualrunError, findTable, isDualrunError, streamFormat, tableKey,
  type AgreedClass, type Agreement, type AuditEntry, type AuditVerification, type Checkpoint, type ComparedClass, type ComparisonDocument, type DaemonControl, type DaemonState, type Engine, type HaltDocument, type Journal,
  type Phase, type RecordClass, type Source, type StatusDocument, type Target, type ValueFormat,
} from "./core/index.ts";
import { startHttp } from "./http/index.ts";
import { JOURNAL_FORMAT, JournalFeed, JournalWatch, MirrorFigures, MirrorSession, SlotWatch, wholeClass, type MirrorEvents, type StreamOrigin } from "./mirror/index.ts";
import { SchemaHaltSignal, type AppliedBatch, type SchemaHalt } from "./pipeline/index.ts";
import { agree } from "./plan/index.ts";
import { FinanceDesk } from "./report/index.ts";
import { SnapshotMeter } from "./snapshot/index.ts";
import { Agreements, AuditTrail, Breaks, Comparisons, Conflicts, Proofs, STATE_MIGRATIONS, Settings, TouchMarks } from "./state/index.ts";
import { createLogger, createMetrics, type Logger, type Metrics } from "./telemetry/index.ts";
import { VERSION } from "./version.ts";

export interface DaemonOptions {
  readonly truncateTarget: boolean;
  readonly logger?: Logger;
}

export interface RunningDaemon {
  readonly control: DaemonControl;
  readonly addresses: { readonly http: string };
  /** Settles when the daemon has ended: null after `stop`, else why. */
  readonly finished: Promise<DualrunError | null>;
  stop(): Promise<void>;
  /** Waits until everything that was committed on the source before the call stands on the target. */
  drain(signal?: AbortSignal): Promise<void>;
}

const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 30_000;
const STOP_GRACE_MS = 10_000;
const TICK_MS = 500;

/** Connects, checks, takes the fence and starts mirroring. Throws what makes a start impossible; later faults halt or are retried. */
export async function startDaemon(config: Config, options: DaemonOptions): Promise<RunningDaemon> {
  const logger = options.logger ?? createLogger({ level: config.log.level, pretty: process.stdout.isTTY });
  for (const line of inertSections(config)) logger.warn(line);
  const daemon = new Daemon(config, options, logger);
  await daemon.start();
  return daemon;
}

/** One set of connections and what was read through them. */
interface Connected extends AsyncDisposable {
  readonly source: Source;
  readonly target: Target;
}

async function connectBoth(engines: { source: Engine; target: Engine }, config: Config): Promise<Connected> {
  const source = await engines.source.connectSource(config.source, config.migration, config.source.readReplica);
  try {
    const target = await engines.target.connectTarget(config.target, config.migration);
    return {
      source,
      target,
      async [Symbol.asyncDispose]() {
        await Promise.allSettled([source[Symbol.asyncDispose](), target[Symbol.asyncDispose]()]);
      },
    };
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw error;
  }
}

class Daemon implements RunningDaemon, DaemonControl {
  readonly control: DaemonControl = this;
  readonly finished: Promise<DualrunError | null>;
  private readonly config: Config;
  private readonly logger: Logger;
  private readonly engines: { readonly source: Engine; readonly target: Engine };
  private readonly figures = new MirrorFigures();
  private readonly meter = new SnapshotMeter();
  private readonly slotWatch: SlotWatch;
  private readonly journalWatch = new JournalWatch();
  private journal: Journal | null = null;
  private feed: JournalFeed | null = null;
  private readonly startedAt = new Date();
  readonly proof: Verifier;
  readonly finance: FinanceDesk;
  private metrics!: Metrics;
  private http: { readonly address: string; close(): Promise<void> } | null = null;
  private settle!: (error: DualrunError | null) => void;
  private connected: Connected | null = null;
  private session: MirrorSession | null = null;
  private agreement: Agreement | null = null;
  private newTables: readonly string[] = [];
  private warnings: readonly string[] = [];
  private held: Checkpoint | null = null;
  private phaseNow: Phase = "planned";
  private state: DaemonState = "starting";
  private haltNow: HaltDocument | null = null;
  private restarts = 0;
  private haltBefore: SchemaHalt | null = null;
  private paused = false;
  private stopping = false;
  private truncateTarget: boolean;
  private readonly hardStop = new AbortController();
  private loop: Promise<void> = Promise.resolve();
  private ticker: NodeJS.Timeout | null = null;
  /** Wakes the loop out of a pause, a halt or a wait. */
  private wake: () => void = () => undefined;

  constructor(config: Config, options: DaemonOptions, logger: Logger) {
    this.config = config;
    this.truncateTarget = options.truncateTarget;
    this.logger = logger;
    this.engines = { source: engineOf(config.source.engine, "source"), target: engineOf(config.target.engine, "target") };
    this.finished = new Promise((resolve) => (this.settle = resolve));
    this.slotWatch = new SlotWatch(config.safety);
    this.proof = new Verifier({
      settings: { ...config.comparison, timeZone: config.timeZone },
      connect: () => this.comparable(),
      memory: () => this.proofMemory(),
      audit: async (who, what, note) => void (await this.audit_(this.need().target).append(who, what, note)),
      onCut: (cut) => this.logger.debug({ position: cut.position, holdMs: cut.holdMs, waitMs: cut.waitMs, by: cut.by }, "exact cut"),
      onFinished: (document) => this.compared(document),
      onFailure: (error) => this.logger.warn({ err: asDualrunError(error).message }, "a comparison could not be made; the mirror goes on"),
      isTransient: (error) => this.isTransient(error),
    });
    this.finance = new FinanceDesk({
      migration: config.migration, program: VERSION, zone: config.timeZone, bank: config.bank,
      sql: () => this.need().target.sql,
      agreement: () => this.agreement!,
      lagSeconds: () => this.status().lagSeconds,
      audit: (who, what, note) => this.audit_(this.need().target).append(who, what, note),
      changed: (streak, signature) => this.metrics.proof.signatures(streak, signature),
    });
  }

  get addresses(): { readonly http: string } {
    return { http: this.http?.address ?? "" };
  }

  async start(): Promise<void> {
    this.connected = await connectBoth(this.engines, this.config);
    try {
      await this.prepare(this.connected);
      this.http = await startHttp({
        listen: `${bracketed(this.config.http.listen.host)}:${this.config.http.listen.port}`,
        control: this, metrics: this.metrics, logger: this.logger, version: VERSION, ready: () => this.ready(), tokens: this.config.http.tokens,
      });
    } catch (error) {
      await this.closeJournal();
      await this.disconnect();
      throw error;
    }
    this.ticker = setInterval(() => this.tick(), TICK_MS);
    this.loop = this.keepGoing();
  }

  async stop(): Promise<void> {
    if (!this.stopping) {
      this.stopping = true;
      this.session?.stop();
      this.wake();
      const grace = setTimeout(() => this.hardStop.abort(new Error("stopped")), STOP_GRACE_MS);
      await this.loop;
      clearTimeout(grace);
    }
    await this.finished;
  }

  async drain(signal?: AbortSignal): Promise<void> {
    const { source } = this.need();
    const goal = await source.mark(`drain ${process.pid}`);
    while (this.figures.position === null || source.positions.relate(this.figures.position, goal) === "before") {
      if (this.haltNow !== null && this.state === "halted") throw new DualrunError(this.haltNow.code, this.haltNow.what, { details: this.haltNow.details });
      await sleep(20, undefined, signal === undefined ? {} : { signal });
    }
  }

  // ------------------------------------------------------------ starting

  private async prepare({ source, target }: Connected): Promise<void> {
    await target.prepareState(STATE_MIGRATIONS);
    const stream = this.config.migration;
    const { agreements, settings } = this.memory(target);
    const known = await agreements.current();
    const before = await target.checkpoint(stream);
    const begun = before?.position == null ? null : known;
    const proposal = await agree(this.config, source, target, { refuse: begun === null });
    this.warnings = proposal.warnings;
    for (const warning of proposal.warnings) this.logger.warn(warning);
    this.agreement = begun ?? proposal.agreement;
    this.newTables = unmirrored(proposal.agreement, this.agreement);
    this.metrics = createMetrics({ version: VERSION, migration: stream, classes: this.agreement.classes.map(({ cls }) => cls.name), retainedBytesMax: this.config.safety.slotRetainedBytesMax });
    this.metrics.proof.schedule(this.config.comparison);
    await this.lookAtCertificates({ source, target });
    this.held = await target.takeOver(stream);
    if (begun === null) await agreements.save(this.agreement);
    await this.openJournal({ source, target });
    this.phaseNow = await settings.phase();
    this.paused = await settings.paused();
    this.metrics.leader.set(1);
    this.setPhase(this.phaseNow);
    await this.proof.recall();
    await this.finance.tell();
    await this.audit_(target).append("daemon", `started, epoch ${this.held.epoch}`, null);
  }

  private async openJournal({ source, target }: Pick<Connected, "source" | "target">): Promise<void> {
    if (this.config.journal.kind === "none") return;
    const owner = `${this.config.migration} ${await this.memory(target).settings.makeJournalToken()}`;
    this.journal = await openJournal(this.config.journal, owner, source.positions);
    if (this.journal === null) return;
    this.feed = new JournalFeed({
      journal: this.journal,
      connect: () => this.engines.source.connectSource(this.config.source, this.config.migration, null),
      isTransient: (error) => this.isTransient(error),
      warn: (message, facts) => this.logger.warn(facts, message),
    });
  }

  private async closeJournal(): Promise<void> {
    await this.feed?.stop();
    await this.journal?.[Symbol.asyncDispose]();
    this.feed = null;
    this.journal = null;
  }

  private streamFormat(): ValueFormat {
    return this.config.journal.kind === "none" ? streamFormat(this.agreement!) : JOURNAL_FORMAT;
  }

  /** The stream comes from the source itself, or by way of the journal. */
  private origin(source: Source): StreamOrigin {
    const { feed } = this;
    const agreement = this.agreement!;
    const format = this.streamFormat();
    if (feed === null) return { format, begun: () => Promise.resolve(), open: (after, signal) => source.openStream(after, format, agreement.layouts, signal) };
    return { format, begun: async (held) => void (await feed.resume(source, held, agreement)), open: (after, signal) => Promise.resolve(feed.open(after, signal)) };
  }

  private memory(target: Target): { settings: Settings; agreements: Agreements; conflicts: Conflicts } {
    const stream = this.config.migration;
    return { settings: new Settings(target.sql, stream), agreements: new Agreements(target.sql, stream), conflicts: new Conflicts(target.sql, stream) };
  }

  private audit_(target: Target): AuditTrail {
    return new AuditTrail(target.sql, this.config.migration);
  }

  private need(): Connected {
    if (this.connected === null) throw new DualrunError("DR2001", "the databases are out of reach at the moment", { next: "See `dualrun status`." });
    return this.connected;
  }

  // ------------------------------------------------------------ keeping going

  private async keepGoing(): Promise<void> {
    let end: DualrunError | null = null;
    let wait = RETRY_FIRST_MS;
    while (!this.stopping) {
      if (this.paused) {
        await this.rest("paused");
        continue;
      }
      const started = performance.now();
      try {
        await this.runSession();
        this.haltNow = null;
      } catch (error) {
        if (this.stopping) break;
        if (performance.now() - started > RETRY_MOST_MS) wait = RETRY_FIRST_MS;
        const fatal = await this.afterFailure(error, wait);
        wait = Math.min(wait * 2, RETRY_MOST_MS);
        if (fatal !== null) {
          end = fatal;
          break;
        }
      }
    }
    await this.shutDown(end);
  }

  /** Connects where needed, and mirrors until something ends it. */
  private async runSession(): Promise<void> {
    const connected = (this.connected ??= await connectBoth(this.engines, this.config));
    const { source, target } = connected;
    const held = await this.currentCheckpoint(target);
    if (held.position !== null) await this.checkSource(source, target, held);
    this.session = new MirrorSession({
      source, target, origin: this.origin(source), agreement: this.agreement!, held: this.held!,
      settings: { snapshot: this.config.snapshot, apply: this.config.apply, truncateTarget: this.truncateTarget },
      events: this.events(target), meter: this.meter, figures: this.figures, ledger: await this.newLedger(target), haltBefore: this.haltBefore, signal: this.hardStop.signal,
    });
    try {
      await this.session.run();
    } finally {
      this.session = null;
    }
  }

  private async currentCheckpoint(target: Target): Promise<Checkpoint> {
    const now = await target.checkpoint(this.config.migration);
    if (now === null || now.epoch < this.held!.epoch) {
      throw new DualrunError("DR4002", "the target's checkpoint is older than this daemon's own", { where: "target" });
    }
    if (now.epoch !== this.held!.epoch) {
      throw new DualrunError("DR4001", `epoch ${this.held!.epoch} is over: another daemon writes to this target`, { where: "target" });
    }
    return (this.held = now);
  }

  private async checkSource(source: Source, target: Target, held: Checkpoint): Promise<void> {
    const identity = this.feed === null ? await this.checkWithoutJournal(source, target, held) : await this.feed.resume(source, held, this.agreement!);
    if (identity === held.sourceIdentity) return;
    this.held = await target.rebindSource(held, identity);
    await this.audit_(target).append("daemon", `the source is now ${identity}, before ${held.sourceIdentity}`, null);
    this.logger.warn({ before: held.sourceIdentity, now: identity }, "the source has been promoted; its slot was synchronised and the checkpoint lies before the switch");
  }

  /** A journal that was configured before may hold what the source was told to forget. */
  private async checkWithoutJournal(source: Source, target: Target, held: Checkpoint): Promise<string> {
    try {
      return await source.resumeCheck(held);
    } catch (error) {
      if (!isDualrunError(error) || error.code !== "DR4002" || (await this.memory(target).settings.journalToken()) === null) throw error;
      throw new DualrunError("DR5102", "the source has forgotten what was kept in a journal, and the configuration has none", {
        where: "journal.kind", details: [error.message], cause: error,
        next: "Configure the journal again; it can be left out when `dualrun status` shows no lag and the mirror was stopped then.",
      });
    }
  }

  /** Decides between once more, a halt and the end; returns the error to end with. */
  private async afterFailure(error: unknown, wait: number): Promise<DualrunError | null> {
    if (error instanceof CopyAfresh) return null;
    if (error instanceof SchemaHaltSignal) {
      this.haltBefore = error;
      return null;
    }
    await this.disconnect();
    const known = asDualrunError(error);
    this.metrics.applyErrors.inc({ code: known.code });
    if (known.code === "DR4001") {
      this.metrics.leader.set(0);
      this.metrics.fencingRejections.inc();
      this.setHalt(known, "fenced");
      return known;
    }
    if (this.isTransient(error)) {
      this.restarts += 1;
      this.metrics.streamRestarts.inc();
      const shown = isDualrunError(error) ? error : new DualrunError("DR5008", known.message);
      this.setHalt(shown, "retrying");
      this.logger.warn({ code: shown.code, err: shown.message, waitMs: wait }, "mirroring was interrupted and will be tried again");
      await this.waitFor(wait);
      return null;
    }
    this.setHalt(known, "halted");
    this.logger.error({ code: known.code, where: known.where, details: known.details, next: known.next }, known.message);
    await this.rest("halted");
    return null;
  }

  private isTransient(error: unknown): boolean {
    if (isDualrunError(error)) return error.code === "DR2001" || error.code === "DR5008";
    return this.engines.source.isTransient(error) || this.engines.target.isTransient(error);
  }

  /** Until the operator says `resume`, or the daemon stops. */
  private async rest(state: "paused" | "halted"): Promise<void> {
    this.state = state;
    await new Promise<void>((resolve) => (this.wake = resolve));
    if (!this.paused) this.state = "starting";
  }

  private async waitFor(ms: number): Promise<void> {
    const timer = setTimeout(() => this.wake(), ms);
    await new Promise<void>((resolve) => (this.wake = resolve));
    clearTimeout(timer);
  }

  private async disconnect(): Promise<void> {
    const connected = this.connected;
    this.connected = null;
    await connected?.[Symbol.asyncDispose]();
  }

  private async shutDown(end: DualrunError | null): Promise<void> {
    this.proof.stop();
    if (this.ticker !== null) clearInterval(this.ticker);
    if (this.state !== "fenced") this.state = "stopped";
    await this.closeJournal();
    await this.disconnect();
    await this.http?.close();
    this.settle(end);
  }

  // ------------------------------------------------------------ what the mirror tells

  private events(target: Target): MirrorEvents {
    const { settings, conflicts } = this.memory(target);
    return {
      phase: async (phase) => {
        this.state = phase === "snapshotting" ? "snapshotting" : "streaming";
        if (phase === "dual-run") this.proof.start();
        if (this.phaseNow === phase) return;
        await settings.setPhase(phase);
        await this.audit_(target).append("daemon", `phase ${this.phaseNow} → ${phase}`, null);
        this.setPhase(phase);
        this.logger.info({ phase }, "phase");
        this.truncateTarget = false;
      },
      streaming: () => {
        this.state = "streaming";
        this.haltNow = null;
      },
      applied: (batch) => {
        this.metrics.batchApplied(batch);
        if (batch.result.conflicts.length > 0) this.recordConflicts(conflicts, batch);
      },
      backpressure: (seconds) => this.metrics.backpressureSeconds.inc(seconds),
      bytesRead: (total) => {
        this.figures.bytesRead = total;
        this.metrics.bytesReadTo(total);
      },
      mark: (token) => this.logger.debug({ token }, "marker"),
      warn: (message, facts) => this.logger.warn(facts, message),
    };
  }

  private recordConflicts(conflicts: Conflicts, batch: AppliedBatch): void {
    this.logger.warn({ conflicts: batch.result.conflicts.slice(0, 20), count: batch.result.conflicts.length }, "the target's rows were not what the log says; the source's truth was applied");
    conflicts.record(batch.result.conflicts, batch.position)
      .then(() => this.proof.conflictsSeen(batch.result.conflicts))
      .catch((error: unknown) => this.logger.error({ err: error }, "conflicts could not be recorded"));
  }

  // ------------------------------------------------------------ the proof

  private async newLedger(target: Target): Promise<TouchLedger> {
    const kinds = new Map((await this.comparedClasses(this.connected!)).map((compared) => [compared.cls.name, target.sliceKind(compared)]));
    return new TouchLedger(kinds, this.streamFormat(), await new TouchMarks(target.sql, this.config.migration).nextGeneration());
  }

  private async comparable(): ReturnType<VerifierOptions["connect"]> {
    const connected = this.need();
    const session = (): MirrorSession => {
      if (this.session === null) throw new NotComparable(`the mirror is ${this.state}`);
      return this.session;
    };
    return {
      ...connected,
      classes: await this.comparedClasses(connected),
      cut: async (limits, timeouts) => session().cut(limits, timeouts),
      whileHeldAtCut: async (limits, timeouts, work) => session().whileHeldAtCut(limits, timeouts, work),
      maskKey: () => this.memory(connected.target).settings.maskKey(),
    };
  }

  private proofMemory(): ComparisonMemory {
    const { sql } = this.need().target;
    const stream = this.config.migration;
    return { marks: new TouchMarks(sql, stream), proofs: new Proofs(sql, stream), comparisons: new Comparisons(sql, stream), breaks: new Breaks(sql, stream) };
  }

  private async comparedClasses({ source, target }: Connected): Promise<ComparedClass[]> {
    const [sourceFacts, targetFacts] = await Promise.all([source.inspect(), target.inspect()]);
    return this.agreement!.classes.map(({ cls }) => {
      const [from, to] = [findTable(sourceFacts, cls.source), findTable(targetFacts, cls.target)];
      if (from === undefined || to === undefined) throw new DualrunError("DR5001", `a table of class ${cls.name} is gone`, { where: from === undefined ? "source" : "target" });
      return { cls, source: from, target: to, across: sourceFacts.server.engine !== targetFacts.server.engine };
    });
  }

  private async compared(document: ComparisonDocument): Promise<void> {
    this.metrics.proof.compared(document);
    if (document.kind === "daily") {
      await this.finance.prepareDaily();
      await this.lookAtCertificates(this.need());
    }
    const facts = { id: document.id, kind: document.kind, position: document.position, holdMs: document.holdMs, seconds: document.seconds };
    const bad = document.classes.filter(({ verdict }) => verdict !== "in_sync").map(({ class: name, verdict, note }) => ({ class: name, verdict, note }));
    if (bad.length === 0) this.logger.info(facts, "source and target are in sync");
    else this.logger.warn({ ...facts, classes: bad }, `comparison: ${document.verdict}`);
  }

  private async lookAtCertificates({ source, target }: Pick<Connected, "source" | "target">): Promise<void> {
    this.metrics.certificates({ source: await source.certificateExpiry(), target: await target.certificateExpiry() });
  }

  private setPhase(phase: Phase): void {
    this.phaseNow = phase;
    this.metrics.setPhase(phase);
  }

  private setHalt(error: DualrunError, state: DaemonState): void {
    this.state = state;
    this.haltNow = { code: error.code, title: error.title, what: error.message, where: error.where, details: error.details, next: error.next, at: new Date().toISOString() };
  }

  private tick(): void {
    this.figures.tick();
    this.watchSlot();
    this.watchJournal();
    this.metrics.observe(this.status());
  }

  private watchSlot(): void {
    const retainedBytes = this.figures.health?.retainedBytes ?? null;
    const level = this.slotWatch.observe(retainedBytes);
    if (level === null) return;
    const { slotRetainedBytesWarn, slotRetainedBytesMax } = this.config.safety;
    const facts = { retainedBytes, slotRetainedBytesWarn, slotRetainedBytesMax };
    if (level === "max") this.logger.error(facts, "the source keeps more log than safety.slotRetainedBytesMax: its disk is at risk. Mend the target, or give the source room; the slot is never dropped by dualrun");
    else if (level === "warn") this.logger.warn(facts, "the source keeps more log than safety.slotRetainedBytesWarn: applying does not keep up, see `dualrun status`");
    else this.logger.info(facts, "the source keeps little log again");
  }

  private watchJournal(): void {
    if (this.journal === null) return;
    const { bytes, maxBytes, ...facts } = this.journal.facts();
    const level = this.journalWatch.observe(facts);
    if (level === null) return;
    if (level === "waiting") this.logger.error({ bytes, maxBytes }, "the journal has no room: what comes from the source waits there, and the source's log grows. Mend the target, raise journal.maxBytes, or give its disk room");
    else if (level === "near-limit") this.logger.warn({ bytes, maxBytes }, "the journal has used more than 80 % of journal.maxBytes: applying does not keep up, see `dualrun status`");
    else this.logger.info({ bytes, maxBytes }, "the journal has room again");
  }

  private journalStatus(): StatusDocument["journal"] {
    if (this.journal === null) return null;
    const { level, oldestCommitAt, ...facts } = this.journal.facts();
    return { ...facts, state: level, oldestCommitAt: isoOrNull(oldestCommitAt) };
  }

  // ------------------------------------------------------------ DaemonControl

  status(): StatusDocument {
    const { figures, meter } = this;
    const { health } = figures;
    return {
      version: VERSION,
      migration: this.config.migration,
      phase: this.phaseNow,
      state: this.state,
      startedAt: this.startedAt.toISOString(),
      halt: this.haltNow,
      format: this.agreement === null ? null : this.streamFormat(),
      epoch: this.held?.epoch.toString() ?? null,
      position: figures.position,
      head: health?.head ?? null,
      lagSeconds: this.state === "streaming" ? (this.session?.lagSeconds() ?? null) : null,
      lagBytes: this.lagBytes(),
      lastEventAt: isoOrNull(figures.lastEventAt),
      lastCommitAt: isoOrNull(figures.lastCommitAt),
      slot: this.slotWatch.judge(health),
      journal: this.journalStatus(),
      changesPerSecond: figures.rate("changes"),
      transactionsPerSecond: figures.rate("transactions"),
      changesApplied: figures.changes,
      transactionsApplied: figures.transactions,
      bytesRead: figures.bytesRead,
      bufferBytes: this.session?.bufferBytes ?? 0,
      restarts: this.restarts,
      snapshot: meter.progress(),
      classes: (this.agreement?.classes ?? []).map(({ cls }) => this.classStatus(cls)),
      newTables: this.newTables,
      warnings: this.warnings,
    };
  }

  private classStatus(cls: RecordClass): StatusDocument["classes"][number] {
    const copied = this.meter.forClass(cls.name);
    return {
      name: cls.name,
      source: tableKey(cls.source),
      target: tableKey(cls.target),
      kind: cls.kind,
      snapshotRows: copied.rows,
      snapshotRowsExpected: Math.round(copied.expectedRows),
      chunksDone: copied.chunksDone,
      chunks: copied.chunks,
      ...this.figures.forClass(cls.name),
    };
  }

  private lagBytes(): number | null {
    const { position, health } = this.figures;
    if (position === null || health === null || this.connected === null) return null;
    return Math.max(0, this.connected.source.positions.distance(position, health.head) ?? 0);
  }

  private ready(): { ok: boolean; why: string } {
    const ok = this.state === "streaming" || this.state === "snapshotting";
    return { ok, why: ok ? "" : this.haltNow === null ? this.state : `${this.state}: ${this.haltNow.code} ${this.haltNow.what}` };
  }

  async pause(by: string): Promise<void> {
    const { target } = this.need();
    await this.memory(target).settings.setPaused(true);
    await this.audit_(target).append(by, "pause", null);
    this.paused = true;
    this.session?.stop();
  }

  async resume(by: string): Promise<void> {
    await this.whileConnected(async ({ target }) => {
      await this.memory(target).settings.setPaused(false);
      await this.audit_(target).append(by, "resume", null);
    });
    this.paused = false;
    this.wake();
  }

  async acceptSchema(note: string, by: string): Promise<void> {
    await this.whileConnected(async ({ source, target }) => {
      const { agreement, warnings } = await agree(this.config, source, target, { refuse: true });
      const known = new Set(this.agreement!.classes.map(({ cls }) => cls.name));
      const accepted: Agreement = { ...agreement, classes: agreement.classes.filter(({ cls }) => known.has(cls.name)), acceptedUpTo: await source.head() };
      await this.memory(target).agreements.save(accepted);
      await this.audit_(target).append(by, "schema accepted", note);
      this.agreement = accepted;
      this.warnings = warnings;
      this.newTables = unmirrored(agreement, accepted);
    });
    this.haltBefore = null;
    this.restartSession();
  }

  /** Also adds a class that the configuration has gained. */
  async resnapshot(className: string, by: string): Promise<void> {
    await this.whileConnected(async (connected) => {
      const { agreement } = await agree(this.config, connected.source, connected.target, { refuse: true });
      const chosen = agreement.classes.find(({ cls }) => cls.name === className);
      if (chosen === undefined) throw new DualrunError("DR1004", `there is no class "${className}"`, { next: "See `dualrun status` for the classes." });
      await this.endSession();
      try {
        await this.copyAfresh(connected, agreement, chosen, by);
      } finally {
        this.haltBefore = null;
    this.restartSession();
      }
    });
  }

  /** The class is marked as not copied before it is agreed upon: whatever fails in between, nothing passes for complete. */
  private async copyAfresh({ source, target }: Connected, present: Agreement, chosen: AgreedClass, by: string): Promise<void> {
    const { cls } = chosen;
    const kept = this.agreement!.classes.filter((agreed) => agreed.cls.name !== cls.name);
    const widened: Agreement = { classes: [...kept, chosen], layouts: withLayouts(this.agreement!, present, cls), acceptedUpTo: await source.head() };
    await source.publish(widened.classes.map((agreed) => agreed.cls));
    await target.resetClass(cls, this.held!, [wholeClass(cls)]);
    await this.memory(target).agreements.save(widened);
    await this.audit_(target).append(by, `resnapshot of class ${cls.name}`, null);
    this.agreement = widened;
    this.newTables = this.newTables.filter((table) => table !== tableKey(cls.source));
  }

  verifyAudit(): Promise<AuditVerification> {
    return this.audit_(this.need().target).verify();
  }

  readonly audit = (): Promise<readonly AuditEntry[]> => this.audit_(this.need().target).list();

  private restartSession(): void {
    this.session?.stop();
    this.wake();
  }

  /** A mirror that was paused stays so. */
  private async endSession(): Promise<void> {
    const wasPaused = this.paused;
    while (this.session !== null) {
      this.paused = true;
      this.session.stop();
      await sleep(20);
    }
    this.paused = wasPaused;
  }

  /** While the daemon is halted it holds no connections: a command brings its own. */
  private async whileConnected(work: (connected: Connected) => Promise<void>): Promise<void> {
    if (this.connected !== null) return work(this.connected);
    await using connected = await connectBoth(this.engines, this.config);
    await work(connected);
  }
}

const isoOrNull = (at: number | null): string | null => (at === null ? null : new Date(at).toISOString());

const bracketed = (host: string): string => (host.includes(":") ? `[${host}]` : host);

/** Tables that the configuration selects today and that are not mirrored yet. */
function unmirrored(present: Agreement, agreed: Agreement): string[] {
  const known = new Set(agreed.classes.map(({ cls }) => cls.name));
  return present.classes.filter(({ cls }) => !known.has(cls.name)).map(({ cls }) => tableKey(cls.source));
}

function withLayouts(agreed: Agreement, present: Agreement, cls: RecordClass): Agreement["layouts"] {
  const table = tableKey(cls.source);
  const layouts = new Map(agreed.layouts);
  const layout = present.layouts.get(table);
  if (layout !== undefined) layouts.set(table, layout);
  return layouts;
}
