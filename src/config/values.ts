/** The small forms in which a configuration says durations, sizes, addresses and names of tables. */
import type { TableName } from "../core/index.ts";

const MILLISECONDS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const BYTES: Readonly<Record<string, number>> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };

export const DURATION = /^\d{1,9}(ms|s|m|h|d)$/;
export const SIZE = /^\d{1,9}(B|KiB|MiB|GiB|TiB)$/;
export const REFERENCE = /^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$/;
export const FILE_REFERENCE = /^file:.+$/;

/** `90s` → 90000; NaN for anything else. */
export function durationToMs(text: string): number {
  return quantity(text, DURATION, MILLISECONDS);
}

/** `64MiB` → 67108864; NaN for anything else. */
export function sizeToBytes(text: string): number {
  return quantity(text, SIZE, BYTES);
}

function quantity(text: string, form: RegExp, units: Readonly<Record<string, number>>): number {
  const unit = form.exec(text)?.[1];
  return unit === undefined ? NaN : Number(text.slice(0, -unit.length)) * units[unit]!;
}

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** `127.0.0.1:7070`, `[::1]:7070`, `localhost:7070`; null for anything else. Port 0 lets the system choose. */
export function parseListen(text: string): ListenAddress | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  return match === null || port > 65_535 ? null : { host: (match[1] ?? match[2])!, port };
}

const PART = String.raw`"(?:[^"]|"")+"|[^".\s][^".]*`;
const TABLE = new RegExp(String.raw`^(${PART})\.(${PART})$`);

/** `schema.table`, exactly as the catalogue has them; a part with a dot or a quote stands in double quotes. Null for anything else. */
export function parseTable(text: string): TableName | null {
  const match = TABLE.exec(text);
  return match === null ? null : { schema: unquote(match[1]!), name: unquote(match[2]!) };
}

function unquote(part: string): string {
  return part.startsWith('"') ? part.slice(1, -1).replaceAll('""', '"') : part;
}

/** A `schema.table` in which `*` stands for any text and `?` for one character, outside of quotes. */
export interface TablePattern {
  readonly text: string;
  matches(table: TableName): boolean;
}

/** Null when the text is no `schema.table` pattern. */
export function parseTablePattern(text: string): TablePattern | null {
  const match = TABLE.exec(text);
  if (match === null) return null;
  const schema = globOf(match[1]!);
  const name = globOf(match[2]!);
  return { text, matches: (table) => schema.test(table.schema) && name.test(table.name) };
}

function globOf(part: string): RegExp {
  if (part.startsWith('"')) return new RegExp(`^${escaped(unquote(part))}$`, "su");
  const pieces = part.replace(/\*+/g, "*").split(/([*?])/);
  return new RegExp(`^${pieces.map((piece) => (piece === "*" ? ".*" : piece === "?" ? "." : escaped(piece))).join("")}$`, "su");
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}

/** Whether a host name can only be this machine. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, "").toLowerCase();
  return bare === "localhost" || bare === "::1" || /^127(\.\d{1,3}){3}$/.test(bare);
}

export function isTimeZone(name: string): boolean {
  if (!/^[A-Za-z]/.test(name)) return false;
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}
