import { readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { isLoopback, resolveSecret } from "../config/index.ts";
import { DualrunError, findTable, tableKey, type Catalogue, type CommonKind, type TableFacts, type TableName, type TlsOptions } from "../core/index.ts";
import { connectBoth, type Side } from "./connect.ts";
import { print } from "./shared.ts";

export interface InitOptions {
  readonly source: string;
  readonly target: string;
  readonly migration: string;
  readonly output: string;
  readonly tls?: string;
  readonly ca?: string;
}

const ENGINES: Readonly<Record<string, string>> = { "postgres:": "postgres", "postgresql:": "postgres", "mysql:": "mysql", "mariadb:": "mariadb" };
const TLS_MODES: readonly TlsOptions["mode"][] = ["disable", "require", "verify-ca", "verify-full"];

/** One side as the written configuration names it. */
export interface InitSide {
  readonly engine: string;
  readonly reference: string;
  readonly tls: { readonly mode: TlsOptions["mode"]; readonly ca: string | null };
}

/** Looks at both sides and writes a configuration to edit; never overwrites one. */
export async function init(options: InitOptions): Promise<void> {
  if (!/^[a-z0-9-]{1,40}$/.test(options.migration)) throw new DualrunError("DR1004", "--migration takes 1 to 40 of a-z, 0-9 and -");
  const ca = options.ca === undefined ? null : await authority(options.ca);
  const source = sideOf("source", options, ca);
  const target = sideOf("target", options, ca);
  await using sides = await connectBoth(source, target, options.migration);
  const [sourceFacts, targetFacts] = await Promise.all([sides.source.inspect(), sides.target.inspect()]);
  const text = initDocument(options.migration, written("source", source, sourceFacts, options), written("target", target, targetFacts, options), sourceFacts, targetFacts);
  try {
    await writeFile(options.output, text, { flag: "wx" });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    throw new DualrunError("DR1004", `${options.output} exists already`, { next: "Name another file with --output." });
  }
  const unset = (["source", "target"] as const).filter((side) => !isReference(options[side])).map((side) => `${side.toUpperCase()}_URL`);
  print(`wrote ${options.output}; ${unset.length === 0 ? "" : `set ${unset.join(" and ")}, `}edit it, then: dualrun check -c ${options.output}`);
}

async function authority(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw new DualrunError("DR1003", `--ca: ${file} cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`, { cause: error });
  }
}

function isReference(text: string): boolean {
  return /^(env|file):/.test(text);
}

function sideOf(side: "source" | "target", options: InitOptions, ca: string | null): Side {
  const resolved = resolveSecret([side], options[side], { directory: ".", env: process.env });
  if ("fault" in resolved) throw new DualrunError("DR1003", `--${side}: ${resolved.fault.found}`);
  const url = URL.canParse(resolved.value) ? new URL(resolved.value) : null;
  const engine = ENGINES[url?.protocol ?? ""];
  if (url === null || engine === undefined) throw new DualrunError("DR1004", `--${side} takes an address like postgres://user@host:5432/database, env:NAME or file:PATH`);
  return { engine, url: resolved.value, tls: { mode: tlsMode(options.tls, isLoopback(url.hostname) && ca === null), ...(ca === null ? {} : { ca }) } };
}

function tlsMode(given: string | undefined, local: boolean): TlsOptions["mode"] {
  if (given === undefined) return local ? "disable" : "verify-full";
  const mode = TLS_MODES.find((candidate) => candidate === given);
  if (mode === undefined) throw new DualrunError("DR1004", `--tls takes ${TLS_MODES.join(", ")}, not "${given}"`);
  return mode;
}

/** The engine is the one that answered: `mysql://` is MariaDB's address too. */
function written(side: "source" | "target", { tls }: Side, { server: { engine } }: Catalogue, options: InitOptions): InitSide {
  const reference = isReference(options[side]) ? options[side] : `env:${side.toUpperCase()}_URL`;
  return { engine, reference, tls: { mode: tls.mode, ca: options.ca === undefined ? null : resolve(options.ca) } };
}

/** The configuration as text: tables that both sides have as classes, amounts beside a currency as suggestions. */
export function initDocument(migration: string, source: InitSide, target: InitSide, sourceFacts: Catalogue, targetFacts: Catalogue): string {
  const tables = sourceFacts.tables.filter((facts) => (facts.kind === "table" || facts.kind === "partitioned") && facts.table.schema !== "dualrun");
  const crosses = source.engine !== target.engine;
  const pairs = tables.filter(({ table }) => !crosses || isOf(sourceFacts, table)).map((facts) => pairOf(facts, crosses ? { schema: DEFAULT_SCHEMA, name: facts.table.name } : facts.table, targetFacts));
  const listed = pairs.filter(({ onTarget }) => crosses || onTarget !== undefined);
  const absent = pairs.filter(({ onTarget }) => onTarget === undefined);
  return [
    "# yaml-language-server: $schema=config/dualrun.schema.json",
    `migration: ${JSON.stringify(migration)}   # names slot, publication and marker rows`,
    `timeZone: ${Intl.DateTimeFormat().resolvedOptions().timeZone}   # the zone of business dates`,
    sideLine("source", source),
    sideLine("target", target),
    ...(listed.length === 0 ? ['include: ["public.*"]   # no table exists on both sides yet'] : ["classes:", ...listed.flatMap((pair) => classLines(pair, listed))]),
    ...absent.map(({ target: name }) => `  # not on the target: ${tableText(name)}${crosses ? ", which `dualrun check` says how to create" : ""}`),
    "http: { listen: 127.0.0.1:7070 }",
    "",
  ].join("\n");
}

function sideLine(side: string, { engine, reference, tls: { mode, ca } }: InitSide): string {
  const tls = ca === null ? `{ mode: ${mode} }` : `{ mode: ${mode}, ca: ${JSON.stringify(`file:${ca}`)} }`;
  return `${side}: { engine: ${engine}, url: ${JSON.stringify(reference)}, tls: ${tls} }`;
}

/** PostgreSQL's, for tables of engines whose schema is the database. */
const DEFAULT_SCHEMA = "public";

/** In the database that the address names, if it names one. */
function isOf({ server: { database } }: Catalogue, { schema }: TableName): boolean {
  return database === "" || schema === database;
}

/** A table of the source, and what it is called on the target. */
interface Pair {
  readonly facts: TableFacts;
  readonly target: TableName;
  /** Undefined where it does not exist yet. */
  readonly onTarget: TableFacts | undefined;
}

function pairOf(facts: TableFacts, target: TableName, targetFacts: Catalogue): Pair {
  return { facts, target, onTarget: findTable(targetFacts, target) };
}

const DECIMALS: ReadonlySet<CommonKind> = new Set(["decimal", "unbounded decimal"]);

function classLines({ facts, target, onTarget }: Pair, all: readonly Pair[]): string[] {
  const { columns } = onTarget ?? facts;
  const currency = columns.find((column) => /currency/i.test(column.name));
  const amounts = columns.filter((column) => DECIMALS.has(column.common.kind));
  const shared = all.some((other) => other.facts !== facts && other.facts.table.name === facts.table.name);
  const isElsewhere = tableKey(target) !== tableKey(facts.table);
  const lines = [`  - source: ${tableText(facts.table)}`, ...(isElsewhere ? [`    target: ${tableText(target)}`] : []), ...(shared ? [`    name: ${JSON.stringify(tableKey(facts.table))}`] : [])];
  if (currency !== undefined && amounts.length > 0) {
    const money = amounts.map((column) => `{ column: ${JSON.stringify(column.name)}, currency: ${JSON.stringify(currency.name)} }`);
    lines.push("    # kind: money", `    # money: [${money.join(", ")}]`);
  }
  return lines;
}

function tableText({ schema, name }: TableName): string {
  const part = (text: string): string => (/^[\p{L}_][\p{L}\p{N}_$-]*$/u.test(text) ? text : `"${text.replaceAll('"', '""')}"`);
  return JSON.stringify(`${part(schema)}.${part(name)}`);
}
