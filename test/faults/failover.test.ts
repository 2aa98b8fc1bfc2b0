/** The source fails over to a promoted standby: followed where nothing can be missing, refused where something could be. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { expect, test, type TestContext } from "vitest";
import { parseConfig } from "../../src/config/index.ts";
import { startDaemon, type RunningDaemon } from "../../src/daemon.ts";
import { isEqual, verifyTables } from "../../src/demo/verify.ts";
import { createLogger } from "../../src/telemetry/index.ts";
import { waitFor } from "../support/daemon.ts";
import { orSkip, postgresServer, type TestServer } from "../support/servers.ts";
import { query, startStandby, type Standby } from "../support/standby.ts";

process.env["DUALRUN_ALLOW_UNSAFE_TARGET"] = "1";

const SCHEMA = "CREATE TABLE t (id bigint PRIMARY KEY, n integer, pad text)";

interface Scene extends AsyncDisposable {
  readonly primary: TestServer;
  readonly standby: Standby;
  readonly sourceUrl: string;
  readonly targetUrl: string;
  start(source: string, more?: Readonly<Record<string, unknown>>): Promise<RunningDaemon>;
}

async function scene(context: TestContext, settings: Readonly<Record<string, string>>, onPrimary: Readonly<Record<string, string>> = {}): Promise<Scene> {
  const [primary, target] = await Promise.all([orSkip(context, postgresServer({ controllable: true, durable: true, settings: onPrimary })), orSkip(context, postgresServer({ controllable: true }))]);
  if (primary.major < 17) context.skip("slots are synchronised from 17 on");
  const database = await primary.createDatabase("failover");
  const targetUrl = (await target.createDatabase("failover")).url;
  await query(database.url, `${SCHEMA}; INSERT INTO t SELECT g, 0, 'x' FROM generate_series(-10, 1000) AS g`);
  await query(targetUrl, SCHEMA);
  const standby = await startStandby(primary.process!, database.name, settings);
  const daemons: RunningDaemon[] = [];
  const directory = await mkdtemp(join(tmpdir(), "dualrun-failover-"));
  const journal = process.env["DUALRUN_TEST_JOURNAL"] === "sqlite" ? { journal: { kind: "sqlite", path: "journal.db" } } : {};
  return {
    primary, standby, sourceUrl: database.url, targetUrl,
    async start(source, more = {}) {
      const config = parseConfig(JSON.stringify({
        migration: "failover", timeZone: "UTC", source: { engine: "postgres", url: "env:S", ...more }, target: { engine: "postgres", url: "env:T" }, include: ["public.*"], http: { listen: "127.0.0.1:0" }, comparison: { every: "31d" }, ...journal,
      }), { directory, env: { S: source, T: targetUrl, R: standby.urlOf(database.name) } });
      const daemon = await startDaemon(config, { truncateTarget: false, logger: createLogger({ level: "fatal" as never, pretty: false }) });
      daemons.push(daemon);
      await waitFor(() => Promise.resolve(["streaming", "halted"].includes(daemon.control.status().state) && daemon.control.status().phase === "dual-run"), () => JSON.stringify(daemon.control.status()));
      return daemon;
    },
    async [Symbol.asyncDispose]() {
      for (const daemon of daemons) await daemon.stop();
      await standby[Symbol.asyncDispose]();
      await Promise.allSettled([primary[Symbol.asyncDispose](), target[Symbol.asyncDispose]()]);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Writes until its server goes away. */
async function writing(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined);
  await client.connect();
  try {
    for (let i = 1; ; i++) {
      await client.query(`BEGIN; UPDATE t SET n = n + 1 WHERE id = ${1 + (i % 1000)}; INSERT INTO t VALUES (${1000 + i}, 0, 'new'); COMMIT`);
      await sleep(2);
    }
  } catch {
    await client.end().catch(() => undefined); // that is how it ends
  }
}

const synchronised = async (standby: Standby): Promise<boolean> => {
  const [slot] = await query(standby.urlOf("postgres"), "SELECT synced AND NOT temporary AND invalidation_reason IS NULL AS ready FROM pg_replication_slots WHERE slot_name = 'dualrun_failover'");
  return slot?.["ready"] === true;
};

test("a standby whose slot was synchronised is followed, and nothing is lost or doubled", { timeout: 120_000 }, async (context) => {
  await using at = await scene(context, { sync_replication_slots: "on" }, { synchronized_standby_slots: "standby" });
  const first = await at.start(at.sourceUrl);
  await waitFor(() => synchronised(at.standby), "the slot on the standby");
  const load = writing(at.sourceUrl);
  await sleep(3_000);
  await at.primary.process!.kill();
  await load;
  await sleep(500);
  await first.stop();
  await at.standby.promote();
  const promoted = at.standby.urlOf(new URL(at.sourceUrl).pathname.slice(1));
  const second = await at.start(promoted);
  expect(second.control.status().halt).toBeNull();
  await query(promoted, "INSERT INTO t VALUES (-100, 1, 'after'); UPDATE t SET n = -1 WHERE id = 1");
  await second.drain(AbortSignal.timeout(30_000));
  const verdicts = await verifyTables(promoted, at.targetUrl, ["t"]);
  expect([verdicts.every(isEqual), verdicts[0]!.sourceRows > 1100]).toEqual([true, true]);
  expect((await second.control.audit()).map(({ what }) => what).join()).toMatch(/the source is now \d+\/2, before \d+\/1/);
  expect((await second.control.proof.compare(null, true)).verdict).toBe("in_sync");
});

test("a standby whose slot was not synchronised is refused", { timeout: 120_000 }, async (context) => {
  await using at = await scene(context, {});
  const first = await at.start(at.sourceUrl);
  await query(at.sourceUrl, "INSERT INTO t VALUES (2000, 0, 'x')");
  await first.drain(AbortSignal.timeout(30_000));
  await first.stop();
  await at.primary.process!.kill();
  await at.standby.promote();
  const promoted = at.standby.urlOf(new URL(at.sourceUrl).pathname.slice(1));
  const second = await at.start(promoted);
  expect(second.control.status()).toMatchObject({ state: "halted", halt: { code: expect.stringMatching(/^DR400[45]$/) } });
});

test("a standby that was behind what the target has is refused", { timeout: 120_000 }, async (context) => {
  await using at = await scene(context, { sync_replication_slots: "on" });
  const first = await at.start(at.sourceUrl);
  await waitFor(() => synchronised(at.standby), "the slot on the standby");
  await at.standby.server.stop("fast");
  await query(at.sourceUrl, "INSERT INTO t SELECT g, 0, 'never seen by the standby' FROM generate_series(5000, 5100) AS g");
  await first.drain(AbortSignal.timeout(30_000));
  await first.stop();
  await at.primary.process!.kill();
  await at.standby.server.start();
  await at.standby.promote();
  const second = await at.start(at.standby.urlOf(new URL(at.sourceUrl).pathname.slice(1)));
  expect(second.control.status()).toMatchObject({ state: "halted", halt: { code: "DR4005", what: expect.stringContaining("left the old timeline") } });
  expect((await query(at.targetUrl, "SELECT count(*)::int AS n FROM t WHERE id >= 5000"))[0]!["n"]).toBe(101);
});

test("comparisons read the standby: at one moment, beside writers, and a planted difference is found", { timeout: 120_000 }, async (context) => {
  await using at = await scene(context, {});
  const daemon = await at.start(at.sourceUrl, { readReplica: "env:R" });
  const load = writing(at.sourceUrl);
  for (let i = 0; i < 10; i++) {
    const document = await daemon.control.proof.compare(null, true);
    expect([i, document.cutBy, document.classes.map(({ verdict, note }) => [verdict, note])]).toEqual([i, "standby", [["in_sync", null]]]);
  }
  await query(at.targetUrl, "UPDATE t SET pad = 'planted' WHERE id = -7");
  expect((await daemon.control.proof.compare(null, true)).classes[0]).toMatchObject({ verdict: "confirmed_out_of_sync", differences: { mismatched: 1 }, rows: [{ columns: ["pad"] }] });
  expect(await query(at.standby.urlOf("postgres"), "SELECT pg_get_wal_replay_pause_state() AS state")).toEqual([{ state: "not paused" }]);
  await at.primary.process!.kill();
  await load;
});
