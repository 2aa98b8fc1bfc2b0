/**
 * One comparison: every class at one exact cut; what differs is looked at again at a second one.
 *
 * Counts and money are read in full on both sides every time. Hashes are read for the slices that the mirror has touched
 * since they were last proven, for the shares whose proof is oldest, or for everything. A class is in sync only when all
 * of that agrees and every part of it has been proven at some cut.
 */
import { setTimeout as sleep } from "node:timers/promises";
import {
  MOST_SLICES, NotComparable, SHARES, asDualrunError, sameLanes, worstVerdict,
  type BusinessDays, type ClassComparison, type ComparedClass, type ComparisonDocument, type CutReader, type CutWay, type LeftOut, type Position, type ReadLimits, type RowDifference, type Totals, type Verdict,
} from "../core/index.ts";
import { oldestProof, type Breaks, type Comparisons, type Proofs, type TouchMarks, type TouchedSlices } from "../state/index.ts";
import { businessDays } from "./days.ts";
import { compareDays, compareMoney, moneyDiffers, totalsAgree } from "./figures.ts";
import { MOST_DIFFERENCES, describe, locate, persisting, type Located } from "./locate.ts";

/** Both sides at one logical moment, as the mirror gives it. */
export interface Cut {
  readonly position: Position;
  readonly by: CutWay;
  readonly at: Date;
  readonly generation: bigint;
  readonly leftOut: LeftOut;
  readonly source: CutReader;
  readonly target: CutReader;
  readonly holdMs: number;
  readonly waitMs: number;
}

export interface ComparisonSettings {
  readonly timeZone: string;
  /** Milliseconds, all of them. */
  readonly every: number;
  readonly rescan: number;
  readonly holdTimeout: number;
  readonly cutTimeout: number;
  readonly statementTimeout: number;
  readonly maxRowsPerSecond: number;
}

export interface ComparisonMemory {
  readonly marks: TouchMarks;
  readonly proofs: Proofs;
  readonly comparisons: Comparisons;
  readonly breaks: Breaks;
}

export interface CompareOptions {
  readonly settings: ComparisonSettings;
  /** As it is now: it comes anew with every connection. */
  readonly memory: () => ComparisonMemory;
  readonly classes: readonly ComparedClass[];
  readonly cut: (limits: ReadLimits, timeouts: { readonly hold: number; readonly cut: number }) => Promise<Cut>;
  readonly onCut?: (cut: Cut) => void;
  /** The same work can succeed later. */
  readonly isTransient: (error: unknown) => boolean;
  /** Nothing is waited for any more: the daemon ends. */
  readonly signal: AbortSignal;
}

export interface CompareRequest {
  /** Reserved for it. */
  readonly id: string;
  readonly kind: ComparisonDocument["kind"];
  readonly full: boolean;
  readonly whole: boolean;
}

const CUT_TRIES = 3;
const RECHECK_AFTER_MS = 1_000;
const GO_ON_AFTER_MS = 3_000;
const GO_ON_TRIES = 10;
const SETTLE_AFTER_MS = 300;
const SETTLE_TRIES = 5;
const ROWS_KEPT = 1_000;

/** Never throws for what goes wrong with a class: that makes it `not_comparable`. */
export async function compare(options: CompareOptions, request: CompareRequest): Promise<ComparisonDocument> {
  return new Comparison(options, request).run();
}

/** A class that differed at the first cut. */
interface Suspicious {
  readonly compared: ComparedClass;
  readonly first: Located;
  readonly result: ClassComparison;
}

class Comparison {
  private readonly options: CompareOptions;
  private readonly request: CompareRequest;
  private readonly startedAt = new Date();
  private readonly started = performance.now();
  private readonly results = new Map<string, ClassComparison>();
  private readonly days: Map<string, BusinessDays> = new Map();
  /** Milliseconds for which attempts that came to nothing held the applier. */
  private heldInVain = 0;
  /** Classes that a lost connection has kept from being looked at. */
  private readonly brokenOff = new Set<string>();
  /** Slices of classes that agree otherwise, which no cut has shown yet. */
  private readonly unsettled = new Map<string, readonly string[]>();
  private head: Pick<ComparisonDocument, "position" | "cutAt" | "cutBy" | "holdMs" | "waitMs"> = { position: null, cutAt: null, cutBy: null, holdMs: null, waitMs: null };

  constructor(options: CompareOptions, request: CompareRequest) {
    this.options = options;
    this.request = request;
  }

  async run(): Promise<ComparisonDocument> {
    try {
      const suspicious = await this.firstLook(this.options.classes);
      suspicious.push(...(await this.goOn()), ...(await this.settle()));
      if (suspicious.length > 0) await this.secondLook(suspicious);
    } catch (error) {
      this.failRest(reasonOf(error));
      if (this.heldInVain > 0) this.head = { ...this.head, holdMs: this.head.holdMs ?? this.heldInVain };
    }
    const document = this.document();
    await this.persistently(() => this.options.memory().comparisons.save(document));
    await this.persistently(() => this.tellBreaks(document));
    return document;
  }

  private document(): ComparisonDocument {
    const classes = [...this.results.values()];
    return {
      ...this.request, startedAt: this.startedAt.toISOString(), finishedAt: new Date().toISOString(), ...this.head,
      seconds: (performance.now() - this.started) / 1000, verdict: worstVerdict(classes.map(({ verdict }) => verdict)), classes,
    };
  }

  /** What was found is not lost with a connection. */
  private async persistently(work: () => Promise<void>): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (attempt === GO_ON_TRIES || this.options.signal.aborted) throw error;
        await this.pause(GO_ON_AFTER_MS);
      }
    }
  }

  private pause(milliseconds: number): Promise<void> {
    return sleep(milliseconds, undefined, { signal: this.options.signal });
  }

  // ------------------------------------------------------------ the cut

  private async cut(): Promise<Cut> {
    const { settings } = this.options;
    const limits = { statementTimeout: settings.statementTimeout, maxRowsPerSecond: settings.maxRowsPerSecond };
    for (let attempt = 1; ; attempt++) {
      try {
        const cut = await this.options.cut(limits, { hold: settings.holdTimeout, cut: settings.cutTimeout });
        this.options.onCut?.(cut);
        return cut;
      } catch (error) {
        if (error instanceof NotComparable) this.heldInVain += error.heldMs;
        if (!(error instanceof NotComparable) || attempt === CUT_TRIES) throw error;
        await this.pause(RECHECK_AFTER_MS);
      }
    }
  }

  private async atCut<T>(work: (cut: Cut) => Promise<T>): Promise<T> {
    const cut = await this.cut();
    try {
      return await work(cut);
    } finally {
      await Promise.allSettled([cut.source[Symbol.asyncDispose](), cut.target[Symbol.asyncDispose]()]);
    }
  }

  private firstLook(classes: readonly ComparedClass[]): Promise<Suspicious[]> {
    return this.atCut(async (cut) => {
      if (this.head.position === null) this.head = { position: cut.position, cutAt: cut.at.toISOString(), cutBy: cut.by, holdMs: cut.holdMs + this.heldInVain, waitMs: cut.waitMs };
      const suspicious: Suspicious[] = [];
      for (const compared of classes) {
        const result = await this.guarded(compared, () => this.look(cut, compared, this.request.full));
        this.results.set(compared.cls.name, result);
        if (result.verdict !== "in_flight" || this.unsettled.has(compared.cls.name)) continue;
        const first = await this.locateOrNull(cut, compared);
        if (first !== null) suspicious.push({ compared, first, result });
      }
      return suspicious;
    });
  }

  /** What a lost connection has kept from being looked at is looked at when there is one again, at a cut of its own; what is done stays done. */
  private async goOn(): Promise<Suspicious[]> {
    const suspicious: Suspicious[] = [];
    for (let attempt = 1; attempt <= GO_ON_TRIES && this.brokenOff.size > 0; attempt++) {
      await this.pause(GO_ON_AFTER_MS);
      const left = this.options.classes.filter(({ cls }) => this.brokenOff.delete(cls.name));
      try {
        suspicious.push(...(await this.firstLook(left)));
        for (const { cls } of left) this.noteLater(cls.name);
      } catch (error) {
        for (const { cls } of left) {
          this.remember(cls.name, error);
          this.brokenOff.add(cls.name);
        }
      }
    }
    return suspicious;
  }

  /** What was left out at a cut is looked at at later ones, as far as it is not being written there too. Returns what differs. */
  private async settle(): Promise<Suspicious[]> {
    const suspicious: Suspicious[] = [];
    for (let attempt = 1; attempt <= SETTLE_TRIES && this.unsettled.size > 0; attempt++) {
      await this.pause(SETTLE_AFTER_MS);
      try {
        await this.atCut(async (cut) => {
          for (const compared of this.options.classes) suspicious.push(...(await this.settleClass(cut, compared)));
        });
      } catch (error) {
        if (!(error instanceof NotComparable)) throw error;
      }
    }
    return suspicious;
  }

  private async settleClass(cut: Cut, compared: ComparedClass): Promise<Suspicious[]> {
    const { name } = compared.cls;
    const pending = this.unsettled.get(name);
    if (pending === undefined || cut.leftOut.get(name) === null) return [];
    const result = this.results.get(name)!;
    const readable = without(pending, cut.leftOut.get(name) ?? []);
    const [ours, theirs] = await Promise.all([cut.source.slices(compared, readable), cut.target.slices(compared, readable)]);
    if (!sameLanes(ours, theirs)) {
      this.unsettled.delete(name);
      const first = await this.locateOrNull(cut, compared);
      return first === null ? [] : [{ compared, first, result }];
    }
    const left = without(pending, readable);
    if (left.length > 0) {
      this.unsettled.set(name, left);
      return [];
    }
    this.unsettled.delete(name);
    this.results.set(name, { ...result, verdict: "in_sync", note: `beside a transaction on the source that did not end: ${result.leftOut} slices of the key were looked at at a later cut, and are not in these figures` });
    return [];
  }

  private noteLater(name: string): void {
    const result = this.results.get(name)!;
    if (result.note === null) this.results.set(name, { ...result, note: "a connection was lost: looked at later, at a cut of its own" });
  }

  private remember(name: string, error: unknown): ClassComparison {
    if (this.options.isTransient(error)) this.brokenOff.add(name);
    const result = notComparable(name, reasonOf(error));
    this.results.set(name, result);
    return result;
  }

  /** At a later moment, whole: only what differs at both cuts is confirmed. */
  private async secondLook(suspicious: readonly Suspicious[]): Promise<void> {
    await this.pause(RECHECK_AFTER_MS);
    await this.atCut(async (cut) => {
      for (const { compared, first } of suspicious) {
        const { name } = compared.cls;
        const before = this.results.get(name)!;
        const result = await this.guarded(compared, () => this.confirm(cut, compared, first));
        this.results.set(name, result.verdict === "not_comparable" ? { ...before, verdict: "in_flight", note: `differed at one cut; ${result.note}` } : result);
      }
    }).catch((error: unknown) => {
      for (const { compared, result } of suspicious) this.results.set(compared.cls.name, { ...result, note: `could not be looked at a second time: ${reasonOf(error)}` });
    });
  }

  private async confirm(cut: Cut, compared: ComparedClass, first: Located): Promise<ClassComparison> {
    const result = await this.look(cut, compared, true);
    if (result.verdict === "in_sync") {
      return { ...result, note: "differed at one cut and agreed at the next", differences: { ...result.differences, healed: first.suspects.length } };
    }
    this.unsettled.delete(compared.cls.name);
    const second = await locate(cut, compared);
    const complete = first.complete && second.complete && result.leftOut === 0;
    const confirmed = persisting(first.suspects, second.suspects);
    const rows = await describe(cut, compared, confirmed.slice(0, ROWS_KEPT));
    const count = (kind: RowDifference["kind"]): number => confirmed.filter((suspect) => suspect.kind === kind).reduce((sum, { times }) => sum + times, 0);
    const verdict: Verdict = confirmed.length > 0 ? "confirmed_out_of_sync" : "in_flight";
    return {
      ...result, verdict, rows,
      note: complete || result.leftOut > 0 ? result.note : `more than ${MOST_DIFFERENCES} rows differ: they are not all listed`,
      differences: { missing: count("missing"), extra: count("extra"), mismatched: count("mismatched"), healed: result.leftOut > 0 ? 0 : Math.max(0, first.suspects.length - confirmed.length), complete },
    };
  }

  // ------------------------------------------------------------ one class

  /** `in_flight` when something differs: to be looked at again. */
  private async look(cut: Cut, compared: ComparedClass, full: boolean): Promise<ClassComparison> {
    const started = performance.now();
    const { marks, proofs } = this.options.memory();
    const name = compared.cls.name;
    const leftOut = leftOutOf(cut, name);
    const [touched, proven] = await Promise.all([marks.upTo(name, cut.generation), proofs.of(name)]);
    const shares = this.sharesToRead(compared, cut, touched, proven, full);
    const slices = shares === "all" ? [] : without(touched.slices ?? [], leftOut);
    const request = { days: this.daysOf(compared), shares };
    const [[source, sourceSlices], [target, targetSlices]] = await Promise.all([cut.source, cut.target].map(async (reader) => [
      await reader.totals(compared, request), await reader.slices(compared, slices),
    ] as const)) as [readonly [Totals, Totals["lanes"]], readonly [Totals, Totals["lanes"]]];
    const agree = totalsAgree(source, target) && sameLanes(sourceSlices, targetSlices);
    const at = cut.at.toISOString();
    if (agree) {
      if (leftOut.length === 0) await proofs.record(name, shares === "all" ? ALL_SHARES : shares, at);
      await marks.forget(name, cut.generation, touched.upTo, leftOut);
    }
    if (agree && leftOut.length > 0) this.unsettled.set(name, leftOut);
    else this.unsettled.delete(name);
    return {
      class: name, verdict: agree && leftOut.length === 0 ? "in_sync" : "in_flight", note: leftOutNote(leftOut), leftOut: leftOut.length, position: cut.position, at,
      sourceRows: source.count.toString(), targetRows: target.count.toString(), difference: (target.count - source.count).toString(),
      money: compareMoney(source, target), days: compareDays(source, target),
      hashedRows: (source.lanes.count + sourceSlices.count).toString(),
      provenSince: oldestProof(agree ? await proofs.of(name) : proven),
      differences: NO_DIFFERENCES, rows: [], seconds: (performance.now() - started) / 1000,
    };
  }

  private sharesToRead(compared: ComparedClass, cut: Cut, touched: TouchedSlices, proven: ReadonlyMap<number, string>, full: boolean): "all" | number[] {
    if (full || proven.size < SHARES || touched.slices === null || touched.slices.length > MOST_SLICES) return "all";
    if (touched.slices.length > 0 && cut.source.sliceKind(compared) === "whole") return "all";
    const { every, rescan } = this.options.settings;
    const due = Math.min(SHARES, Math.max(1, Math.ceil((SHARES * every) / rescan)));
    const oldest = [...proven].toSorted(([, a], [, b]) => (a < b ? -1 : a > b ? 1 : 0)).slice(0, due).map(([share]) => share);
    return oldest.length === SHARES ? "all" : oldest;
  }

  private daysOf(compared: ComparedClass): BusinessDays | null {
    if (compared.cls.occurredAt === null) return null;
    const { timeZone } = this.options.settings;
    const declared = compared.cls.occurredAtZone ?? timeZone;
    let days = this.days.get(declared);
    if (days === undefined) this.days.set(declared, (days = businessDays(timeZone, declared)));
    return days;
  }

  private async locateOrNull(cut: Cut, compared: ComparedClass): Promise<Located | null> {
    try {
      return await locate(cut, compared);
    } catch (error) {
      const result = this.results.get(compared.cls.name)!;
      this.results.set(compared.cls.name, { ...result, note: `differs; its rows could not be looked at: ${reasonOf(error)}` });
      return null;
    }
  }

  private async guarded(compared: ComparedClass, work: () => Promise<ClassComparison>): Promise<ClassComparison> {
    try {
      return await work();
    } catch (error) {
      return this.remember(compared.cls.name, error);
    }
  }

  private failRest(reason: string): void {
    for (const { cls } of this.options.classes) {
      if (!this.results.has(cls.name)) this.results.set(cls.name, notComparable(cls.name, reason));
    }
  }

  // ------------------------------------------------------------ breaks

  private async tellBreaks(document: ComparisonDocument): Promise<void> {
    const { breaks } = this.options.memory();
    const at = document.finishedAt!;
    for (const result of document.classes) {
      if (result.verdict === "in_sync") await breaks.seenClean(result.class, at);
      if (result.verdict !== "confirmed_out_of_sync") continue;
      for (const [category, rows] of Map.groupBy(result.rows, (row) => row.category)) {
        const money = result.money.filter(moneyDiffers);
        await breaks.see({ className: result.class, category, rows: rows.reduce((sum, { times }) => sum + times, 0), money, sample: rows }, at, document.id);
      }
    }
  }
}

const ALL_SHARES: readonly number[] = Array.from({ length: SHARES }, (_, i) => i);
/** Throws where the class was written everywhere, or where its rows cannot be told apart by slices. */
export function leftOutOf({ leftOut }: Cut, name: string): readonly string[] {
  const slices = leftOut.get(name);
  if (slices === null) throw new NotComparable("beside a transaction that did not end, this class was being written and cannot be read in part");
  return slices ?? [];
}

function leftOutNote(slices: readonly string[]): string | null {
  if (slices.length === 0) return null;
  return `a transaction on the source did not end: rows beside those that were being written at that moment (${slices.length} slices of the key) were left out`;
}

function without(slices: readonly string[], leftOut: readonly string[]): readonly string[] {
  if (leftOut.length === 0) return slices;
  const absent = new Set(leftOut);
  return slices.filter((slice) => !absent.has(slice));
}

const NO_DIFFERENCES = { missing: 0, extra: 0, mismatched: 0, healed: 0, complete: true } as const;

function notComparable(name: string, reason: string): ClassComparison {
  return {
    class: name, verdict: "not_comparable", note: reason, position: null, at: null, sourceRows: null, targetRows: null, difference: null, money: [], days: [],
    hashedRows: "0", provenSince: null, leftOut: 0, differences: NO_DIFFERENCES, rows: [], seconds: 0,
  };
}

/** Why it could not be done, without a row's value. */
function reasonOf(error: unknown): string {
  return error instanceof NotComparable ? error.message : asDualrunError(error).message;
}
