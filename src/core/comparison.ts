/** What a comparison reads, and what it says. */
import type { TableFacts } from "./catalogue.ts";
import type { Position, RecordClass, Side } from "./words.ts";

/**
 * `in_sync`: proven at the cut. `in_flight`: differed once, and could not be looked at a second time.
 * `confirmed_out_of_sync`: differed at two cuts. `not_comparable`: not looked at; never a pass.
 */
export const VERDICTS = ["in_sync", "in_flight", "confirmed_out_of_sync", "not_comparable"] as const;
export type Verdict = (typeof VERDICTS)[number];

/** A class with what both catalogues say of its tables: canonical rows are rendered from these facts. */
export interface ComparedClass {
  readonly cls: RecordClass;
  readonly source: TableFacts;
  readonly target: TableFacts;
  /** The two sides are different engines. */
  readonly across?: boolean;
}

/** How the source's moment was had: by a slot's exported snapshot, on a standby that was paused, by a plain snapshot beside writers that do not end, or (MySQL, MariaDB) by a snapshot with its place in the log. */
export const CUT_WAYS = ["slot", "standby", "slot-free", "snapshot"] as const;
export type CutWay = (typeof CUT_WAYS)[number];

/** Slices by class whose rows a cut does not show at one moment; null: the whole class. A class that is absent is shown whole. */
export type LeftOut = ReadonlyMap<string, readonly string[] | null>;

/** How a class's key space is divided, see slices.ts. */
export type SliceKind = "integer" | "uuid" | "whole";

/** Days as ranges: day i of `names` is [bounds[i], bounds[i + 1]); what is before, after or NULL has a name of its own. */
export interface BusinessDays {
  /** Calendar dates in order, consecutive. */
  readonly names: readonly string[];
  /** One more than `names`, each: moments in UTC for columns that hold moments, wall-clock times for columns without a zone, dates for dates. */
  readonly moments: readonly string[];
  readonly wallClock: readonly string[];
  readonly dates: readonly string[];
}

export const EARLIER = "earlier";
export const LATER = "later";
export const UNDATED = "undated";

/** Count and two sums of SHA-256 words over canonical rows. Sums, as XOR would cancel pairs. */
export interface Lanes {
  readonly count: bigint;
  readonly a: bigint;
  readonly b: bigint;
}

export const NO_LANES: Lanes = { count: 0n, a: 0n, b: 0n };

export function sameLanes(left: Lanes, right: Lanes): boolean {
  return left.count === right.count && left.a === right.a && left.b === right.b;
}

/** One money column in one currency on one business date. Sums run over finite values only. */
export interface MoneyTotal {
  readonly column: string;
  /** As it stands in the row; null where the row has none. */
  readonly currency: string | null;
  /** A date of `BusinessDays.names`, EARLIER, LATER or UNDATED; null when the class has no business date. */
  readonly day: string | null;
  readonly rows: bigint;
  readonly nulls: bigint;
  readonly nan: bigint;
  readonly infinite: bigint;
  readonly negativeInfinite: bigint;
  /** Decimal text; "0" when there is no finite value. */
  readonly sum: string;
  readonly min: string | null;
  readonly max: string | null;
  readonly scale: number | null;
}

export interface DayCount {
  readonly day: string | null;
  readonly rows: bigint;
}

export interface Totals {
  readonly count: bigint;
  readonly days: readonly DayCount[];
  readonly money: readonly MoneyTotal[];
  /** Over the shares that were asked for. */
  readonly lanes: Lanes;
}

/** A class is divided into this many shares by a hash of its key; a rolling proof reads some of them each time. */
export const SHARES = 64;

export interface TotalsRequest {
  readonly days: BusinessDays | null;
  /** Which shares' rows are rendered and hashed. */
  readonly shares: "none" | "all" | readonly number[];
}

/** A row as a comparison sees it: its key as text (for a class without key: its own digest) and a digest of its canonical form. */
export interface RowDigest {
  readonly key: readonly string[];
  readonly digest: string;
}

/** A row by column, as the engine's text in the target's form; null is NULL. */
export type RowText = Readonly<Record<string, string | null>>;

export interface ReadLimits {
  /** Milliseconds for one statement. */
  readonly statementTimeout: number;
  /** 0: none. */
  readonly maxRowsPerSecond: number;
}

/** Reads one side in a snapshot of its own. Everything it reads is of one moment. */
export interface CutReader extends AsyncDisposable {
  readonly side: Side;
  sliceKind(compared: ComparedClass): SliceKind;
  /** From here on rows of these slices count as not there. To be called before anything is read. */
  leaveOut(slices: LeftOut): void;
  totals(compared: ComparedClass, request: TotalsRequest): Promise<Totals>;
  /** Lanes over the rows of some slices, by the key's index. */
  slices(compared: ComparedClass, slices: readonly string[]): Promise<Lanes>;
  /** Lanes by group, 4,096 of them by a hash of the key; only groups that hold rows. */
  groups(compared: ComparedClass): Promise<Map<number, Lanes>>;
  /** The rows of some groups. */
  rows(compared: ComparedClass, groups: readonly number[]): Promise<RowDigest[]>;
  /** Rows by key, in the order of the keys; null: there is none. For a class without key: any row of that digest. */
  rowsByKey(compared: ComparedClass, keys: readonly (readonly string[])[]): Promise<(RowText | null)[]>;
  /** The same as the target's columns take them, for the source's rows: what `rowsByKey` shows can be a form for comparing only. */
  writableByKey(compared: ComparedClass, keys: readonly (readonly string[])[]): Promise<(RowText | null)[]>;
  /** How many rows of each digest there are; for classes without a key. */
  digestCounts(compared: ComparedClass, digests: readonly string[]): Promise<Map<string, number>>;
}

/** One logical moment on the source. */
export interface SourceCut {
  readonly position: Position;
  readonly by: CutWay;
  readonly reader: CutReader;
}

/** A comparison that could not be made, with the reason an operator reads. The mirror goes on. */
export class NotComparable extends Error {
  /** Milliseconds for which nothing was applied because of it. */
  heldMs = 0;
}

/** Errors that the self-test plants, each of which must be found. */
export const PLANTED_ERRORS = ["missing row", "extra row", "one cent", "shifted time zone", "swapped pair", "trailing space", "NULL against empty", "case", "scale", "minus zero"] as const;
export type PlantedError = (typeof PLANTED_ERRORS)[number];

/** A class of its own on one side, seen by nobody else, with the same rows on every side until something is planted. */
export interface Scratch extends AsyncDisposable {
  readonly compared: ComparedClass;
  readonly reader: CutReader;
  plant(error: PlantedError): Promise<void>;
  /** As it was made. */
  restore(): Promise<void>;
}

// ---------------------------------------------------------------- documents

export type RowDifferenceKind = "missing" | "extra" | "mismatched";

/** A row that differed at both cuts. */
export interface RowDifference {
  readonly kind: RowDifferenceKind;
  /** Text per key column; for a class without key the row's digest. */
  readonly key: readonly string[];
  /** First 16 hex characters of the SHA-256 of the key. */
  readonly keyHash: string;
  /** Columns that differ, for `mismatched`. */
  readonly columns: readonly string[];
  readonly category: BreakCategory;
  /** How many such rows, for a class without key. */
  readonly times: number;
}

/** What makes one row of the target what the source's is. */
export interface RowRepair {
  readonly kind: RowDifferenceKind;
  readonly key: readonly string[];
  /** The source's row in the target's form; null for an extra row. */
  readonly row: RowText | null;
  /** Columns to set, for `mismatched`. */
  readonly columns: readonly string[];
  /** How many equal rows, for a class without key. */
  readonly times: number;
}

export const BREAK_CATEGORIES = ["timing", "missing", "extra", "mismatched", "mapping", "duplicate", "rounding"] as const;
export type BreakCategory = (typeof BREAK_CATEGORIES)[number];

/** The same figure on both sides. Decimal text. */
export interface MoneyComparison {
  readonly column: string;
  readonly currency: string | null;
  readonly source: string;
  readonly target: string;
  readonly difference: string;
  /** Largest scale on either side. */
  readonly scale: number;
  readonly sourceSpecial: SpecialCounts;
  readonly targetSpecial: SpecialCounts;
  readonly sourceMin: string | null;
  readonly targetMin: string | null;
  readonly sourceMax: string | null;
  readonly targetMax: string | null;
  /** An ISO 4217 code. */
  readonly iso: boolean;
}

export interface SpecialCounts {
  readonly nulls: string;
  readonly nan: string;
  readonly infinite: string;
  readonly negativeInfinite: string;
}

/** Figures of one business date. */
export interface DayComparison {
  readonly day: string;
  readonly sourceRows: string;
  readonly targetRows: string;
  readonly money: readonly { readonly column: string; readonly currency: string | null; readonly source: string; readonly target: string }[];
}

export interface ClassComparison {
  readonly class: string;
  readonly verdict: Verdict;
  /** Why it is not comparable; what the operator should know of the verdict. */
  readonly note: string | null;
  readonly position: string | null;
  readonly at: string | null;
  readonly sourceRows: string | null;
  readonly targetRows: string | null;
  readonly difference: string | null;
  readonly money: readonly MoneyComparison[];
  readonly days: readonly DayComparison[];
  /** Rows whose canonical form was hashed, on each side. */
  readonly hashedRows: string;
  /** When the part that was proven longest ago was proven; null: never. */
  readonly provenSince: string | null;
  /** Slices whose rows were being written at the moment of a cut without a slot: they were not looked at, and stay marked. */
  readonly leftOut: number;
  readonly differences: { readonly missing: number; readonly extra: number; readonly mismatched: number; readonly healed: number; readonly complete: boolean };
  readonly rows: readonly RowDifference[];
  readonly seconds: number;
}

/** A differing row with its values; those of sensitive columns as a keyed hash, so that equal values show as equal. */
export interface DiffRow {
  readonly kind: RowDifferenceKind;
  readonly keyHash: string;
  readonly key: Readonly<Record<string, string>>;
  readonly times: number;
  readonly columns: readonly { readonly name: string; readonly source: string | null; readonly target: string | null }[];
}

export interface DiffDocument {
  readonly class: string;
  readonly position: string;
  readonly at: string;
  /** How many rows differ; with `complete` false at least so many. */
  readonly total: number;
  readonly complete: boolean;
  readonly rows: readonly DiffRow[];
}

export interface RepairDocument {
  readonly class: string;
  readonly applied: boolean;
  readonly rows: number;
  readonly complete: boolean;
  /** Values of sensitive columns are left out. */
  readonly statements: readonly string[];
  /** The comparison that followed; null when nothing was applied. */
  readonly comparison: ComparisonDocument | null;
}

export interface SelfTestDocument {
  readonly passed: boolean;
  readonly errors: readonly { readonly error: PlantedError; readonly found: boolean; readonly rows: number }[];
  /** Unchanged classes were found equal. */
  readonly equalBefore: boolean;
}

export interface ComparisonDocument {
  readonly id: string;
  readonly kind: "scheduled" | "daily" | "manual" | "cutover" | "selftest";
  readonly full: boolean;
  /** Every class was asked for. */
  readonly whole: boolean;
  readonly startedAt: string;
  readonly finishedAt: string | null;
  readonly position: string | null;
  readonly cutAt: string | null;
  readonly cutBy: CutWay | null;
  /** Milliseconds for which the applier was held. */
  readonly holdMs: number | null;
  /** Milliseconds that the stream took to come to the cut, applying all the while: long behind a huge transaction. */
  readonly waitMs: number | null;
  readonly seconds: number;
  /** The worst of the classes'. */
  readonly verdict: Verdict;
  readonly classes: readonly ClassComparison[];
}

const WORST: readonly Verdict[] = ["confirmed_out_of_sync", "in_flight", "not_comparable", "in_sync"];

export function worstVerdict(verdicts: readonly Verdict[]): Verdict {
  return WORST.find((verdict) => verdicts.includes(verdict)) ?? "not_comparable";
}
