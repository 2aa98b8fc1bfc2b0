/** PostgreSQL's types in the words that all engines share, and how its columns take common text. */
import type { ColumnFacts, CommonType, Conversion } from "../../src/core/index.ts";

type Facts = Omit<ColumnFacts, "common">;

type Make = (modifiers: readonly number[]) => CommonType;

const TYPES = {
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
} as const satisfies Readonly<Record<string, Make>>;

/** How columns of each type are declared, as the catalogue prints them. */
const DECLARED: Readonly<Record<keyof typeof TYPES, readonly string[]>> = {
  bool: ["boolean"],
  int2: ["smallint"],
  int4: ["integer"],
  int8: ["bigint"],
  numeric: ["numeric(14,2)", "numeric(20,0)", "numeric"],
  float4: ["real"],
  float8: ["double precision"],
  text: ["text"],
  varchar: ["character varying(100)"],
  bpchar: ["character(10)", "character(36)"],
  bytea: ["bytea"],
  bit: ["bit(1)", "bit(8)"],
  date: ["date"],
  time: ["time without time zone"],
  interval: ["interval"],
  timestamp: ["timestamp without time zone"],
  timestamptz: ["timestamp with time zone"],
  uuid: ["uuid"],
  json: ["json"],
  jsonb: ["jsonb"],
  inet: ["inet"],
};

/** A column of each type, as the catalogue would show it. */
export function typeSamples(): ColumnFacts[] {
  return [...Object.entries(DECLARED).flatMap(([name, declared]) => declared.map((type) => sample(name, type, null))), sample("an_enum", "enum('a','b')", ["a", "b"])];
}

function sample(name: string, type: string, enumLabels: readonly string[] | null): ColumnFacts {
  const own = enumLabels === null;
  return withCommonType({
    name, type, baseTypeName: name, typeName: name, typeKind: own ? "base" : "enum", typeSchema: own ? "pg_catalog" : "public", notNull: false, generated: null, identity: null, hasDefault: false, collation: null, enumLabels,
  });
}

export function commonTypeOf(column: Facts): CommonType {
  if (column.typeKind === "enum") return { kind: "label", labels: column.enumLabels ?? [] };
  const own = column.typeKind === "base" && column.typeSchema === "pg_catalog";
  const make = own || column.typeKind === "domain" ? (TYPES as Readonly<Record<string, Make>>)[column.baseTypeName] : undefined;
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
