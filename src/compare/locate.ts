/** From a class that differs to the rows that do: groups of keys, then their rows, then their columns. */
import { createHash } from "node:crypto";
import {
  addDecimals, compareDecimals, sameLanes, scaleOf,
  type BreakCategory, type ComparedClass, type CutReader, type Lanes, type RowDifference, type RowDifferenceKind, type RowDigest, type RowText,
} from "../core/index.ts";

/** Rows of both sides that are held in memory at once. */
const ROWS_AT_ONCE = 100_000;
/** Rows that are looked at before the search is given up as incomplete. */
const MOST_ROWS = 4_000_000;
/** Differing rows that are remembered. */
export const MOST_DIFFERENCES = 10_000;

export interface Suspect {
  readonly kind: RowDifferenceKind;
  readonly key: readonly string[];
  /** How many such rows, for a class without key. */
  readonly times: number;
}

export interface Located {
  readonly suspects: readonly Suspect[];
  /** False when there were more than could be looked at. */
  readonly complete: boolean;
}

interface Sides {
  readonly source: CutReader;
  readonly target: CutReader;
}

/** The rows that differ between both sides. */
export async function locate({ source, target }: Sides, compared: ComparedClass): Promise<Located> {
  const [left, right] = await Promise.all([source.groups(compared), target.groups(compared)]);
  const differing = differingGroups(left, right);
  const suspects: Suspect[] = [];
  let looked = 0;
  for (const groups of batches(differing)) {
    if (looked > MOST_ROWS || suspects.length >= MOST_DIFFERENCES) return { suspects, complete: false };
    const ids = groups.map(({ group }) => group);
    const [ours, theirs] = await Promise.all([source.rows(compared, ids), target.rows(compared, ids)]);
    looked += ours.length + theirs.length;
    suspects.push(...(compared.cls.key.length === 0 ? multisetDifference(ours, theirs) : keyedDifference(ours, theirs)));
  }
  return { suspects, complete: true };
}

/** Those that were found at two cuts. */
export function persisting(first: readonly Suspect[], second: readonly Suspect[]): Suspect[] {
  const before = new Set(first.map(identityOf));
  return second.filter((suspect) => before.has(identityOf(suspect)));
}

function identityOf({ key }: Suspect): string {
  return JSON.stringify(key);
}

/** Names columns and category of each. */
export async function describe({ source, target }: Sides, compared: ComparedClass, suspects: readonly Suspect[]): Promise<RowDifference[]> {
  const keys = suspects.filter(({ kind }) => kind === "mismatched").map(({ key }) => key);
  const [ours, theirs] = await Promise.all([source.rowsByKey(compared, keys), target.rowsByKey(compared, keys)]);
  const duplicated = await duplicates({ source, target }, compared, suspects);
  const columns = new Map(keys.map((key, i) => [JSON.stringify(key), differingColumns(ours[i] ?? null, theirs[i] ?? null)]));
  return suspects.map((suspect) => {
    const differing = columns.get(identityOf(suspect)) ?? [];
    return {
      kind: suspect.kind, key: suspect.key, keyHash: keyHash(suspect.key), times: suspect.times, columns: differing.map(({ name }) => name),
      category: suspect.kind !== "mismatched" ? (duplicated.has(identityOf(suspect)) ? "duplicate" : suspect.kind) : categoryOf(compared, differing),
    };
  });
}

/** What is shown instead of a key wherever values must not be. */
export function keyHash(key: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(key)).digest("hex").slice(0, 16);
}

// ---------------------------------------------------------------- groups and rows

interface Group {
  readonly group: number;
  readonly rows: number;
}

function differingGroups(left: ReadonlyMap<number, Lanes>, right: ReadonlyMap<number, Lanes>): Group[] {
  return [...new Set([...left.keys(), ...right.keys()])].flatMap((group) => {
    const [a, b] = [left.get(group), right.get(group)];
    if (a !== undefined && b !== undefined && sameLanes(a, b)) return [];
    return [{ group, rows: Number((a?.count ?? 0n) + (b?.count ?? 0n)) }];
  });
}

function* batches(groups: readonly Group[]): Generator<Group[]> {
  let batch: Group[] = [];
  let rows = 0;
  for (const group of groups) {
    if (batch.length > 0 && rows + group.rows > ROWS_AT_ONCE) {
      yield batch;
      batch = [];
      rows = 0;
    }
    batch.push(group);
    rows += group.rows;
  }
  if (batch.length > 0) yield batch;
}

function keyedDifference(ours: readonly RowDigest[], theirs: readonly RowDigest[]): Suspect[] {
  const left = new Map(ours.map((row) => [JSON.stringify(row.key), row]));
  const found: Suspect[] = [];
  for (const row of theirs) {
    const name = JSON.stringify(row.key);
    const mine = left.get(name);
    left.delete(name);
    if (mine === undefined) found.push({ kind: "extra", key: row.key, times: 1 });
    else if (mine.digest !== row.digest) found.push({ kind: "mismatched", key: row.key, times: 1 });
  }
  for (const row of left.values()) found.push({ kind: "missing", key: row.key, times: 1 });
  return found;
}

function multisetDifference(ours: readonly RowDigest[], theirs: readonly RowDigest[]): Suspect[] {
  const surplus = new Map<string, number>();
  for (const { digest } of theirs) surplus.set(digest, (surplus.get(digest) ?? 0) + 1);
  for (const { digest } of ours) surplus.set(digest, (surplus.get(digest) ?? 0) - 1);
  return [...surplus].filter(([, times]) => times !== 0).map(([digest, times]) => ({ kind: times > 0 ? "extra" : "missing", key: [digest], times: Math.abs(times) }));
}

// ---------------------------------------------------------------- columns and categories

interface DifferingColumn {
  readonly name: string;
  readonly source: string | null;
  readonly target: string | null;
}

function differingColumns(source: RowText | null, target: RowText | null): DifferingColumn[] {
  if (source === null || target === null) return [];
  return Object.keys(source).filter((name) => source[name] !== target[name]).map((name) => ({ name, source: source[name] ?? null, target: target[name] ?? null }));
}

function categoryOf(compared: ComparedClass, differing: readonly DifferingColumn[]): BreakCategory {
  if (differing.length === 0) return "mismatched";
  const isMapped = (name: string): boolean => compared.cls.columns.some((column) => column.target === name && (column.map !== null || column.from === null));
  if (differing.every(({ name }) => isMapped(name))) return "mapping";
  return differing.every(isRounded) ? "rounding" : "mismatched";
}

const DECIMAL = /^-?\d+(\.\d+)?$/;

/** One side holds the other's number with fewer digits behind the point. */
function isRounded({ source, target }: DifferingColumn): boolean {
  if (source === null || target === null || !DECIMAL.test(source) || !DECIMAL.test(target)) return false;
  const [short, long] = scaleOf(source) < scaleOf(target) ? [source, target] : [target, source];
  if (scaleOf(short) === scaleOf(long)) return false;
  const half = `0.${"0".repeat(scaleOf(short))}5`;
  return compareDecimals(addDecimals(short, half), long) >= 0 && compareDecimals(long, addDecimals(short, `-${half}`)) >= 0;
}

/** Rows of a class without key that both sides have, in different numbers. */
async function duplicates({ source, target }: Sides, compared: ComparedClass, suspects: readonly Suspect[]): Promise<ReadonlySet<string>> {
  const digests = suspects.filter(({ kind }) => kind !== "mismatched").map(({ key }) => key[0]!);
  if (compared.cls.key.length > 0 || digests.length === 0) return new Set();
  const [ours, theirs] = await Promise.all([source.digestCounts(compared, digests), target.digestCounts(compared, digests)]);
  return new Set(digests.filter((digest) => (ours.get(digest) ?? 0) > 0 && (theirs.get(digest) ?? 0) > 0).map((digest) => JSON.stringify([digest])));
}
