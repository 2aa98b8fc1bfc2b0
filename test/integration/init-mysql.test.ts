/** The way from a MySQL or MariaDB database to a configuration that can be run: `init`, `check`, its statements, `check` again. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { describe, expect, onTestFinished, test, type TestContext } from "vitest";
import { KNOWN_ENGINES } from "../../connectors/registry.ts";
import type { Finding } from "../../src/core/index.ts";
import type { MysqlFlavour } from "../../src/demo/mysql-binaries.ts";
import { mysqlRows, sharedMysql } from "../support/mysql.ts";
import { orSkip, sharedPair } from "../support/servers.ts";

const MAIN = new URL("../../src/main.ts", import.meta.url).pathname;
const FLAVOURS = ["mysql-9.7", "mariadb-10.11"] as const satisfies readonly MysqlFlavour[];

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly errors: string;
}

interface Checked {
  readonly ok: boolean;
  readonly classes: readonly string[];
  readonly findings: readonly Finding[];
}

class Workplace {
  readonly directory: string;
  readonly engine: string;
  readonly database: string;
  readonly target: pg.Client;
  private readonly env: Readonly<Record<string, string>>;

  constructor(directory: string, engine: string, database: string, target: pg.Client, urls: Readonly<Record<string, string>>) {
    this.directory = directory;
    this.engine = engine;
    this.database = database;
    this.target = target;
    this.env = { ...process.env as Record<string, string>, ...urls, DUALRUN_ALLOW_UNSAFE_TARGET: "1" };
  }

  get file(): string {
    return join(this.directory, "dualrun.yaml");
  }

  run(...args: readonly string[]): Promise<Ended> {
    return new Promise((resolve) => {
      execFile(process.execPath, [MAIN, ...args], { env: this.env, cwd: this.directory }, (error, out, errors) => resolve({ code: error === null ? 0 : Number(error.code), out, errors }));
    });
  }

  init(): Promise<Ended> {
    return this.run("init", "--source", "env:SOURCE_URL", "--target", "env:TARGET_URL");
  }

  async check(): Promise<Checked> {
    return JSON.parse((await this.run("check", "--json")).out) as Checked;
  }
}

async function workplace(context: TestContext, flavour: MysqlFlavour, onSource: readonly string[]): Promise<Workplace> {
  const [server, pair] = [await orSkip(context, sharedMysql({ flavour })), await orSkip(context, sharedPair())];
  const [from, to] = [await server.createDatabase("init"), await pair.target.createDatabase("init")];
  for (const statement of onSource) await mysqlRows(from.url, statement);
  const target = new pg.Client({ connectionString: to.url });
  await target.connect();
  const directory = await mkdtemp(join(tmpdir(), "dualrun-init-"));
  onTestFinished(async () => {
    await target.end();
    await Promise.all([from.drop(), to.drop(), rm(directory, { recursive: true })]);
  });
  return new Workplace(directory, server.engine, from.name, target, { SOURCE_URL: from.url, TARGET_URL: to.url });
}

const INVOICES = "CREATE TABLE invoices (id bigint unsigned NOT NULL PRIMARY KEY, number varchar(40) NOT NULL, currency char(3) NOT NULL, total decimal(14,2) NOT NULL, issued_at timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), state enum('open','paid') NOT NULL, detail json)";
const errorsOf = ({ findings }: Checked): readonly Finding[] => findings.filter(({ severity }) => severity === "error");

/** The statement, without the advice that follows it. */
const statementOf = ({ mend }: Finding): string => mend.slice(0, mend.indexOf(";") + 1);

describe.each(FLAVOURS)("%s", (flavour) => {
  test("init names targets in public and guesses money; check's statements make them", { timeout: 60_000 }, async (context) => {
    const place = await workplace(context, flavour, [INVOICES]);
    expect(await place.init()).toMatchObject({ code: 0, errors: "" });
    const text = await readFile(place.file, "utf8");
    expect(text).toContain(`source: { engine: ${place.engine},`);
    expect(text).toContain(`  - source: "${place.database}.invoices"\n    target: "public.invoices"\n    # kind: money\n    # money: [{ column: "total", currency: "currency" }]\n`);
    expect(text).toContain('# not on the target: "public.invoices", which `dualrun check` says how to create');
    await writeFile(place.file, text.replaceAll(/# (kind: money|money: )/g, "$1"));
    const before = await place.check();
    expect(errorsOf(before).map(({ check, side }) => [check, side])).toEqual([["missing-table", "target"]]);
    const detail = place.engine === "mysql" ? "jsonb" : "json";
    expect(errorsOf(before)[0]!.mend).toBe(`CREATE TABLE "public"."invoices" ("id" numeric(20,0) NOT NULL, "number" varchar(40) NOT NULL, "currency" char(3) NOT NULL, "total" numeric(14,2) NOT NULL, "issued_at" timestamptz(6) NOT NULL, "state" text NOT NULL, "detail" ${detail}, PRIMARY KEY ("id"));`);
    await place.target.query(statementOf(errorsOf(before)[0]!));
    expect(await place.check()).toMatchObject({ ok: true, classes: ["invoices"] });
    const { code, out } = await place.run("check");
    expect([code, out.trimEnd().split("\n").at(-1)]).toEqual([0, "ready: 1 classes can be mirrored"]);
    expect(out).toContain("the source's log tells of schema changes");
    expect(out).toMatch(/-- least grants on the source\n.*GRANT[^]*-- least grants on the target\n.*GRANT/);
  });

  test("a table with every type that can be mirrored gets a table that takes all of them", { timeout: 60_000 }, async (context) => {
    const engine = KNOWN_ENGINES.find(({ name }) => flavour.startsWith(name))!;
    const columns = engine.typeSamples.map(({ type }, i) => `c${i} ${type} NULL`);
    const place = await workplace(context, flavour, [`CREATE TABLE types (id int NOT NULL PRIMARY KEY, ${columns.join(", ")})`]);
    await place.init();
    const [missing] = errorsOf(await place.check());
    await place.target.query(statementOf(missing!));
    const after = await place.check();
    expect(errorsOf(after)).toEqual([]);
    expect((await place.target.query("SELECT count(*)::int AS n FROM information_schema.columns WHERE table_name = 'types'")).rows).toEqual([{ n: columns.length + 1 }]);
  });

  test("both sides' faults are told, each in the words of its side", { timeout: 60_000 }, async (context) => {
    const place = await workplace(context, flavour, [
      "CREATE TABLE parents (id int NOT NULL PRIMARY KEY, total bigint unsigned, note varchar(20) NOT NULL, place geometry)",
      "CREATE TABLE children (id int NOT NULL PRIMARY KEY, parent int) ENGINE = MyISAM",
    ]);
    await place.target.query("CREATE TABLE parents (id integer PRIMARY KEY, total bigint); CREATE TABLE children (id integer PRIMARY KEY, parent integer)");
    await place.init();
    const first = errorsOf(await place.check());
    expect(first.map(({ check, side, subject }) => [check, side, subject])).toContainEqual(["missing-column", "target", "parents"]);
    expect(first.find(({ what }) => what.includes('"note"'))!.mend).toBe('ALTER TABLE "public"."parents" ADD COLUMN "note" varchar(20); or `note: { drop: true }` in `columns`');
    expect(first.find(({ what }) => what.includes('"place"'))!.mend).toBe("`place: { drop: true }` in `columns`");
    expect(first.map(({ check, side, subject }) => [check, side, subject])).toContainEqual(["table-engine", "source", "children"]);
    await place.target.query("ALTER TABLE parents ADD COLUMN note varchar(20)");
    const text = await readFile(place.file, "utf8");
    await writeFile(place.file, text.replace('target: "public.parents"\n', 'target: "public.parents"\n    columns: { place: { drop: true } }\n'));
    const type = errorsOf(await place.check()).find(({ check }) => check === "type")!;
    expect([type.side, type.mend]).toEqual(["target", 'ALTER TABLE "public"."parents" ALTER COLUMN "total" TYPE numeric(20,0);']);
    await place.target.query(type.mend);
    expect(errorsOf(await place.check()).map(({ check }) => check)).toEqual(["table-engine"]);
  });
});
