/** The series of comparisons, breaks and sign-offs. */
import type { Counter, Gauge, Histogram } from "prom-client";
import { BREAK_AGES, VERDICTS, breakAge, minorUnits, type BreakDocument, type ClassComparison, type ComparisonDocument, type ProofState } from "../core/index.ts";
import { ENTRIES, SIDES, type MetricEntry } from "./catalogue.ts";

export interface SeriesMaker {
  gauge<E extends MetricEntry>(entry: E): Gauge<E["labels"][number]>;
  counter<E extends MetricEntry>(entry: E): Counter<E["labels"][number]>;
  histogram(entry: MetricEntry): Histogram;
}

export class ProofMetrics {
  private readonly cleanStreak;
  private readonly signedOffAt;
  private readonly records;
  private readonly recordsDifference;
  private readonly moneyTotal;
  private readonly moneyDifference;
  private readonly inSync;
  private readonly verdict;
  private readonly comparedAt;
  private readonly proofAge;
  private readonly seconds;
  private readonly hold;
  private readonly wait;
  private readonly interval;
  private readonly rescan;
  private readonly rows;
  private readonly breaksOpen;

  constructor(make: SeriesMaker) {
    this.cleanStreak = make.gauge(ENTRIES.cleanStreak);
    this.signedOffAt = make.gauge(ENTRIES.signedOffAt);
    this.records = make.gauge(ENTRIES.records);
    this.recordsDifference = make.gauge(ENTRIES.recordsDifference);
    this.moneyTotal = make.gauge(ENTRIES.moneyTotal);
    this.moneyDifference = make.gauge(ENTRIES.moneyDifference);
    this.inSync = make.gauge(ENTRIES.inSync);
    this.verdict = make.gauge(ENTRIES.verdict);
    this.comparedAt = make.gauge(ENTRIES.comparedAt);
    this.proofAge = make.gauge(ENTRIES.proofAge);
    this.seconds = make.histogram(ENTRIES.comparisonSeconds);
    this.hold = make.histogram(ENTRIES.comparisonHold);
    this.wait = make.histogram(ENTRIES.comparisonWait);
    this.interval = make.gauge(ENTRIES.comparisonInterval);
    this.rescan = make.gauge(ENTRIES.comparisonRescan);
    this.rows = make.counter(ENTRIES.comparisonRows);
    this.breaksOpen = make.gauge(ENTRIES.breaksOpen);
    for (const single of [this.cleanStreak, this.signedOffAt, this.interval, this.rescan]) single.set(Number.NaN);
  }

  addClass(name: string): void {
    for (const gauge of [this.recordsDifference, this.inSync, this.comparedAt, this.proofAge]) gauge.set({ class: name }, Number.NaN);
    for (const side of SIDES) {
      this.records.set({ side, class: name }, Number.NaN);
      this.rows.inc({ side, class: name }, 0);
    }
    for (const verdict of VERDICTS) this.verdict.set({ class: name, verdict }, Number.NaN);
    for (const age of BREAK_AGES) this.breaksOpen.set({ class: name, age }, Number.NaN);
  }

  /** Milliseconds, as configured: what alerts measure by. */
  schedule({ every, rescan }: { readonly every: number; readonly rescan: number }): void {
    this.interval.set(every / 1000);
    this.rescan.set(rescan / 1000);
  }

  /** After a comparison has ended. */
  compared(document: ComparisonDocument): void {
    this.seconds.observe(document.seconds);
    if (document.holdMs !== null) this.hold.observe(document.holdMs / 1000);
    if (document.waitMs !== null) this.wait.observe(document.waitMs / 1000);
    for (const result of document.classes) {
      this.rows.inc({ side: "source", class: result.class }, Number(result.sourceRows ?? 0));
      this.rows.inc({ side: "target", class: result.class }, Number(result.targetRows ?? 0));
    }
  }

  /** Days of the clean streak, and when a report was signed last (ISO time). */
  signatures(streak: number, lastSignature: string | null): void {
    this.cleanStreak.set(streak);
    this.signedOffAt.set(lastSignature === null ? Number.NaN : Date.parse(lastSignature) / 1000);
  }

  /** What stands now: the latest result of each class, proofs that grow older, open breaks. */
  observe({ classes, openBreaks }: ProofState, now = Date.now()): void {
    for (const result of classes) this.observeClass(result, now);
    for (const { class: name } of classes) this.observeBreaks(name, openBreaks, now);
  }

  private observeClass(result: ClassComparison, now: number): void {
    const name = result.class;
    this.inSync.set({ class: name }, Number(result.verdict === "in_sync"));
    for (const verdict of VERDICTS) this.verdict.set({ class: name, verdict }, Number(verdict === result.verdict));
    this.proofAge.set({ class: name }, result.provenSince === null ? Number.NaN : (now - Date.parse(result.provenSince)) / 1000);
    if (result.at === null || result.leftOut > 0) return; // not looked at, or not at all of it: the figures of the last look stay, with their own moment
    this.comparedAt.set({ class: name }, Date.parse(result.at) / 1000);
    this.records.set({ side: "source", class: name }, Number(result.sourceRows));
    this.records.set({ side: "target", class: name }, Number(result.targetRows));
    this.recordsDifference.set({ class: name }, Number(result.difference));
    for (const { column, currency, source, target, difference, scale } of result.money) {
      const labels = { class: name, column, currency: currency ?? "" };
      this.moneyTotal.set({ ...labels, side: "source" }, Number(source));
      this.moneyTotal.set({ ...labels, side: "target" }, Number(target));
      this.moneyDifference.set(labels, Number(minorUnits(difference, scale)));
    }
  }

  private observeBreaks(name: string, open: readonly BreakDocument[], now: number): void {
    const ages = open.filter((one) => one.class === name).map(({ openedAt }) => breakAge(openedAt, now));
    for (const age of BREAK_AGES) this.breaksOpen.set({ class: name, age }, ages.filter((one) => one === age).length);
  }
}
