/** The proof's documents as schemas, for /openapi.json. The types are core's: the compiler holds both together. */
import { z } from "zod";
import {
  BREAK_CATEGORIES, CUT_WAYS, PLANTED_ERRORS, VERDICTS,
  type BreakDocument, type ClassComparison, type ComparisonDocument, type DayComparison, type DiffDocument, type DiffRow, type MoneyComparison, type RepairDocument,
  type RowDifference, type SelfTestDocument, type SpecialCounts,
} from "../core/index.ts";

type Shape<T> = { readonly [K in keyof T]-?: z.ZodType<T[K]> };

const time = (about: string) => z.string().describe(`${about} ISO 8601.`).meta({ format: "date-time" });
const decimal = (about: string) => z.string().describe(`${about} Decimal text.`);
const digits = (about: string) => z.string().describe(`${about} A whole number as text.`);
const kind = z.enum(["missing", "extra", "mismatched"]);
const category = z.enum(BREAK_CATEGORIES);
const verdict = z.enum(VERDICTS);

const special: z.ZodType<SpecialCounts> = z.looseObject({
  nulls: digits("NULLs."), nan: digits("Not a number."), infinite: digits("Infinity."), negativeInfinite: digits("Minus infinity."),
} satisfies Shape<SpecialCounts>).meta({ id: "SpecialCounts" });

const money: z.ZodType<MoneyComparison> = z.looseObject({
  column: z.string(), currency: z.string().nullable().describe("As it stands in the rows; null where they have none."),
  source: decimal("Sum of finite values on the source."), target: decimal("The same on the target."), difference: decimal("Target less source."),
  scale: z.number().int(), sourceSpecial: special, targetSpecial: special,
  sourceMin: z.string().nullable(), targetMin: z.string().nullable(), sourceMax: z.string().nullable(), targetMax: z.string().nullable(),
  iso: z.boolean().describe("The currency is an ISO 4217 code."),
} satisfies Shape<MoneyComparison>).meta({ id: "MoneyComparison" });

const day: z.ZodType<DayComparison> = z.looseObject({
  day: z.string().describe("A business date, earlier, later or undated."), sourceRows: digits("Rows on the source."), targetRows: digits("Rows on the target."),
  money: z.array(z.looseObject({ column: z.string(), currency: z.string().nullable(), source: z.string(), target: z.string() })),
} satisfies Shape<DayComparison>).meta({ id: "DayComparison" });

const rowDifference: z.ZodType<RowDifference> = z.looseObject({
  kind, key: z.array(z.string()), keyHash: z.string(), columns: z.array(z.string()), category, times: z.number().int(),
} satisfies Shape<RowDifference>).meta({ id: "RowDifference" });

const classComparison: z.ZodType<ClassComparison> = z.looseObject({
  class: z.string(), verdict, note: z.string().nullable(), position: z.string().nullable(), at: time("The moment that was compared.").nullable(),
  sourceRows: digits("Rows on the source.").nullable(), targetRows: digits("Rows on the target.").nullable(), difference: digits("Target less source.").nullable(),
  money: z.array(money), days: z.array(day), hashedRows: digits("Rows whose every value was compared."), provenSince: time("When the part whose proof is oldest was proven.").nullable(),
  leftOut: z.number().int().describe("Parts of the key space that were being written at a cut without a slot, and were not looked at."),
  differences: z.looseObject({ missing: z.number(), extra: z.number(), mismatched: z.number(), healed: z.number(), complete: z.boolean() }),
  rows: z.array(rowDifference).describe("Without their values; keys only for operators."), seconds: z.number(),
} satisfies Shape<ClassComparison>).meta({ id: "ClassComparison" });

export const comparisonSchema: z.ZodType<ComparisonDocument> = z.looseObject({
  id: z.string(), kind: z.enum(["scheduled", "daily", "manual", "cutover", "selftest"]), full: z.boolean(), whole: z.boolean().describe("Every class was asked for."),
  startedAt: time("When it began."), finishedAt: time("When it ended.").nullable(), position: z.string().nullable(), cutAt: time("The moment that was compared.").nullable(),
  cutBy: z.enum(CUT_WAYS).nullable().describe("slot-free: beside a transaction on the source that did not end."), holdMs: z.number().nullable().describe("For how long nothing was applied because of it."), waitMs: z.number().nullable().describe("How long the stream took to come to it, applying: long behind a huge transaction."), seconds: z.number(), verdict,
  classes: z.array(classComparison),
} satisfies Shape<ComparisonDocument>).meta({ id: "Comparison" });

export const comparisonsSchema: z.ZodType<{ readonly comparisons: readonly ComparisonDocument[] }> = z.looseObject({ comparisons: z.array(comparisonSchema) });

export const breakSchema: z.ZodType<BreakDocument> = z.looseObject({
  id: z.string(), class: z.string(), category, openedAt: time("When it was found."), lastSeenAt: time("When it was seen last."),
  cleanSince: time("Since when comparisons do not see it any more.").nullable(), comparison: z.string().nullable(), rows: z.number(), money: z.array(money),
  sample: z.array(z.looseObject({ kind, keyHash: z.string(), columns: z.array(z.string()), times: z.number() })),
  owner: z.string().nullable(), note: z.string().nullable(), resolution: z.enum(["repaired", "explained", "timing"]).nullable(), resolvedAt: time("When it was settled.").nullable(), resolvedBy: z.string().nullable(),
} satisfies Shape<BreakDocument>).meta({ id: "Break" });

export const breaksSchema: z.ZodType<{ readonly breaks: readonly BreakDocument[] }> = z.looseObject({ breaks: z.array(breakSchema) });

const diffRow: z.ZodType<DiffRow> = z.looseObject({
  kind, keyHash: z.string(), key: z.record(z.string(), z.string()), times: z.number(),
  columns: z.array(z.looseObject({ name: z.string(), source: z.string().nullable(), target: z.string().nullable() })),
} satisfies Shape<DiffRow>).meta({ id: "DiffRow" });

export const diffSchema: z.ZodType<DiffDocument> = z.looseObject({
  class: z.string(), position: z.string(), at: time("The moment that was compared."), total: z.number().int(), complete: z.boolean(), rows: z.array(diffRow),
} satisfies Shape<DiffDocument>).meta({ id: "Diff" });

export const repairSchema: z.ZodType<RepairDocument> = z.looseObject({
  class: z.string(), applied: z.boolean(), rows: z.number().int(), complete: z.boolean(), statements: z.array(z.string()), comparison: comparisonSchema.nullable(),
} satisfies Shape<RepairDocument>).meta({ id: "Repair" });

export const selfTestSchema: z.ZodType<SelfTestDocument> = z.looseObject({
  passed: z.boolean(), equalBefore: z.boolean(), errors: z.array(z.looseObject({ error: z.enum(PLANTED_ERRORS), found: z.boolean(), rows: z.number().int() })),
} satisfies Shape<SelfTestDocument>).meta({ id: "SelfTest" });

const className = z.string().min(1).max(128);

export const compareBody = z.strictObject({ class: className.optional().describe("Default: every class."), full: z.boolean().default(false).describe("Compare every value of every row.") }).nullish();
export const begunSchema = z.looseObject({ id: z.string().describe("Where the result will be: /api/v1/comparisons/{id}; it is there when `finishedAt` is.") });
export const repairBody = z.strictObject({ class: className, apply: z.boolean().default(false).describe("Without it the statements are only shown.") });
export const resolveBody = z.strictObject({
  note: z.string().trim().min(1, "a note is needed: why it is settled").max(2_000), resolution: z.enum(["explained", "timing", "repaired"]).default("explained"),
});
export const ownerBody = z.strictObject({ owner: z.string().trim().min(1, "who takes care of it").max(200) });
export const idParams = z.object({ id: z.string().regex(/^\d{1,18}$/, "a number") });
export const comparisonsQuery = z.strictObject({ class: className.optional(), from: z.iso.datetime({ offset: true }).optional(), limit: z.coerce.number().int().min(1).max(1_000).default(50) });
export const breaksQuery = z.strictObject({ open: z.enum(["true", "false"]).default("true") });
export const diffQuery = z.strictObject({ limit: z.coerce.number().int().min(1).max(1_000).default(50) });
