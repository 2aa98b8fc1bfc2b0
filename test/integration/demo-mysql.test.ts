/** The demo from MySQL and MariaDB to PostgreSQL, as the command that people run. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { describe, expect, onTestFinished, test, type TestContext } from "vitest";
import { installedBinaries, mysqlBinaries, type MysqlFlavour } from "../../src/demo/mysql-binaries.ts";
import { withDemo } from "../../src/demo/mysql-session.ts";
import { mysqlStage } from "../../src/demo/mysql-stage.ts";
import { withClient } from "../../src/demo/stage.ts";
import { freePort, waitFor } from "../support/daemon.ts";
import { orSkip, ServerUnavailable } from "../support/servers.ts";

const MAIN = new URL("../../src/main.ts", import.meta.url).pathname;
const ENGINES = { mysql: "mysql-9.7", mariadb: "mariadb-10.11" } as const satisfies Record<string, MysqlFlavour>;

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly errors: string;
}

function demo(args: readonly string[], env: NodeJS.ProcessEnv = {}): { readonly child: ChildProcess; readonly ended: Promise<Ended> } {
  const child = spawn(process.execPath, [MAIN, "demo", ...args], { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  const ended = Promise.all([text(child.stdout), text(child.stderr), once(child, "exit")]).then(([out, errors]) => ({ code: child.exitCode, out, errors }));
  return { child, ended };
}

/** Servers pass through it whoever they run as. */
async function ownDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "dualrun-demo-test-"));
  await chmod(directory, 0o755);
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

async function need(context: TestContext, flavour: MysqlFlavour): Promise<void> {
  await orSkip(context, mysqlBinaries(flavour).catch((error: unknown) => {
    throw new ServerUnavailable(`no ${flavour}`, { cause: error });
  }));
}

describe.each(["mysql", "mariadb"] as const)("from %s", (engine) => {
  test("--for ends by itself, in sync, and leaves nothing behind", { timeout: 240_000 }, async (context) => {
    await need(context, ENGINES[engine]);
    const directory = await ownDirectory();
    const { code, out, errors } = await demo(["--from", engine, "--to", "postgres", "--for", "10s", "--json", "--port", String(await freePort())], { TMPDIR: directory }).ended;
    expect([code, errors]).toEqual([0, ""]);
    const result = JSON.parse(out);
    expect(result).toMatchObject({ inSync: true, comparison: { verdict: "in_sync" }, drift: null });
    expect(result.tables.map((one: { table: string; missing: number; extra: number }) => [one.table, one.missing, one.extra])).toEqual(
      ["customers", "invoices", "invoice_lines", "payments", "refunds", "credit_notes", "counters", "audit_log", "meter_readings"].map((name) => [`billing.${name}`, 0, 0]));
    for (const one of result.tables) expect([one.table, one.sourceRows > 0]).toEqual([one.table, true]);
    expect(result.comparison.classes.find((one: { class: string }) => one.class === "payments").money.length).toBeGreaterThan(1);
    const { kinds, committed } = result.workload;
    expect(committed).toBeGreaterThan(100);
    for (const kind of ["invoice", "payment", "stateUpdate", "deleteDraft", "keyChange", "profileUpdate"]) expect([kind, kinds[kind] > 0]).toEqual([kind, true]);
    expect(await readdir(directory)).toEqual([]);
  });
});

test("--drift finds, explains and repairs what somebody has done to the target", { timeout: 240_000 }, async (context) => {
  await need(context, ENGINES.mysql);
  const { code, out, errors } = await demo(["--from", "mysql", "--for", "1s", "--json", "--drift", "--rate", "50", "--port", String(await freePort())]).ended;
  expect([code, errors]).toEqual([0, ""]);
  expect(JSON.parse(out)).toMatchObject({ inSync: true, drift: { found: true, repaired: true } });
});

test("Ctrl-C ends it, and nothing is left behind", { timeout: 120_000 }, async (context) => {
  await need(context, ENGINES.mysql);
  const directory = await ownDirectory();
  const { child, ended } = demo(["--from", "mysql", "--port", String(await freePort())], { TMPDIR: directory });
  let printed = "";
  child.stdout!.on("data", (chunk: Buffer) => void (printed += chunk.toString()));
  await waitFor(() => Promise.resolve(printed.includes("transactions/s on the source")), () => printed, 90_000);
  expect((await readdir(directory)).length).toBeGreaterThan(0);
  child.kill("SIGINT");
  expect((await ended).code).toBe(0);
  expect(await readdir(directory)).toEqual([]);
});

test("the verification sees rows that are missing, a cent, a document, and nothing where there is nothing", { timeout: 120_000 }, async (context) => {
  await need(context, ENGINES.mariadb);
  await using stack = new AsyncDisposableStack();
  const stage = await mysqlStage("mariadb", stack);
  await stage.furnish(0.001);
  const before = await stage.verify();
  expect(before.map(({ missing, sourceRows, extra }) => [missing, extra, sourceRows > 0])).toEqual(before.map(({ sourceRows }) => [sourceRows, 0, true]));
  const note = async (amount: string, reason: string): Promise<readonly number[]> => withClient(stage.target.url, async (client) => {
    const [row] = await withDemo(stage.source.url, (source) => source.query("SELECT customer_id, sequence, invoice_number, currency, CAST(issued_at AS CHAR) AS issued_at FROM credit_notes ORDER BY customer_id, sequence LIMIT 1"));
    await client.query("SET session_replication_role = replica; TRUNCATE billing.credit_notes");
    await client.query("INSERT INTO billing.credit_notes VALUES ($1, $2, $3, $4, $5, $6, $7::timestamp AT TIME ZONE 'UTC')", [row.customer_id, row.sequence, row.invoice_number, amount, row.currency, reason, row.issued_at]);
    const { sourceRows, missing, extra } = (await stage.verify()).find(({ table }) => table === "billing.credit_notes")!;
    return [sourceRows - missing, extra];
  });
  const [first] = await withDemo(stage.source.url, (source) => source.query("SELECT CAST(amount AS CHAR) AS amount, CAST(amount + 0.01 AS CHAR) AS more, CAST(reason AS CHAR) AS reason FROM credit_notes ORDER BY customer_id, sequence LIMIT 1"));
  expect(await note(first.amount, first.reason)).toEqual([1, 0]);
  expect(await note(first.more, first.reason)).toEqual([0, 1]);
  expect(await note(first.amount, first.reason.replace("SLA", "SLB"))).toEqual([0, 1]);
});

test("a machine that cannot have the server says how to get it, and exits 5", { timeout: 60_000 }, async (context) => {
  if ((await installedBinaries("mysql-9.7")) !== null) context.skip("mysqld is installed");
  const directory = await ownDirectory();
  const { code, out, errors } = await demo(["--from", "mysql", "--for", "1s"], { PATH: directory, XDG_CACHE_HOME: directory }).ended;
  expect(code).toBe(5);
  expect(out).toBe("starting two servers …\n");
  expect(errors).toMatch(/^error DR2001: the demo cannot have a MySQL server on this machine\n[^]*next: Install MySQL 9\.7 so that its server is on PATH/);
});

test.each([
  [["--to", "mysql"], 'engine "mysql" is not available as the demo\'s target yet'],
  [["--from", "mysql", "--to", "mariadb"], 'engine "mariadb" is not available as the demo\'s target yet'],
  [["--from", "oracle"], 'engine "oracle" is not available as the demo\'s source'],
])("%j is refused by name", async (args, what) => {
  const { code, errors } = await demo(args).ended;
  expect([code, errors.split("\n")[0]]).toEqual([2, `error DR1005: ${what}`]);
});
