/**
 * The canonical row of a class, as SQL on either side: what comparisons count, sum and hash.
 *
 * Written apart from the copy (select.ts) on purpose, so that one mistake cannot hide in both. Columns whose type both
 * servers send in the same bytes go into the hash as those bytes; everything else as its text under the pinned settings.
 */
import { sliceKindAcross, type ColumnFacts, type ComparedClass, type MappedColumn, type Side, type SliceKind } from "../../src/core/index.ts";
import type { Projection } from "./projection.ts";
import { projectAcross } from "./canonical-across.ts";
import { quoteIdent, quoteLiteral, quoteTable } from "./identifiers.ts";
import { wherePredicate } from "./select.ts";

/** Types whose sent bytes are one-to-one with their values and equal in all supported versions. */
const SENT_ALIKE: ReadonlySet<string> = new Set([
  "bool", "int2", "int4", "int8", "float4", "float8", "numeric", "text", "varchar", "bpchar", "bytea", "uuid",
  "date", "time", "timetz", "timestamp", "timestamptz", "interval", "jsonb", "json", "inet", "cidr", "macaddr", "macaddr8", "bit", "varbit",
]);

const INTEGERS: ReadonlySet<string> = new Set(["int2", "int4", "int8"]);

export function project(side: Side, compared: ComparedClass): Projection {
  if (compared.across === true) return projectAcross(side, compared);
  const columns = compared.cls.columns.map((column) => canonicalColumn(side, column, compared));
  const byName = new Map(columns.map((column) => [column.name, column]));
  const need = (name: string): CanonicalColumn => {
    return byName.get(name) ?? derivedColumn(side, name, compared);
  };
  const row = `record_send(ROW(${columns.map((column) => column.hashed).join(", ")}))`;
  const key = compared.cls.key.map(need);
  return {
    side, row,
    table: quoteTable(side === "source" ? compared.cls.source : compared.cls.target),
    condition: side === "source" && compared.cls.where !== null ? wherePredicate(compared.cls.where, compared.cls) : null,
    spread: spread(key, row),
    key: key.map((column) => column.text),
    keyColumns: key.map((column) => ({ expression: column.value, type: column.facts.type })),
    slice: slice(compared, key[0]),
    texts: new Map(columns.map((column) => [column.name, column.text])),
    value: (name) => need(name).value,
    typeOf: (name) => need(name).facts,
  };
}

/** How the class's key space is divided: both tables' leading key columns must be of one kind. */
export function sliceKindOf(compared: ComparedClass): SliceKind {
  if (compared.across === true) return sliceKindAcross(compared);
  const leading = compared.cls.key[0];
  const column = compared.cls.columns.find((one) => one.target === leading);
  if (column?.from == null) return "whole";
  const from = factsOf(compared.source.columns, column.from);
  const to = factsOf(compared.target.columns, column.target);
  if (INTEGERS.has(plainName(from)) && INTEGERS.has(plainName(to))) return "integer";
  return plainName(from) === "uuid" && plainName(to) === "uuid" ? "uuid" : "whole";
}

interface CanonicalColumn {
  readonly name: string;
  /** Facts of the column whose type `value` has. */
  readonly facts: ColumnFacts;
  readonly value: string;
  readonly hashed: string;
  readonly text: string;
}

function canonicalColumn(side: Side, column: MappedColumn, compared: ComparedClass): CanonicalColumn {
  const to = factsOf(compared.target.columns, column.target);
  const from = column.from === null ? null : factsOf(compared.source.columns, column.from);
  const alike = areAlike(column, from, to);
  const value = side === "target" ? `t.${quoteIdent(column.target)}` : sourceValue(column, from, to);
  const facts = side === "target" || from === null || column.map !== null || isWidened(from, to) ? to : from;
  const text = `(${value})::text`;
  return { name: column.target, facts, value, hashed: alike ? value : text, text };
}

/** A column that both sides generate for themselves is not copied; it can be summed all the same. */
function derivedColumn(side: Side, name: string, compared: ComparedClass): CanonicalColumn {
  const facts = factsOf(compared[side].columns, name);
  const value = `t.${quoteIdent(name)}`;
  return { name, facts, value, hashed: value, text: `(${value})::text` };
}

/** Equal bytes for equal values on both sides: the same type of the server's own, or a constant of one. */
function areAlike(column: MappedColumn, from: ColumnFacts | null, to: ColumnFacts): boolean {
  if (column.map !== null || !isPlain(to) || !SENT_ALIKE.has(to.baseTypeName)) return false;
  return from === null || (isPlain(from) && (from.baseTypeName === to.baseTypeName || isWidened(from, to)));
}

function sourceValue(column: MappedColumn, from: ColumnFacts | null, to: ColumnFacts): string {
  if (from === null) return constant(column.constant, to);
  const name = `t.${quoteIdent(from.name)}`;
  if (column.map !== null) return mapped(name, column.map);
  return isWidened(from, to) ? `${name}::${to.type}` : name;
}

/** Numbers that the target writes with more digits are brought to its type: preflight has made sure that none is lost. */
function isWidened(from: ColumnFacts, to: ColumnFacts): boolean {
  if (!isPlain(from) || !isPlain(to) || from.type === to.type) return false;
  return (to.baseTypeName === "numeric" && (from.baseTypeName === "numeric" || INTEGERS.has(from.baseTypeName))) || (INTEGERS.has(to.baseTypeName) && INTEGERS.has(from.baseTypeName));
}

function constant(value: string | null, to: ColumnFacts): string {
  const literal = value === null ? "NULL" : quoteLiteral(value);
  return isPlain(to) && !["varchar", "bpchar"].includes(to.baseTypeName) ? `${literal}::${to.type}` : `${literal}::text`;
}

/** A value that the map does not know shows as a difference. */
function mapped(name: string, map: ReadonlyMap<string, string>): string {
  const cases = [...map].map(([from, to]) => `WHEN ${quoteLiteral(from)} THEN ${quoteLiteral(to)}`).join(" ");
  return `CASE ${name}::text ${cases} ELSE chr(1) || ${name}::text END`;
}

function isPlain(facts: ColumnFacts): boolean {
  return facts.typeKind === "base" && facts.typeSchema === "pg_catalog";
}

function plainName(facts: ColumnFacts): string {
  return isPlain(facts) ? facts.baseTypeName : "";
}

function factsOf(columns: readonly ColumnFacts[], name: string): ColumnFacts {
  const facts = columns.find((column) => column.name === name);
  if (facts === undefined) throw new TypeError(`the catalogue has no column "${name}"`);
  return facts;
}

function spread(key: readonly CanonicalColumn[], row: string): string {
  if (key.length === 0) return `hashtextextended(encode(${row}, 'hex') COLLATE "C", 0)`;
  if (key.length === 1 && INTEGERS.has(plainName(key[0]!.facts))) return `hashint8extended(${key[0]!.value}, 0)`;
  return `hashtextextended((${key.map((column) => column.text).join(" || chr(1) || ")}) COLLATE "C", 0)`;
}

function slice(compared: ComparedClass, leading: CanonicalColumn | undefined): Projection["slice"] {
  if (leading === undefined) return { kind: "whole", column: "", type: "" };
  return { kind: sliceKindOf(compared), column: leading.value, type: leading.facts.type };
}
