/** Whether the rows of a class may travel in PostgreSQL's binary encoding. */
import { findTable, type Catalogue, type ColumnFacts, type MappedColumn, type Predicate, type RecordClass, type ValueFormat } from "../../src/core/index.ts";
import { postgresFacts } from "./inspect.ts";
import { valueType, type ValueType } from "./typefit.ts";

/** Built-in types whose binary form is the same in all supported versions and names nothing of one server. */
const STABLE: ReadonlySet<string> = new Set([
  "bool", "int2", "int4", "int8", "float4", "float8", "numeric", "money", "oid", "text", "varchar", "bpchar", "name", "char", "bytea", "uuid",
  "date", "time", "timetz", "timestamp", "timestamptz", "interval", "json", "jsonb", "inet", "cidr", "macaddr", "macaddr8", "bit", "varbit",
  "point", "line", "lseg", "box", "path", "polygon", "circle", "tsvector", "pg_lsn",
  "int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange",
  "int4multirange", "int8multirange", "nummultirange", "datemultirange", "tsmultirange", "tstzmultirange",
]);

/** Extension types with a binary form of their own that holds no object identifiers. */
const STABLE_EXTENSIONS: ReadonlySet<string> = new Set(["hstore", "citext"]);

/** Types whose binary form is their text. */
const TEXTUAL: ReadonlySet<string> = new Set(["text", "varchar", "bpchar", "name", "citext"]);

/**
 * `binary` only when the bytes that the source sends for every mapped column are what the target takes for the same value,
 * and when whatever dualrun itself has to look at (map, constant, where) is text in either encoding.
 */
export function formatFor(cls: RecordClass, source: Catalogue, target: Catalogue): ValueFormat {
  if (source.server.engine !== "postgres" || target.server.engine !== "postgres") return "text";
  const sourceTypes = typesOf(source, cls, "source");
  const targetTypes = typesOf(target, cls, "target");
  const sameMoney = source.server.settings["lc_monetary"] === target.server.settings["lc_monetary"] && Boolean(source.server.settings["lc_monetary"]);
  const columns = cls.columns.every((column) => columnIsBinary(column, sourceTypes, targetTypes, sameMoney));
  return columns && whereIsTextual(cls.where, sourceTypes) ? "binary" : "text";
}

function typesOf(catalogue: Catalogue, cls: RecordClass, side: "source" | "target"): Map<string, ValueType> {
  const facts = postgresFacts(catalogue);
  const columns: readonly ColumnFacts[] = findTable(catalogue, cls[side])?.columns ?? [];
  return new Map(columns.map((column) => [column.name, valueType(column, facts)]));
}

function columnIsBinary(column: MappedColumn, source: ReadonlyMap<string, ValueType>, target: ReadonlyMap<string, ValueType>, sameMoney: boolean): boolean {
  const to = target.get(column.target);
  if (to === undefined) return false;
  if (column.from === null) return isTextual(to);
  const from = source.get(column.from);
  if (from === undefined) return false;
  if (column.map !== null) return isTextual(from) && isTextual(to);
  return sameBytes(from, to) && (from.name !== "money" || sameMoney);
}

function sameBytes(from: ValueType, to: ValueType): boolean {
  if (from.array !== to.array || from.name !== to.name || from.builtIn !== to.builtIn) return false;
  if (from.builtIn) return STABLE.has(from.name);
  if (from.array) return false; // the element's OID stands in the bytes
  if (from.labels !== null && to.labels !== null) return from.labels.every((label) => to.labels!.includes(label));
  return STABLE_EXTENSIONS.has(from.name) && from.kind === to.kind;
}

function isTextual(type: ValueType): boolean {
  return !type.array && (type.labels !== null || (TEXTUAL.has(type.name) && (type.builtIn || type.name === "citext")));
}

function whereIsTextual(where: Predicate | null, types: ReadonlyMap<string, ValueType>): boolean {
  if (where === null) return true;
  switch (where.op) {
    case "and": case "or": return whereIsTextual(where.left, types) && whereIsTextual(where.right, types);
    case "not": return whereIsTextual(where.operand, types);
    case "isNull": return true;
    case "compare": case "in": {
      const type = types.get(where.column);
      return type !== undefined && isTextual(type);
    }
  }
}
