/** Keeps the proof going: comparisons by schedule and on demand, one at a time. Its failure never reaches the mirror. */
import { Cron } from "croner";
import {
  DualrunError, NotComparable,
  type BreakDocument, type BreakResolution, type Checkpoint, type ClassComparison, type ComparedClass, type ComparisonDocument, type ComparisonQuery, type Conflict, type DiffDocument,
  type ProofControl, type ProofState, type ReadLimits, type RepairDocument, type SelfTestDocument, type Source, type Target,
} from "../core/index.ts";
import { compare, type ComparisonMemory, type ComparisonSettings, type CompareOptions, type CompareRequest, type Cut } from "./compare.ts";
import { diffAt, differencesAt, repairAt, repairsAt } from "./rows.ts";
import { selfTest } from "./selftest.ts";

/** Statements that a repair shows before it is applied. */
const STATEMENTS_SHOWN = 1_000;
/** Comparisons in a class's trend: two days of hourly ones. */
const TREND_LENGTH = 48;
/** How exactly the schedule is kept. */
const TICK_MS = 500;

/** Both sides as a comparison needs them. */
export interface Comparable {
  readonly source: Source;
  readonly target: Target;
  readonly classes: readonly ComparedClass[];
  readonly cut: CompareOptions["cut"];
  /** A cut at which the stream stays held until the work is done. */
  readonly whileHeldAtCut: <T>(limits: ReadLimits, timeouts: { readonly hold: number; readonly cut: number }, work: (cut: Cut, held: Checkpoint) => Promise<T>) => Promise<T>;
  readonly maskKey: () => Promise<string>;
}

export interface VerifierOptions {
  readonly settings: ComparisonSettings & { readonly dailyAt: string };
  /** What is needed for one comparison; throws a DualrunError while there is no mirror. */
  readonly connect: () => Promise<Comparable>;
  /** Throws a DualrunError while the target is out of reach. */
  readonly memory: () => ComparisonMemory;
  readonly audit: (who: string, what: string, note: string | null) => Promise<void>;
  readonly onCut: NonNullable<CompareOptions["onCut"]>;
  readonly onFinished: (document: ComparisonDocument) => Promise<void>;
  readonly onFailure: (error: unknown) => void;
  readonly isTransient: (error: unknown) => boolean;
}

export interface VerifyRequest extends Omit<CompareRequest, "id" | "whole"> {
  /** null: all classes. */
  readonly className: string | null;
}

export class Verifier implements ProofControl {
  /** The latest result of each class, as comparisons bring them. */
  private readonly latest = new Map<string, ClassComparison>();
  private readonly options: VerifierOptions;
  private timer: NodeJS.Timeout | null = null;
  private daily: Cron | null = null;
  private queue: Promise<unknown> = Promise.resolve();
  private readonly ending = new AbortController();
  private runningSince: Date | null = null;
  private openBreaks: readonly BreakDocument[] = [];
  private nextAt: Date | null = null;
  private trends: ProofState["trends"] = new Map();

  constructor(options: VerifierOptions) {
    this.options = options;
  }

  state(): ProofState {
    return { runningSince: iso(this.runningSince), nextAt: iso(this.next()), classes: [...this.latest.values()], openBreaks: this.openBreaks, trends: this.trends };
  }

  async compare(className: string | null, full: boolean): Promise<ComparisonDocument> {
    return (await this.begin(className, full)).finished;
  }

  async begin(className: string | null, full: boolean): Promise<{ readonly id: string; readonly finished: Promise<ComparisonDocument> }> {
    if (className !== null) classNamed(await this.options.connect(), className);
    const id = await this.options.memory().comparisons.reserve("manual", full);
    const finished = this.inTurn(() => this.now({ kind: "manual", className, full }, id));
    finished.catch((error: unknown) => this.options.onFailure(error));
    return { id, finished };
  }

  async comparisons(query: ComparisonQuery): Promise<readonly ComparisonDocument[]> {
    return this.options.memory().comparisons.list(query);
  }

  async comparison(id: string): Promise<ComparisonDocument | null> {
    return this.options.memory().comparisons.find(id);
  }

  diff(className: string, limit: number): Promise<DiffDocument> {
    return this.inTurn(async () => {
      const both = await this.options.connect();
      const maskKey = await both.maskKey();
      return this.atCut(both, (cut) => diffAt(cut, classNamed(both, className), limit, maskKey));
    });
  }

  async repair(className: string, apply: boolean, by: string): Promise<RepairDocument> {
    const planned = await this.inTurn(() => this.planRepair(className));
    if (!apply || planned.rows === 0) return planned;
    await this.options.audit(by, `repair of class ${className}: ${planned.rows} rows`, null);
    const mended = await this.inTurn(() => this.applyRepair(className));
    const comparison = await this.run({ kind: "manual", className, full: true });
    await this.options.audit("daemon", `class ${className}: ${mended} rows repaired, then ${comparison.verdict}`, null);
    if (comparison.verdict === "in_sync") await this.resolveRepaired(className, by);
    return { ...planned, applied: true, rows: mended, comparison };
  }

  selfTest(): Promise<SelfTestDocument> {
    return this.inTurn(async () => {
      const { source, target } = await this.options.connect();
      return selfTest(source, target, this.limits);
    });
  }

  async breaks(open: boolean): Promise<readonly BreakDocument[]> {
    return this.options.memory().breaks.list({ open });
  }

  async assignBreak(id: string, owner: string, by: string): Promise<BreakDocument | null> {
    const { breaks } = this.options.memory();
    if ((await breaks.find(id))?.resolvedAt !== null) return null;
    await breaks.assign(id, owner);
    await this.options.audit(by, `break ${id} given to ${owner}`, null);
    await this.refresh();
    return breaks.find(id);
  }

  async resolveBreak(id: string, resolution: BreakResolution, note: string, by: string): Promise<BreakDocument | null> {
    const { breaks } = this.options.memory();
    if ((await breaks.find(id))?.resolvedAt !== null) return null;
    await breaks.resolve(id, resolution, by, note);
    await this.options.audit(by, `break ${id} resolved: ${resolution}`, note);
    await this.refresh();
    return breaks.find(id);
  }

  /** The applier met rows that were not what the log says: breaks, until they are settled. */
  async conflictsSeen(conflicts: readonly Conflict[]): Promise<void> {
    const { breaks } = this.options.memory();
    const at = new Date().toISOString();
    for (const [className, ofClass] of Map.groupBy(conflicts, (one) => one.className)) {
      for (const [kind, rows] of Map.groupBy(ofClass, (one) => (one.kind === "insert-found-row" ? "extra" as const : "missing" as const))) {
        const sample = rows.map(({ keyHash }) => ({ kind, key: [], keyHash, columns: [], category: kind, times: 1 }));
        await breaks.see({ className, category: kind, rows: rows.length, money: [], sample }, at, null);
      }
    }
    await this.refresh();
  }

  /** After a start: what is remembered is read, what was interrupted is closed. */
  async recall(): Promise<void> {
    await this.options.memory().comparisons.closeAbandoned();
    await this.refresh();
  }

  private async refresh(): Promise<void> {
    const { breaks, comparisons } = this.options.memory();
    this.openBreaks = await breaks.list({ open: true });
    this.trends = await comparisons.trends(TREND_LENGTH);
    if (this.latest.size === 0) for (const result of await comparisons.latest()) this.latest.set(result.class, result);
  }

  /** From now on: one comparison now, then by the schedule. Calling it again does nothing. */
  start(): void {
    if (this.daily !== null) return;
    const { every, dailyAt, timeZone } = this.options.settings;
    const [hour, minute] = dailyAt.split(":");
    this.daily = new Cron(`${Number(minute)} ${Number(hour)} * * *`, { timezone: timeZone, protect: true, unref: true }, () => this.scheduled("daily"));
    this.nextAt = new Date();
    this.timer = setInterval(() => {
      if (Date.now() < this.nextAt!.getTime()) return;
      this.nextAt = new Date(Date.now() + every);
      void this.scheduled("scheduled");
    }, TICK_MS);
    this.timer.unref();
  }

  stop(): void {
    this.ending.abort(new Error("the daemon ends"));
    this.daily?.stop();
    if (this.timer !== null) clearInterval(this.timer);
  }

  /** When the next scheduled comparison is due. */
  private next(): Date | null {
    const daily = this.daily?.nextRun() ?? null;
    return daily !== null && (this.nextAt === null || daily < this.nextAt) ? daily : this.nextAt;
  }

  /** Waits for its turn. Throws only when nothing could be begun. */
  private run(request: VerifyRequest): Promise<ComparisonDocument> {
    return this.inTurn(async () => this.now(request, await this.options.memory().comparisons.reserve(request.kind, request.full)));
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.queue.then(work);
    this.queue = turn.catch(() => undefined); // told to whoever asked
    return turn;
  }

  private get limits(): ReadLimits {
    const { statementTimeout, maxRowsPerSecond } = this.options.settings;
    return { statementTimeout, maxRowsPerSecond };
  }

  private get timeouts(): { readonly hold: number; readonly cut: number } {
    const { holdTimeout, cutTimeout } = this.options.settings;
    return { hold: holdTimeout, cut: cutTimeout };
  }

  private async atCut<T>({ cut: take }: Comparable, work: (cut: Cut) => Promise<T>): Promise<T> {
    const cut = await take(this.limits, this.timeouts).catch(notNow);
    try {
      return await work(cut).catch(notNow);
    } finally {
      await Promise.allSettled([cut.source[Symbol.asyncDispose](), cut.target[Symbol.asyncDispose]()]);
    }
  }

  private async planRepair(className: string): Promise<RepairDocument> {
    const both = await this.options.connect();
    const compared = classNamed(both, className);
    return this.atCut(both, async (cut) => {
      const { rows, total, complete } = await differencesAt(cut, compared, STATEMENTS_SHOWN);
      const statements = both.target.repairStatements(compared, await repairsAt(cut, compared, rows), new Set(compared.cls.sensitive));
      return { class: className, applied: false, rows: total, complete: complete && rows.length === total, statements, comparison: null };
    });
  }

  private async applyRepair(className: string): Promise<number> {
    const both = await this.options.connect();
    const compared = classNamed(both, className);
    for (let mended = 0; ;) {
      const step = await both.whileHeldAtCut(this.limits, this.timeouts, (cut, held) => repairAt(cut, held, both.target, compared)).catch(notNow);
      mended += step.rows;
      if (!step.more) return mended;
    }
  }

  private async resolveRepaired(className: string, by: string): Promise<void> {
    const { breaks } = this.options.memory();
    for (const { id } of await breaks.list({ open: true, className })) await breaks.resolve(id, "repaired", by, "repaired and compared again");
    await this.refresh();
  }

  private async scheduled(kind: "scheduled" | "daily"): Promise<void> {
    try {
      await this.run({ kind, full: false, className: null });
    } catch (error) {
      this.options.onFailure(error);
    }
  }

  private async now(request: VerifyRequest, id: string): Promise<ComparisonDocument> {
    this.runningSince = new Date();
    try {
      const both = await this.options.connect();
      const chosen = request.className === null ? both.classes : [classNamed(both, request.className)];
      const { memory, settings, onCut, isTransient } = this.options;
      const document = await compare({ settings, memory, classes: chosen, cut: both.cut, onCut, isTransient, signal: this.ending.signal }, { id, kind: request.kind, full: request.full, whole: request.className === null });
      for (const result of document.classes) this.latest.set(result.class, result);
      await this.refresh();
      await this.options.onFinished(document);
      return document;
    } catch (error) {
      await this.options.memory().comparisons.abandon(id).catch(() => undefined); // what was lost with the connection is closed at the next start
      throw error;
    } finally {
      this.runningSince = null;
    }
  }
}

function notNow(error: unknown): never {
  throw error instanceof NotComparable ? new DualrunError("DR7003", error.message, { cause: error }) : error;
}

function classNamed({ classes }: Comparable, name: string): ComparedClass {
  const found = classes.find(({ cls }) => cls.name === name);
  if (found === undefined) throw new DualrunError("DR1004", `there is no class "${name}"`, { next: "See `dualrun status` for the classes." });
  return found;
}

const iso = (at: Date | null): string | null => at?.toISOString() ?? null;
