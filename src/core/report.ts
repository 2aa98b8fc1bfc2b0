/** The daily reconciliation that finance signs: one business date, at one cut, as it was known then. */
import type { BreakCategory, Verdict } from "./comparison.ts";
import type { BreakAge } from "./breaks.ts";

/** One figure on both sides. Decimal text. */
export interface Pair {
  readonly source: string;
  readonly target: string;
}

/** opening + movements + backdated = closing, on each side. */
export interface MoneyLine {
  readonly column: string;
  readonly currency: string | null;
  readonly iso: boolean;
  /** The closing of the report before; without one, what is dated before the day. */
  readonly opening: Pair;
  /** What is dated on the day, or after the day of the report before. */
  readonly movements: Pair;
  /** What has changed on earlier days since the report before. */
  readonly backdated: Pair;
  readonly closing: Pair;
  /** Closing on the target less closing on the source. */
  readonly difference: string;
  /** What the bank says of the day, where it was imported for this column. */
  readonly bank: { readonly total: string; readonly difference: string; readonly tolerance: string; readonly within: boolean } | null;
}

export interface ClassReport {
  readonly class: string;
  readonly kind: string;
  readonly verdict: Verdict;
  readonly note: string | null;
  readonly records: Pair;
  readonly difference: string;
  /** Records that are dated on the day; null when the class has no business date. */
  readonly dated: Pair | null;
  /** Records without a date; null when the class has no business date. */
  readonly undated: Pair | null;
  readonly money: readonly MoneyLine[];
  /** Rows of the source that are not on the target on purpose, and why. */
  readonly excluded: readonly { readonly reason: string; readonly rows: string | null }[];
  readonly provenSince: string | null;
}

export interface ReportDocument {
  readonly migration: string;
  /** The business date. */
  readonly date: string;
  /** Counts from 1; a report that is made again is a new version, and signatures of the one before do not count for it. */
  readonly version: number;
  readonly createdAt: string;
  readonly preparer: string;
  readonly program: string;
  /** SHA-256 of classes, rules and zone. */
  readonly configuration: string;
  readonly zone: string;
  /** Version of the zone data. */
  readonly zoneData: string;
  /** The end of the business date, ISO time. */
  readonly cutOff: string;
  readonly comparison: { readonly id: string; readonly full: boolean; readonly at: string; readonly sourcePosition: string; readonly targetPosition: string };
  /** The day was not over when the cut was taken: it cannot be signed. */
  readonly provisional: boolean;
  /** The cut was taken more than a day after the cut-off. */
  readonly late: boolean;
  /** Every class in sync and no break open. */
  readonly clean: boolean;
  readonly classes: readonly ClassReport[];
  readonly breaks: readonly { readonly id: string; readonly class: string; readonly category: BreakCategory; readonly rows: number; readonly openedAt: string; readonly age: BreakAge; readonly owner: string | null; readonly note: string | null }[];
  readonly lagSeconds: number | null;
  /** Days in a row up to the one before that were compared, clean, on time and signed. */
  readonly cleanStreak: number;
  /** Hash of the report before, whichever day it was of; null for the first. */
  readonly previousHash: string | null;
  /** Head of the audit trail. */
  readonly auditHead: string | null;
}

export interface SignOff {
  readonly approver: string;
  /** For whom, when the approver stands in for somebody. */
  readonly onBehalfOf: string | null;
  readonly note: string;
  readonly at: string;
}

/** A report with its hash and signature. */
export interface Report {
  readonly document: ReportDocument;
  /** SHA-256 of the document's text. */
  readonly hash: string;
  /** null: not signed, or signed in an earlier version only. */
  readonly signOff: SignOff | null;
}

export interface ReportHead {
  readonly date: string;
  readonly version: number;
  readonly createdAt: string;
  readonly hash: string;
  readonly clean: boolean;
  readonly late: boolean;
  readonly provisional: boolean;
  readonly signedBy: string | null;
}

/** The clean streak that a migration aims at. */
export const STREAK_TARGET_DAYS = 30;

/** Finance's side of a daemon. */
export interface FinanceControl {
  /** Newest first. */
  reports(): Promise<readonly ReportHead[]>;
  /** The latest version for a business date; null when there is none. */
  report(date: string): Promise<Report | null>;
  /** Makes the report of a business date from the latest comparison; a new version if there is one. */
  prepare(date: string, by: string): Promise<Report>;
  /** DR7101…: not prepared, provisional, prepared by the same person, or made again since. */
  signOff(date: string, sign: { readonly note: string; readonly onBehalfOf: string | null; readonly hash: string | null }, by: string): Promise<Report>;
  /** Daily totals from the bank as CSV; all faults at once, and then nothing is kept. */
  importBank(csv: string, by: string): Promise<{ readonly lines: number; readonly dates: readonly string[] }>;
  cleanStreak(): Promise<number>;
}
