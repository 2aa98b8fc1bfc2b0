/** A confirmed difference, from the moment it was found until somebody has settled it. */
import type { BreakCategory, MoneyComparison, RowDifference } from "./comparison.ts";

export type BreakResolution = "repaired" | "explained" | "timing";

export interface BreakDocument {
  readonly id: string;
  readonly class: string;
  readonly category: BreakCategory;
  readonly openedAt: string;
  readonly lastSeenAt: string;
  /** Since when comparisons have not seen it any more; it stays open all the same. */
  readonly cleanSince: string | null;
  /** The comparison that saw it last; null: the applier met it. */
  readonly comparison: string | null;
  readonly rows: number;
  /** Money that differs, of the class as a whole. */
  readonly money: readonly MoneyComparison[];
  /** Some of the rows, without values. */
  readonly sample: readonly Pick<RowDifference, "kind" | "keyHash" | "columns" | "times">[];
  readonly owner: string | null;
  readonly note: string | null;
  readonly resolution: BreakResolution | null;
  readonly resolvedAt: string | null;
  readonly resolvedBy: string | null;
}

export const BREAK_AGES = ["under_1h", "under_1d", "under_7d", "older"] as const;
export type BreakAge = (typeof BREAK_AGES)[number];

/** By how long it has been open. */
export function breakAge(openedAt: string, now = Date.now()): BreakAge {
  const hours = (now - Date.parse(openedAt)) / 3_600_000;
  return hours < 1 ? "under_1h" : hours < 24 ? "under_1d" : hours < 168 ? "under_7d" : "older";
}
