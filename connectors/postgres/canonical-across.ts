/**
 * The canonical row of a class whose other side is another engine: every column as the text that both engines give the same value
 * (src/core/common-types.ts), each with its length before it. See engine-notes on row checksums; connectors/mysql/digest.ts is the other side.
 */
import { canonicalForm, sliceKindAcross, type CanonicalForm, type ColumnFacts, type ComparedClass, type MappedColumn, type Side } from "../../src/core/index.ts";
import { quoteIdent, quoteLiteral, quoteTable } from "./identifiers.ts";
import type { Projection } from "./projection.ts";
import { wherePredicate } from "./select.ts";

export function projectAcross(side: Side, compared: ComparedClass): Projection {
  const { cls } = compared;
  const texts = new Map(cls.columns.map((column) => [column.target, columnText(side, column, compared)]));
  const text = (name: string): string => texts.get(name)!;
  const row = framed([...texts.values()]);
  const key = cls.key.map(text);
  return {
    side, key, texts,
    table: quoteTable(side === "source" ? cls.source : cls.target),
    condition: side === "source" && cls.where !== null ? wherePredicate(cls.where, cls) : null,
    row: bytes(row),
    spread: `('x' || substr(encode(sha256(${bytes(key.length === 0 ? row : framed(key))}), 'hex'), 1, 15))::bit(60)::bigint`,
    keyColumns: key.map((expression) => ({ expression, type: "text" })),
    slice: sliceOf(side, compared),
    value: (name) => `t.${quoteIdent(factsOn(side, name, compared).name)}`,
    typeOf: (name) => factsOn(side, name, compared),
  };
}

function sliceOf(side: Side, compared: ComparedClass): Projection["slice"] {
  const kind = sliceKindAcross(compared);
  if (kind === "whole") return { kind, column: "", type: "" };
  const facts = factsOn(side, compared.cls.key[0]!, compared);
  return { kind, column: `t.${quoteIdent(facts.name)}`, type: facts.type };
}

/** The column of one side that a target column's values stand in. */
function factsOn(side: Side, target: string, { cls, ...tables }: ComparedClass): ColumnFacts {
  const mapped = cls.columns.find((column) => column.target === target);
  const name = side === "target" ? target : mapped?.from ?? target;
  const facts = tables[side].columns.find((column) => column.name === name);
  if (facts === undefined) throw new TypeError(`the catalogue has no column "${name}"`);
  return facts;
}

function bytes(text: string): string {
  return `convert_to(${text}, 'UTF8')`;
}

function framed(texts: readonly string[]): string {
  return `(${texts.map((text) => `coalesce(length(${text}) || ':' || (${text}), 'N')`).join(" || ")})`;
}

function columnText(side: Side, column: MappedColumn, compared: ComparedClass): string {
  const to = factsOn("target", column.target, compared);
  if (column.from === null) return side === "source" ? "'='" : constantText(to, column.constant);
  const from = compared.source.columns.find((one) => one.name === column.from)!;
  const own = side === "source" ? from : to;
  if (column.map !== null) return side === "target" ? `(t.${quoteIdent(own.name)})::text` : mappedText(own, column.map);
  return canonicalText(own, canonicalForm(from.common, to.common));
}

/** `=` where the column holds the constant. */
function constantText({ name, type }: ColumnFacts, constant: string | null): string {
  const value = `t.${quoteIdent(name)}`;
  const same = constant === null ? `${value} IS NULL` : `${value}::text = (${quoteLiteral(constant)}::${type})::text`;
  return `CASE WHEN ${same} THEN '=' ELSE '!' || coalesce(${value}::text, '') END`;
}

function mappedText({ name }: ColumnFacts, map: ReadonlyMap<string, string>): string {
  const value = `(t.${quoteIdent(name)})::text`;
  const cases = [...map].map(([from, to]) => `WHEN ${quoteLiteral(from)} THEN ${quoteLiteral(to)}`).join(" ");
  return `CASE ${value} ${cases} ELSE chr(1) || ${value} END`;
}

/** A value of one of PostgreSQL's columns in a canonical form. */
export function canonicalText({ name, common }: ColumnFacts, form: CanonicalForm): string {
  const value = `t.${quoteIdent(name)}`;
  switch (form.form) {
    case "integer": return common.kind === "boolean" || common.kind === "bits" ? `${value}::int::text` : `${value}::text`;
    case "decimal": return decimalText(`${value}::numeric`, form.scale);
    case "double": return `encode(float8send(${value}::float8), 'hex')`;
    case "text": return common.kind === "address" ? addressText(value) : `${value}::text`;
    case "unpadded text": return `rtrim(${value}::text, ' ')`;
    case "hex": return common.kind === "bytes" ? `encode(${value}, 'hex')` : `lower(replace(${value}::text, '-', ''))`;
    case "date": return `${value}::text`;
    case "microseconds": return `round(extract(epoch FROM ${value}) * 1000000)::bigint::text`;
    case "timestamp": return timestampText(common.kind === "instant" ? `(${value} AT TIME ZONE 'UTC')` : `${value}::timestamp`);
    case "bits": return `${value}::text`;
    case "presence": return `CASE WHEN ${value} IS NOT NULL THEN '?' END`;
  }
}

/** Without the mask of a single address. */
function addressText(value: string): string {
  return `CASE WHEN masklen(${value}) = CASE family(${value}) WHEN 4 THEN 32 ELSE 128 END THEN host(${value}) ELSE ${value}::text END`;
}

/** What has more digits than the form shows them all, and so differs. */
function decimalText(value: string, scale: number): string {
  return `CASE WHEN ${value} = round(${value}, ${scale}) THEN round(${value}, ${scale})::text ELSE ${value}::text END`;
}

function timestampText(value: string): string {
  return `CASE WHEN isfinite(${value}) THEN to_char(${value}, 'YYYY-MM-DD HH24:MI:SS.US') || CASE WHEN ${value} < '0001-01-01' THEN ' BC' ELSE '' END ELSE ${value}::text END`;
}
