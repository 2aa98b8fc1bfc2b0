/** PostgreSQL's types in the words that all engines share, and how its columns take common text. */
import type { ColumnFacts, CommonType, Conversion } from "../../src/core/index.ts";

type Facts = Omit<ColumnFacts, "common">;

const TYPES: Readonly<Record<string, (modifiers: readonly number[]) => CommonType>> = {
  bool: () => ({ kind: "boolean" }),
  int2: () => ({ kind: "integer", bits: 16, unsigned: false }),
  int4: () => ({ kind: "integer", bits: 32, unsigned: false }),
  int8: () => ({ kind: "integer", bits: 64, unsigned: false }),
  numeric: ([precision, scale = 0]) => (precision === undefined ? { kind: "unbounded decimal" } : { kind: "decimal", precision, scale }),
  float4: () => ({ kind: "float", bits: 32 }),
  float8: () => ({ kind: "float", bits: 64 }),
  text: () => ({ kind: "text", characters: null, padded: false }),
  varchar: ([characters = null]) => ({ kind: "text", characters, padded: false }),
  bpchar: ([characters = 1]) => ({ kind: "text", characters, padded: true }),
  bytea: () => ({ kind: "bytes", length: null, fixed: false }),
  bit: ([length = 1]) => ({ kind: "bits", length }),
  date: () => ({ kind: "date" }),
  time: ([fraction = 6]) => ({ kind: "time", fraction, long: false }),
  interval: ([fraction = 6]) => ({ kind: "time", fraction, long: true }),
  timestamp: ([fraction = 6]) => ({ kind: "timestamp", fraction }),
  timestamptz: ([fraction = 6]) => ({ kind: "instant", fraction }),
  uuid: () => ({ kind: "uuid" }),
  json: () => ({ kind: "json", exact: true }),
  jsonb: () => ({ kind: "json", exact: false }),
  inet: () => ({ kind: "address" }),
};

export function commonTypeOf(column: Facts): CommonType {
  if (column.typeKind === "enum") return { kind: "label", labels: column.enumLabels ?? [] };
  const own = column.typeKind === "base" && column.typeSchema === "pg_catalog";
  const make = own || column.typeKind === "domain" ? TYPES[column.baseTypeName] : undefined;
  return make === undefined ? { kind: "other", name: column.type } : make(modifiersOf(column.type));
}

export function withCommonType(column: Facts): ColumnFacts {
  return { ...column, common: commonTypeOf(column) };
}

/** `numeric(14,2)` has 14 and 2. */
function modifiersOf(printed: string): number[] {
  return /\(([\d,]+)\)/.exec(printed)?.[1]?.split(",").map(Number) ?? [];
}

/** How common text becomes what the column takes; null: as it is. */
export function conversionInto({ kind }: CommonType): Conversion | null {
  return kind === "bytes" ? "bytea" : kind === "instant" ? "utc" : null;
}
