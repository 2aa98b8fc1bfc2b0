/** The rows that differ: shown with masked values, and mended. */
import { createHmac } from "node:crypto";
import { DualrunError, type ComparedClass, type DiffDocument, type DiffRow, type RowDifference, type RowRepair, type RowText, type Target, type Checkpoint } from "../core/index.ts";
import { leftOutOf, type Cut } from "./compare.ts";
import { describe, locate } from "./locate.ts";

/** Rows that are mended while the stream is held once. */
const REPAIRED_AT_ONCE = 1_000;

/** Differing rows of one class at one cut. */
export interface Differences {
  readonly rows: readonly RowDifference[];
  readonly total: number;
  readonly complete: boolean;
}

export async function differencesAt(cut: Cut, compared: ComparedClass, limit: number): Promise<Differences> {
  const isWhole = leftOutOf(cut, compared.cls.name).length === 0;
  const { suspects, complete } = await locate(cut, compared);
  const total = suspects.reduce((sum, { times }) => sum + times, 0);
  return { rows: await describe(cut, compared, suspects.slice(0, limit)), total, complete: complete && isWhole };
}

/** With the values of both sides, sensitive ones as a hash with `maskKey`. */
export async function diffAt(cut: Cut, compared: ComparedClass, limit: number, maskKey: string): Promise<DiffDocument> {
  const { rows, total, complete } = await differencesAt(cut, compared, limit);
  const keys = rows.map(({ key }) => key);
  const [ours, theirs] = await Promise.all([cut.source.rowsByKey(compared, keys), cut.target.rowsByKey(compared, keys)]);
  const mask = masking(compared, maskKey);
  return {
    class: compared.cls.name, position: cut.position, at: cut.at.toISOString(), total, complete,
    rows: rows.map((row, i) => diffRow(row, compared, ours[i] ?? null, theirs[i] ?? null, mask)),
  };
}

type Mask = (column: string, value: string | null) => string | null;

function masking(compared: ComparedClass, maskKey: string): Mask {
  const sensitive = new Set(compared.cls.sensitive);
  return (column, value) => (value === null || !sensitive.has(column) ? value : `masked:${createHmac("sha256", maskKey).update(value).digest("hex").slice(0, 12)}`);
}

function diffRow(row: RowDifference, compared: ComparedClass, source: RowText | null, target: RowText | null, mask: Mask): DiffRow {
  const names = row.kind === "mismatched" ? row.columns : compared.cls.columns.map((column) => column.target);
  const side = (text: RowText | null, absent: boolean, name: string): string | null => (absent ? null : mask(name, text?.[name] ?? null));
  return {
    kind: row.kind, keyHash: row.keyHash, times: row.times,
    key: Object.fromEntries(compared.cls.key.map((column, i) => [column, mask(column, row.key[i]!)!])),
    columns: names.map((name) => ({ name, source: side(source, row.kind === "extra", name), target: side(target, row.kind === "missing", name) })),
  };
}

/** What would make the target equal; deletes before updates before inserts. */
export async function repairsAt(cut: Cut, compared: ComparedClass, rows: readonly RowDifference[]): Promise<RowRepair[]> {
  const texts = await cut.source.writableByKey(compared, rows.map(({ key }) => key));
  const order = { extra: 0, mismatched: 1, missing: 2 } as const;
  return rows.map(({ kind, key, columns, times }, i) => ({ kind, key, columns, times, row: texts[i] ?? null })).toSorted((a, b) => order[a.kind] - order[b.kind]);
}

/** Mends up to a thousand rows at a cut at which the stream is held; returns how many, and whether there are more. */
export async function repairAt(cut: Cut, held: Checkpoint, target: Target, compared: ComparedClass): Promise<{ readonly rows: number; readonly more: boolean }> {
  const { rows, total } = await differencesAt(cut, compared, REPAIRED_AT_ONCE);
  if (rows.length === 0) return { rows: 0, more: false };
  const repairs = await repairsAt(cut, compared, rows);
  refuseUnwritable(compared, repairs);
  await target.repair(compared, repairs, held);
  const mended = rows.reduce((sum, { times }) => sum + times, 0);
  return { rows: mended, more: mended < total };
}

/** What a column does not show, or a map does not know, cannot be written. */
function refuseUnwritable(compared: ComparedClass, repairs: readonly RowRepair[]): void {
  const where = `class ${compared.cls.name}`;
  if (repairs.some(({ kind, columns }) => kind === "mismatched" && columns.length === 0)) throw new DualrunError("DR7002", "rows differ in a way that no column's text shows", { where });
  const mapped = compared.cls.columns.filter((column) => column.map !== null).map((column) => column.target);
  if (repairs.some(({ row }) => mapped.some((column) => row?.[column]?.startsWith(UNMAPPED) === true))) {
    throw new DualrunError("DR5006", "a value of the source is not in its column's `map`", { where, details: mapped });
  }
}

/** How canonical rows mark a value that the map does not know. */
const UNMAPPED = "\u0001";
