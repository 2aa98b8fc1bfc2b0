/** The configuration as the rest of the program sees it: durations in milliseconds, sizes in bytes, secrets resolved. */
import { resolve } from "node:path";
import { parseWhere, type ClassKind, type Endpoint, type Engine, type Predicate, type TableName, type TlsOptions } from "../core/index.ts";
import { isLoopback, parseTable, parseTablePattern, type ListenAddress, type TablePattern } from "./values.ts";
import type { Path } from "./faults.ts";
import type { ParsedConfig } from "./schema.ts";
import { journalKey } from "./secrets.ts";

export type EngineName = Engine["name"];

export interface TargetConfig extends Endpoint {
  readonly engine: EngineName;
}

export interface SourceConfig extends TargetConfig {
  /** For comparing reads. */
  readonly readReplica: Endpoint | null;
}

/** Where a target column's value comes from; `drop` concerns the source column of that name. */
export type ColumnRule =
  /** `from` null: the source column of the same name. */
  | { readonly kind: "take"; readonly from: string | null; readonly map: ReadonlyMap<string, string> | null }
  | { readonly kind: "constant"; readonly value: string | null }
  | { readonly kind: "drop" };

export interface ClassConfig {
  readonly name: string;
  readonly source: TableName;
  readonly target: TableName;
  readonly where: Predicate | null;
  readonly kind: ClassKind;
  /** `currency` is a target column, or a literal code in single quotes. */
  readonly money: readonly { readonly column: string; readonly currency: string }[];
  readonly occurredAt: string | null;
  /** Zone of `occurredAt` where its type has none. */
  readonly occurredAtZone: string | null;
  readonly columns: ReadonlyMap<string, ColumnRule>;
  readonly sensitive: readonly string[];
}

type Section<Name extends keyof ParsedConfig> = Readonly<NonNullable<ParsedConfig[Name]>>;

export type JournalConfig =
  | { readonly kind: "none" }
  /** `path` is absolute; `key` are 32 bytes, or null: not encrypted. */
  | { readonly kind: "sqlite"; readonly path: string; readonly maxBytes: number; readonly key: Uint8Array | null };

export interface Config {
  readonly migration: string;
  readonly timeZone: string;
  readonly source: SourceConfig;
  readonly target: TargetConfig;
  /** Explicit classes; null when `include` selects tables. */
  readonly classes: readonly ClassConfig[] | null;
  readonly include: readonly TablePattern[];
  readonly exclude: readonly TablePattern[];
  readonly snapshot: Section<"snapshot">;
  readonly apply: Section<"apply">;
  readonly journal: JournalConfig;
  readonly comparison: Section<"comparison">;
  readonly gates: Section<"gates">;
  readonly cutover: Section<"cutover">;
  readonly retention: Section<"retention">;
  readonly safety: Section<"safety">;
  /** `tokens` is the path of a file, or null. */
  readonly http: { readonly listen: ListenAddress; readonly tokens: string | null };
  readonly bank: ParsedConfig["bank"];
  readonly notify: readonly { readonly kind: "webhook"; readonly url: string; readonly on: readonly ("break" | "phase" | "lag")[] }[];
  readonly log: Section<"log">;
  /** Sections and settings that the operator wrote, as against defaults: `comparison`, `comparison.every`. */
  readonly given: ReadonlySet<string>;
}

/** From a document that the validator has passed; `secret` finds the value that was resolved for a place. */
export function buildConfig(parsed: ParsedConfig, secret: (...path: Path) => string, directory: string, given: ReadonlySet<string>): Config {
  const endpoint = (side: "source" | "target", address: string): Endpoint => {
    const ca = parsed[side].tls?.ca === undefined ? undefined : secret(side, "tls", "ca");
    return { url: address, tls: tlsOf(parsed[side].tls?.mode, ca, address) };
  };
  const { classes, include, exclude, journal, http, ...rest } = parsed;
  return {
    ...rest,
    source: {
      engine: parsed.source.engine,
      ...endpoint("source", secret("source", "url")),
      readReplica: parsed.source.readReplica === undefined ? null : endpoint("source", secret("source", "readReplica")),
    },
    target: { engine: parsed.target.engine, ...endpoint("target", secret("target", "url")) },
    classes: classes?.map(buildClass) ?? null,
    include: (include ?? []).map((text) => parseTablePattern(text)!),
    exclude: (exclude ?? []).map((text) => parseTablePattern(text)!),
    journal: buildJournal(journal, secret, directory),
    http: { listen: http.listen, tokens: http.tokens === undefined ? null : resolve(directory, http.tokens.slice("file:".length)) },
    notify: parsed.notify.map((entry, i) => ({ ...entry, url: secret("notify", i, "url") })),
    given,
  };
}

/** Other kinds were refused by rules.ts. */
function buildJournal(parsed: ParsedConfig["journal"], secret: (...path: Path) => string, directory: string): JournalConfig {
  if (parsed.kind !== "sqlite") return { kind: "none" };
  const key = parsed.key === undefined ? null : journalKey(secret("journal", "key"));
  return { kind: "sqlite", path: resolve(directory, parsed.path), maxBytes: parsed.maxBytes, key };
}

function tlsOf(mode: TlsOptions["mode"] | undefined, ca: string | undefined, address: string): TlsOptions {
  const fallback = ca === undefined && isLoopback(new URL(address).hostname) ? "disable" : "verify-full";
  return { mode: mode ?? fallback, ...(ca === undefined ? {} : { ca }) };
}

type ParsedClass = NonNullable<ParsedConfig["classes"]>[number];

function buildClass(parsed: ParsedClass): ClassConfig {
  const source = parseTable(parsed.source)!;
  return {
    name: parsed.name ?? source.name,
    source,
    target: parsed.target === undefined ? source : parseTable(parsed.target)!,
    where: parsed.where === undefined ? null : parseWhere(parsed.where),
    kind: parsed.kind,
    money: parsed.money,
    occurredAt: parsed.occurredAt ?? null,
    occurredAtZone: parsed.occurredAtZone ?? null,
    columns: new Map(Object.entries(parsed.columns).map(([name, rule]) => [name, buildRule(rule)])),
    sensitive: parsed.sensitive,
  };
}

function buildRule(rule: ParsedClass["columns"][string]): ColumnRule {
  if (rule.drop === true) return { kind: "drop" };
  if (rule.default !== undefined) return { kind: "constant", value: rule.default };
  return { kind: "take", from: rule.from ?? null, map: rule.map === undefined ? null : new Map(Object.entries(rule.map)) };
}
