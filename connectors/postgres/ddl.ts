/** The types that PostgreSQL's tables need for columns of other engines. */
import type { CommonType, Dialect } from "../../src/core/index.ts";
import { quoteIdent } from "./identifiers.ts";

/** How statements that mend a PostgreSQL target are written. */
export const dialect: Dialect = { ident: quoteIdent, typeFor };

/** More than what a row could hold in most engines: no limit is worth keeping. */
const LONG_TEXT = 65_535;

/** The narrowest type that takes every value; null where PostgreSQL has none. */
export function typeFor(common: CommonType): string | null {
  switch (common.kind) {
    case "boolean": case "date": case "uuid": return common.kind;
    case "integer": return integerFor(common.bits, common.unsigned);
    case "decimal": return `numeric(${common.precision},${common.scale})`;
    case "unbounded decimal": return "numeric";
    case "float": return common.bits === 32 ? "real" : "double precision";
    case "text": return textFor(common.characters, common.padded);
    case "label": case "label set": return "text";
    case "bytes": return "bytea";
    case "bits": return common.length === null ? null : `bit(${common.length})`;
    case "year": return "smallint";
    case "time": return common.long ? "interval" : `time(${common.fraction})`;
    case "timestamp": return `timestamp(${common.fraction})`;
    case "instant": return `timestamptz(${common.fraction})`;
    case "json": return common.exact ? "json" : "jsonb";
    case "address": return "inet";
    case "other": return null;
  }
}

/** PostgreSQL has no unsigned numbers: those take the next size. */
function integerFor(bits: number, unsigned: boolean): string {
  if (bits === 64) return unsigned ? "numeric(20,0)" : "bigint";
  if (bits === 32) return unsigned ? "bigint" : "integer";
  return bits === 24 || (bits === 16 && unsigned) ? "integer" : "smallint";
}

function textFor(characters: number | null, padded: boolean): string {
  if (characters === null || characters >= LONG_TEXT) return "text";
  return padded ? `char(${Math.max(1, characters)})` : `varchar(${Math.max(1, characters)})`;
}
