import { writeFile } from "node:fs/promises";
import { engineOf } from "../../connectors/registry.ts";
import { DualrunError, findTable, type Catalogue, type Endpoint, type TableFacts } from "../core/index.ts";
import { print } from "./shared.ts";

export interface InitOptions {
  readonly source: string;
  readonly target: string;
  readonly migration: string;
  readonly output: string;
}

/** Looks at both sides and writes a configuration to edit; never overwrites one. */
export async function init(options: InitOptions): Promise<void> {
  const engine = engineOf("postgres");
  await using source = await engine.connectSource(endpoint(options.source), options.migration);
  await using target = await engine.connectTarget(endpoint(options.target), options.migration);
  const [sourceFacts, targetFacts] = await Promise.all([source.inspect(), target.inspect()]);
  try {
    await writeFile(options.output, document(options.migration, sourceFacts, targetFacts), { flag: "wx" });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    throw new DualrunError("DR1004", `${options.output} exists already`, { next: "Name another file with --output." });
  }
  print(`wrote ${options.output}; set SOURCE_URL and TARGET_URL, then: dualrun check -c ${options.output}`);
}

function endpoint(url: string): Endpoint {
  if (!URL.canParse(url)) throw new DualrunError("DR1004", "an address is not a URL like postgres://user@host:5432/database");
  const loopback = /^(localhost|127\.|\[::1\])/.test(new URL(url).hostname);
  return { url, tls: { mode: loopback ? "disable" : "require" } };
}

function document(migration: string, source: Catalogue, target: Catalogue): string {
  const tables = source.tables.filter((facts) => facts.kind === "table" || facts.kind === "partitioned");
  const both = tables.filter((facts) => findTable(target, facts.table) !== undefined);
  const onlySource = tables.filter((facts) => findTable(target, facts.table) === undefined);
  return [
    "# yaml-language-server: $schema=config/dualrun.schema.json",
    `migration: ${migration}`,
    `timeZone: ${Intl.DateTimeFormat().resolvedOptions().timeZone}    # the zone of business dates`,
    "source: { engine: postgres, url: env:SOURCE_URL }",
    "target: { engine: postgres, url: env:TARGET_URL }",
    both.length === 0 ? "include: [\"public.*\"]" : "classes:",
    ...both.flatMap(classLines),
    ...onlySource.map((facts) => `  # not on the target: ${facts.table.schema}.${facts.table.name}`),
    "http: { listen: 127.0.0.1:7070 }",
    "",
  ].join("\n");
}

function classLines(facts: TableFacts): string[] {
  const currency = facts.columns.find((column) => /currency/i.test(column.name));
  const amounts = facts.columns.filter((column) => column.typeName === "numeric");
  const lines = [`  - name: ${JSON.stringify(facts.table.name)}`, `    source: ${JSON.stringify(quoted(facts))}`];
  if (currency !== undefined && amounts.length > 0) {
    lines.push("    # kind: money", `    # money: [${amounts.map((column) => `{ column: ${column.name}, currency: ${currency.name} }`).join(", ")}]`);
  }
  return lines;
}

function quoted({ table: { schema, name } }: TableFacts): string {
  const part = (text: string): string => (/[."\s]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return `${part(schema)}.${part(name)}`;
}
