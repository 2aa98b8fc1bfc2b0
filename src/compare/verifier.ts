/** Keeps the proof going: comparisons by schedule and on demand, one at a time. Its failure never reaches the mirror. */
import { Cron } from "croner";
import {
  DualrunError,
  type BreakDocument, type BreakResolution, type ClassComparison, type ComparedClass, type ComparisonDocument, type ComparisonQuery, type ProofControl, type ProofState,
} from "../core/index.ts";
import { compare, type ComparisonMemory, type ComparisonSettings, type CompareOptions, type CompareRequest } from "./compare.ts";

/** How exactly the schedule is kept. */
const TICK_MS = 500;

export interface VerifierOptions {
  readonly settings: ComparisonSettings & { readonly dailyAt: string };
  /** What is needed for one comparison; throws a DualrunError while there is no mirror. */
  readonly connect: () => Promise<{ readonly classes: readonly ComparedClass[]; readonly cut: CompareOptions["cut"] }>;
  /** Throws a DualrunError while the target is out of reach. */
  readonly memory: () => ComparisonMemory;
  readonly audit: (who: string, what: string, note: string | null) => Promise<void>;
  readonly onCut: NonNullable<CompareOptions["onCut"]>;
  readonly onFinished: (document: ComparisonDocument) => Promise<void>;
  readonly onFailure: (error: unknown) => void;
}

export interface VerifyRequest extends CompareRequest {
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
  private runningSince: Date | null = null;
  private openBreaks: readonly BreakDocument[] = [];
  private nextAt: Date | null = null;

  constructor(options: VerifierOptions) {
    this.options = options;
  }

  state(): ProofState {
    return { runningSince: iso(this.runningSince), nextAt: iso(this.next()), classes: [...this.latest.values()], openBreaks: this.openBreaks };
  }

  compare(className: string | null, full: boolean): Promise<ComparisonDocument> {
    return this.run({ kind: "manual", className, full });
  }

  async comparisons(query: ComparisonQuery): Promise<readonly ComparisonDocument[]> {
    return this.options.memory().comparisons.list(query);
  }

  async comparison(id: string): Promise<ComparisonDocument | null> {
    return this.options.memory().comparisons.find(id);
  }

  async breaks(open: boolean): Promise<readonly BreakDocument[]> {
    return this.options.memory().breaks.list({ open });
  }

  async resolveBreak(id: string, resolution: BreakResolution, note: string, by: string): Promise<BreakDocument | null> {
    const { breaks } = this.options.memory();
    if ((await breaks.find(id))?.resolvedAt !== null) return null;
    await breaks.resolve(id, resolution, by, note);
    await this.options.audit(by, `break ${id} resolved: ${resolution}`, note);
    await this.refresh();
    return breaks.find(id);
  }

  /** Reads again what is remembered: after a start, and whenever breaks may have changed. */
  async refresh(): Promise<void> {
    const { breaks, comparisons } = this.options.memory();
    this.openBreaks = await breaks.list({ open: true });
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
    const turn = this.queue.then(() => this.now(request));
    this.queue = turn.catch(() => undefined); // told to whoever asked
    return turn;
  }

  private async scheduled(kind: "scheduled" | "daily"): Promise<void> {
    try {
      await this.run({ kind, full: false, className: null });
    } catch (error) {
      this.options.onFailure(error);
    }
  }

  private async now(request: VerifyRequest): Promise<ComparisonDocument> {
    this.runningSince = new Date();
    try {
      const { classes, cut } = await this.options.connect();
      const chosen = request.className === null ? classes : classes.filter(({ cls }) => cls.name === request.className);
      if (chosen.length === 0) throw new DualrunError("DR1004", request.className === null ? "there are no classes" : `there is no class "${request.className}"`, { next: "See `dualrun status` for the classes." });
      const document = await compare({ settings: this.options.settings, memory: this.options.memory(), classes: chosen, cut, onCut: this.options.onCut }, { kind: request.kind, full: request.full });
      for (const result of document.classes) this.latest.set(result.class, result);
      await this.refresh();
      await this.options.onFinished(document);
      return document;
    } finally {
      this.runningSince = null;
    }
  }
}

const iso = (at: Date | null): string | null => at?.toISOString() ?? null;
