/**
 * MySQL and MariaDB mirrored to PostgreSQL, beside enemies: processes, connections and servers that die, logs that are cut, settings that change in
 * a session, two daemons, a source that fails over.
 *
 *     DUALRUN_FAULTS=full DUALRUN_FAULT_KILLS=60 DUALRUN_FAULT_SEED=7 npx vitest run test/faults/mysql.test.ts
 */
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "mariadb";
import pg from "pg";
import { describe, expect, test, type TestContext } from "vitest";
import { mysqlPositions } from "../../connectors/mysql/positions.ts";
import type { Position } from "../../src/core/index.ts";
import { CrossMirror } from "../support/cross.ts";
import { DaemonHome, waitFor, type DaemonProcess } from "../support/daemon.ts";
import { caughtUp, connectMysql, follow, mysqlRows, mysqlValue, requireMysqls, sharedMysql, type TestMysql } from "../support/mysql.ts";
import { WORKLOAD_SOURCE, WORKLOAD_TABLES, WORKLOAD_TARGET, countInserts, differences, insertedTwice, randomFrom, startWriters } from "../support/mysql-workload.ts";
import { orSkip, sharedPair, type TestDatabase } from "../support/servers.ts";

const FULL = process.env["DUALRUN_FAULTS"] === "full";
const KILLS = Number(process.env["DUALRUN_FAULT_KILLS"] ?? (FULL ? 60 : 5));
const SEED = Number(process.env["DUALRUN_FAULT_SEED"] ?? Date.now() % 100_000);
const FLAVOURS = ["mariadb-10.11", "mysql-9.7"] as const;
type Flavour = (typeof FLAVOURS)[number];

const COPYING = ["copy.before-chunk", "copy.after-chunk"];
const STREAMING = ["read.before", "read.after", "apply.before-write", "apply.after-write", "commit.before", "commit.after", "acknowledge.before", "acknowledge.after"];

/** Ours to stop, safe in a crash; all tests of one engine share it, one after the other. */
const requestOf = (flavour: Flavour): { flavour: Flavour; controllable: true; durable: true } => ({ flavour, controllable: true, durable: true });

/** A mirror of the workload's tables whose daemons are processes of their own. */
class Stage implements AsyncDisposable {
  readonly server: TestMysql;
  readonly from: TestDatabase;
  readonly to: TestDatabase;
  readonly home: DaemonHome;
  readonly target: pg.Client;
  private source: Connection;

  private constructor(server: TestMysql, from: TestDatabase, to: TestDatabase, home: DaemonHome, source: Connection, target: pg.Client) {
    this.server = server;
    this.from = from;
    this.to = to;
    this.home = home;
    this.source = source;
    this.target = target;
  }

  static async make(context: TestContext, flavour: Flavour, config: object = {}): Promise<Stage> {
    const [server, pair] = [await orSkip(context, sharedMysql(requestOf(flavour))), await orSkip(context, sharedPair())];
    const [from, to] = [await server.createDatabase("fault"), await pair.target.createDatabase("fault")];
    const source = await patient(from.url);
    for (const statement of WORKLOAD_SOURCE.split(/;\n/).filter(Boolean)) await source.query(statement);
    const target = new pg.Client({ connectionString: to.url });
    target.on("error", () => undefined); // it shows at the next statement
    await target.connect();
    await target.query(WORKLOAD_TARGET);
    const home = await DaemonHome.make({
      migration: "fault", source: from.url, target: to.url,
      config: {
        source: { engine: server.engine, url: "env:TEST_SOURCE" },
        classes: WORKLOAD_TABLES.map((name) => ({ name, source: `${from.name}.${name}`, target: `public.${name}` })),
        snapshot: { parallel: 2, chunkRows: 1000 }, apply: { batchRows: 50, batchDelay: "5ms" }, ...config,
      },
    });
    return new Stage(server, from, to, home, source, target);
  }

  /** Tables that differ row by row, and conflicts, once everything that was committed by now stands on the target. */
  async faults(daemon: DaemonProcess): Promise<readonly unknown[]> {
    await this.drained(daemon);
    return [...(await differences(this.source, this.target)), ...(await this.target.query("SELECT * FROM dualrun.conflicts")).rows];
  }

  /** The log is in one order: once its last row is there, so is the rest. */
  private async drained(daemon: DaemonProcess): Promise<void> {
    if (!this.source.isValid()) this.source = await patient(this.from.url);
    const { insertId } = await this.source.query<{ insertId: number }>("INSERT INTO audit_log (what) VALUES ('the end')");
    await waitFor(async () => (await this.target.query("SELECT 1 FROM audit_log WHERE id = $1", [insertId])).rowCount === 1, () => `the last row\n${daemon.output.slice(-3000)}`);
  }

  /** By a daemon that is then killed. */
  async finishCopy(): Promise<void> {
    const daemon = this.home.start();
    await streaming(daemon);
    await daemon.kill();
  }

  async allCopied(): Promise<boolean> {
    const { rows } = await this.target.query("SELECT to_regclass('dualrun.chunks') IS NOT NULL AS there");
    if (!rows[0].there) return false;
    const { rows: left } = await this.target.query("SELECT count(*)::integer AS all, count(*) FILTER (WHERE done_at IS NULL)::integer AS undone FROM dualrun.chunks");
    return left[0].all > 0 && left[0].undone === 0;
  }

  /** Empty text before there is one. */
  async position(): Promise<Position> {
    const { rows: there } = await this.target.query("SELECT to_regclass('dualrun.checkpoints') IS NOT NULL AS yes");
    if (!there[0].yes) return "" as Position;
    return ((await this.target.query("SELECT position FROM dualrun.checkpoints")).rows[0]?.position ?? "") as Position;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.home[Symbol.asyncDispose]();
    await Promise.allSettled([this.source.end(), this.target.end()]);
    await Promise.allSettled([this.from.drop(), this.to.drop()]);
  }
}

/** A connection whose loss shows itself at the next statement. */
async function patient(url: string): Promise<Connection> {
  const connection = await connectMysql(url);
  connection.on("error", () => undefined);
  return connection;
}

const streaming = (daemon: DaemonProcess): Promise<unknown> => daemon.until(({ phase, state }) => phase === "dual-run" && state === "streaming", "streaming");

describe.each(FLAVOURS)("%s", (flavour) => {
  test(`${KILLS} kills beside a workload, seed ${SEED}`, { timeout: 120_000 + KILLS * 20_000 }, async (context) => {
    await using stage = await Stage.make(context, flavour, { snapshot: { parallel: 2, chunkRows: 1000, maxRowsPerSecond: 2_000 } });
    const next = randomFrom(SEED);
    const writers = startWriters(stage.from.url, 3, SEED);
    const log: string[] = [];
    let counting = false;
    let last = "" as Position;
    for (let kill = 0; kill < KILLS; kill++) {
      if (kill === Math.ceil(KILLS * 0.4)) await stage.finishCopy();
      const copied = await stage.allCopied();
      if (copied && !counting) await countInserts(stage.target);
      counting ||= copied;
      const points = copied || kill % 4 === 3 ? STREAMING : COPYING;
      const point = next(4) > 0 ? `${points[next(points.length)]!}:${1 + next(copied ? 40 : 4)}` : null;
      const daemon = stage.home.start(point === null ? {} : { DUALRUN_FAILPOINT: point });
      await Promise.race([daemon.exited, sleep(point === null ? 1_500 + next(2_500) : 6_000)]);
      const exit = await daemon.kill();
      log.push(`${kill} ${point ?? "random moment"} → ${daemon.output.includes("failpoint") ? "there" : exit.signal}`);
      expect(exit.signal, `${log.at(-1)}\n${daemon.output}`).toBe("SIGKILL");
      const now = await stage.position();
      expect(["before", "equal"], `the checkpoint went back from ${last} to ${now} after ${log.at(-1)}`).toContain(mysqlPositions.relate(last, now));
      last = now;
    }
    const daemon = stage.home.start();
    await streaming(daemon);
    const committed = await writers.stop();
    expect(await stage.faults(daemon)).toEqual([]);
    expect((await daemon.stop()).code).toBe(0);
    expect(await insertedTwice(stage.target)).toEqual([]);
    console.log(`${flavour}, seed ${SEED}: ${KILLS} kills beside ${committed} transactions: ${log.join("; ")}`);
  });

  /** 30 s of silence are taken for the end of the connection. */
  const disturbances: readonly [string, (server: TestMysql) => Promise<void>][] = [
    ["the dump thread is killed", (server) => kill(server, ({ command }) => command.startsWith("Binlog Dump"))],
    ["all connections are killed", (server) => kill(server, ({ user }) => user === "root")],
    ["all statements are killed", (server) => kill(server, ({ user }) => user === "root", "KILL QUERY")],
    ["the log is rotated", async ({ url }) => void (await mysqlRows(url, "FLUSH BINARY LOGS"))],
    ["the server restarts", async (server) => { await server.process!.stop("clean"); await server.process!.start(); }],
    ["the server hangs", async ({ process: own }) => { const { pid } = own!; process.kill(pid!, "SIGSTOP"); await sleep(FULL ? 35_000 : 1_500); process.kill(pid!, "SIGCONT"); }],
    ["the server crashes", async (server) => { await server.process!.stop("immediate"); await server.process!.start(); }],
  ];

  test.for(["streaming", "copying"] as const)("goes on by itself after every disturbance while %s", { timeout: 240_000 }, async (when, context) => {
    await using stage = await Stage.make(context, flavour, when === "copying" ? { snapshot: { parallel: 2, chunkRows: 1000, maxRowsPerSecond: 800 } } : {});
    const daemon = stage.home.start();
    if (when === "streaming") await streaming(daemon);
    else await daemon.until(({ snapshot }) => (snapshot?.rows ?? 0) > 100, "some rows");
    const writers = startWriters(stage.from.url, 3, SEED);
    for (const [what, disturb] of disturbances) {
      await disturb(stage.server);
      await sleep(600);
      expect((await daemon.status()).state, `${what}\n${daemon.output.slice(-2000)}`).not.toBe("halted");
    }
    expect(await writers.stop()).toBeGreaterThan(0);
    await streaming(daemon);
    expect(await stage.faults(daemon)).toEqual([]);
    expect((await daemon.status()).restarts).toBeGreaterThanOrEqual(1);
    expect((await daemon.stop()).code).toBe(0);
  });

  test("a transaction of 300,000 rows passes in bounded memory", { timeout: 120_000 }, async (context) => {
    await using stage = await Stage.make(context, flavour, { apply: {} });
    const daemon = stage.home.start();
    await streaming(daemon);
    await mysqlRows(stage.from.url, "INSERT INTO audit_log (what) SELECT CONCAT('huge ', REPEAT('x', 50)) FROM accounts AS a, accounts AS b LIMIT 300000");
    expect(await stage.faults(daemon)).toEqual([]);
    const peak = await peakMemory(daemon);
    console.log(`${flavour}: 300,000 rows in one transaction, peak of the daemon ${peak} MiB`);
    expect(peak).toBeLessThan(400);
    await daemon.stop();
  });

  test("of two daemons one is fenced out and applies nothing more", { timeout: 120_000 }, async (context) => {
    await using stage = await Stage.make(context, flavour);
    const first = stage.home.start();
    await streaming(first);
    const writers = startWriters(stage.from.url, 2, SEED);
    const second = stage.home.start();
    const exit = await first.exited;
    expect(exit.code, first.output).toBe(6);
    expect(first.output).toContain("DR4001");
    await streaming(second);
    await writers.stop();
    expect(await stage.faults(second)).toEqual([]);
    await second.stop();
  });

  describe("what a session can do to the log halts by name, before anything wrong is applied", () => {
    const poisons: readonly { readonly what: string; readonly only?: "mysql" | "mariadb"; readonly code: string; readonly statements: readonly string[]; readonly after?: string }[] = [
      { what: "binlog_format = STATEMENT", code: "DR5009", statements: ["SET SESSION binlog_format = 'STATEMENT'", "UPDATE t SET n = n + 1"] },
      { what: "binlog_format = MIXED", code: "DR5009", statements: ["SET SESSION binlog_format = 'MIXED'", "/* all */ UPDATE t SET n = n + 1"] },
      { what: "binlog_row_image = MINIMAL", code: "DR5009", statements: ["SET SESSION binlog_row_image = 'MINIMAL'", "UPDATE t SET n = 99 WHERE id = 1"] },
      { what: "binlog_row_image = NOBLOB", code: "DR5009", statements: ["SET SESSION binlog_row_image = 'NOBLOB'", "UPDATE t SET n = 99 WHERE id = 1"] },
      { what: "binlog_row_metadata = MINIMAL, for all", code: "DR5009", statements: ["SET GLOBAL binlog_row_metadata = 'MINIMAL'", "UPDATE t SET n = 99 WHERE id = 1"], after: "SET GLOBAL binlog_row_metadata = 'FULL'" },
      { what: "binlog_row_value_options = PARTIAL_JSON", only: "mysql", code: "DR5009", statements: ["SET SESSION binlog_row_value_options = 'PARTIAL_JSON'", "UPDATE t SET doc = JSON_SET(doc, '$.a', 2) WHERE id = 1"] },
      { what: "binlog_transaction_compression", only: "mysql", code: "DR5009", statements: ["SET SESSION binlog_transaction_compression = ON", "UPDATE t SET n = 99 WHERE id = 1"] },
      { what: "an XA transaction", code: "DR5009", statements: ["XA START 'x'", "UPDATE t SET n = 99 WHERE id = 1", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'"] },
      { what: "an XA transaction that is rolled back", code: "DR5009", statements: ["XA START 'y'", "UPDATE t SET n = 99 WHERE id = 1", "XA END 'y'", "XA PREPARE 'y'", "XA ROLLBACK 'y'"] },
    ];

    test.for(poisons.filter(({ only }) => only === undefined || flavour.startsWith(only)))("$what", { timeout: 60_000 }, async ({ code, statements, after }, context) => {
      await using mirror = await smallMirror(context, flavour);
      await mirror.apply("INSERT INTO t VALUES (11, 0, '{}', '')");
      const before = await rowsOf(mirror);
      const session = await connectMysql(mirror.sourceUrl);
      try {
        for (const statement of statements) await session.query(statement);
        await mirror.source.query("INSERT INTO t VALUES (12, 0, '{}', '')");
        for (let start = 0; start < 2; start++) {
          const { halt } = await mirror.until(({ state }) => state === "halted", "halted");
          expect(halt).toMatchObject({ code, next: expect.stringMatching(/.{30}/) });
          expect(await rowsOf(mirror)).toEqual(before);
          await mirror.stop();
          if (start === 0) await mirror.start(smallConfig(mirror));
        }
      } finally {
        await session.end();
        if (after !== undefined) await mirror.source.query(after);
      }
    });

    test("sql_log_bin = 0 is not in the log: a comparison finds what it did", { timeout: 60_000 }, async (context) => {
      await using mirror = await smallMirror(context, flavour);
      const session = await connectMysql(mirror.sourceUrl);
      await session.query("SET SESSION sql_log_bin = 0");
      await session.query("UPDATE t SET n = 99 WHERE id = 3");
      await session.end();
      await mirror.apply("INSERT INTO t VALUES (11, 0, '{}', '')");
      const [found] = (await mirror.daemon.control.proof.compare(null, true)).classes;
      expect([found!.verdict, found!.rows.map((row) => [row.kind, row.columns])]).toEqual(["confirmed_out_of_sync", [["mismatched", ["n"]]]]);
    });
  });

  test("transactions of other origins pass: tags, domains, numbers that somebody chose", { timeout: 60_000 }, async (context) => {
    await using mirror = await smallMirror(context, flavour);
    const session = await connectMysql(mirror.sourceUrl);
    const uuid = "01234567-89ab-cdef-0123-456789abcdef";
    const settings = flavour.startsWith("mysql")
      ? ["SET SESSION gtid_next = 'AUTOMATIC:tag'", `SET SESSION gtid_next = '${uuid}:1000'`, `SET SESSION gtid_next = '${uuid}:5'`, "SET SESSION gtid_next = 'AUTOMATIC'"]
      : ["SET SESSION gtid_domain_id = 7", "SET SESSION server_id = 4711", "SET SESSION gtid_seq_no = 100000", "SET SESSION skip_replication = 1"];
    for (const [i, setting] of settings.entries()) {
      await session.query(setting);
      await session.query(`UPDATE t SET n = ${i + 1} WHERE id = ${i + 1}`);
      if (i === 1) await mirror.stop();
      if (i === 2) await mirror.start(smallConfig(mirror));
    }
    await session.end();
    await mirror.streaming();
    await mirror.apply("UPDATE t SET n = 9 WHERE id = 9");
    expect((await mirror.target.query("SELECT id, n FROM t WHERE n > 0 ORDER BY id")).rows).toEqual([1, 2, 3, 4, 9].map((id) => ({ id, n: id })));
  });

  test(`comparisons beside 8 writers, seed ${SEED}`, { timeout: 300_000 }, async (context) => {
    await using mirror = await CrossMirror.make(context, requestOf(flavour), `${WORKLOAD_SOURCE}INSERT INTO pairs SELECT 'still', 100000 + id, note FROM accounts WHERE id <= 500`, WORKLOAD_TARGET);
    await mirror.start({ classes: mirror.tables(...WORKLOAD_TABLES), comparison: { every: "31d", rescan: "31d", holdTimeout: "20s", cutTimeout: "2m" } });
    await mirror.streaming();
    const { proof } = mirror.daemon.control;
    const writers = startWriters(mirror.sourceUrl, 8, SEED);
    const holds: number[] = [];
    for (let i = 0; i < (FULL ? 40 : 10); i++) {
      const document = await proof.compare(null, i % 3 === 0);
      holds.push(Math.round(document.holdMs!));
      expect(document.classes.map(({ class: name, verdict, note, differences: { healed } }) => [name, verdict, note, healed]), `comparison ${i}`).toEqual(WORKLOAD_TABLES.map((name) => [name, "in_sync", null, 0]));
    }
    for (const [plant, mend, kind] of [
      ["UPDATE pairs SET label = label || ' ' WHERE code = 100001", "UPDATE pairs SET label = rtrim(label) WHERE code = 100001", "mismatched"],
      ["UPDATE pairs SET label = NULL WHERE code = 100002", "UPDATE pairs SET label = 'made 2' WHERE code = 100002", "mismatched"],
      ["UPDATE pairs SET region = 'Still' WHERE code = 100003", "UPDATE pairs SET region = 'still' WHERE code = 100003", "extra+missing"],
      ["DELETE FROM pairs WHERE code = 100004", "INSERT INTO pairs VALUES ('still', 100004, 'made 4')", "missing"],
      ["INSERT INTO pairs VALUES ('still', 99999, 'x')", "DELETE FROM pairs WHERE code = 99999", "extra"],
    ] as const) {
      await mirror.target.query(plant);
      const { classes } = await proof.compare(null, true);
      expect([plant, classes.filter(({ verdict }) => verdict !== "in_sync").map((found) => [found.class, found.verdict, found.rows.map((row) => row.kind).sort().join("+")])]).toEqual([plant, [["pairs", "confirmed_out_of_sync", kind]]]);
      await mirror.target.query(mend);
    }
    const written = await writers.stop();
    console.log(`${flavour}, seed ${SEED}: ${holds.length} comparisons beside 8 writers (${written} transactions), none false, 5 planted differences found; holds ${holds.join(", ")} ms`);
    expect(written).toBeGreaterThan(100);
  });

  describe("a log that has lost its place halts, and says what to do", () => {
    const reset = flavour.startsWith("mysql") ? "RESET BINARY LOGS AND GTIDS" : "RESET MASTER";
    const purge = async ({ source }: CrossMirror): Promise<void> => {
      await source.query("UPDATE t SET n = 5");
      await source.query("FLUSH BINARY LOGS");
      await waitFor(async () => {
        await source.query("UPDATE t SET n = n + 1"); // a dump thread that nobody reads any more notices, and lets go of its file
        const logs = await source.query<{ Log_name: string }[]>("SHOW BINARY LOGS");
        await source.query("PURGE BINARY LOGS TO ?", [logs.at(-1)!.Log_name]);
        return (await source.query<unknown[]>("SHOW BINARY LOGS")).length === 1;
      }, "the purge");
    };
    const many = async ({ source }: CrossMirror): Promise<void> => {
      const before = await mysqlValue(sourceServer.get(flavour)!.url, flavour.startsWith("mysql") ? "SELECT @@GLOBAL.gtid_executed" : "SELECT @@GLOBAL.gtid_binlog_pos");
      await source.query(reset);
      const transactions = Number(/(\d+)$/.exec(String(before))![1]) + 20;
      for (let i = 0; i < Math.min(transactions, 5_000); i++) await source.query(`UPDATE t SET n = ${i} WHERE id = 1`);
    };

    test.for([
      ["purged beyond the position while the daemon is down", ["DR4004"], true, purge],
      ["reset while the daemon is down", ["DR4004"], true, ({ source }) => source.query(reset)],
      ["reset while the daemon is down, and then written beyond the position", ["DR4004"], true, many],
      ["reset while the daemon is streaming", ["DR4004"], false, async ({ source }) => { await source.query(reset); await source.query("UPDATE t SET n = 5"); }],
    ] as [string, string[], boolean, (mirror: CrossMirror) => Promise<unknown>][])("%s", { timeout: 120_000 }, async ([, codes, isDown, damage], context) => {
      const server = await orSkip(context, sharedMysql(requestOf(flavour)));
      sourceServer.set(flavour, server);
      await mysqlRows(server.url, reset); // so that few transactions are enough to get beyond
      await using mirror = await smallMirror(context, flavour);
      await mirror.apply("INSERT INTO t VALUES (11, 0, '{}', '')");
      const before = await rowsOf(mirror);
      if (isDown) await mirror.stop();
      await damage(mirror);
      if (isDown) await mirror.start(smallConfig(mirror));
      const { halt } = await mirror.until(({ state }) => state === "halted", "halted");
      expect(codes).toContain(halt!.code);
      expect(halt!.next.length).toBeGreaterThan(30);
      expect(halt!.next).not.toContain("slot");
      expect(await rowsOf(mirror)).toEqual(before);
    });
  });
});

const sourceServer = new Map<Flavour, TestMysql>();

async function kill(server: TestMysql, whom: (thread: { readonly user: string; readonly command: string }) => boolean, how = "KILL"): Promise<void> {
  const connection = await connectMysql(server.url);
  try {
    const threads = await connection.query<{ Id: number; User: string; Command: string }[]>("SHOW FULL PROCESSLIST");
    const victims = threads.filter(({ Id, User, Command }) => Id !== connection.threadId && whom({ user: User, command: Command }));
    for (const { Id } of victims) await connection.query(`${how} ${Id}`).catch(() => undefined); // it may have ended by itself
  } finally {
    await connection.end();
  }
}

/** MiB that the process has ever held at once. */
async function peakMemory(daemon: DaemonProcess): Promise<number> {
  const status = await readFile(`/proc/${daemon.pid}/status`, "utf8");
  return Math.round(Number(/VmHWM:\s+(\d+) kB/.exec(status)![1]) / 1024);
}

const SMALL_SOURCE = `CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, doc json, body text);
INSERT INTO t SELECT n, 0, '{"a": 1, "b": "a longer text that stays"}', REPEAT('x', 100) FROM (WITH RECURSIVE s AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM s WHERE n < 10) SELECT n FROM s) AS t;
`;

const smallConfig = (mirror: CrossMirror): Record<string, unknown> => ({ classes: mirror.tables("t"), comparison: { every: "31d" } });

/** Ten rows, mirrored by a daemon in this process. */
async function smallMirror(context: TestContext, flavour: Flavour): Promise<CrossMirror> {
  const mirror = await CrossMirror.make(context, requestOf(flavour), SMALL_SOURCE, "CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL, doc text, body text)");
  await mirror.start(smallConfig(mirror));
  await mirror.streaming();
  return mirror;
}

async function rowsOf({ target }: CrossMirror): Promise<unknown[]> {
  return (await target.query("SELECT * FROM t ORDER BY id")).rows;
}

describe.each(FLAVOURS)("%s, failed over by GTID", (flavour) => {
  test("goes on where the replica holds all, halts where it lacks what the target has", { timeout: 180_000 }, async (context) => {
    await using servers = await requireMysqls(context, { flavour }, { flavour });
    const [primary, replica] = servers.all as [TestMysql, TestMysql];
    const pair = await orSkip(context, sharedPair());
    const [from, to] = [await primary.createDatabase("fault"), await pair.target.createDatabase("fault")];
    await follow(primary, replica);
    await mysqlRows(from.url, "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL)");
    await mysqlRows(from.url, "INSERT INTO t VALUES (1, 0), (2, 0)");
    const target = new pg.Client({ connectionString: to.url });
    await target.connect();
    await target.query("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL)");
    await using home = await DaemonHome.make({
      migration: "fault", source: from.url, target: to.url,
      config: { source: { engine: primary.engine, url: "env:TEST_SOURCE" }, classes: [{ name: "t", source: `${from.name}.t`, target: "public.t" }] },
    });
    const onReplica = new URL(new URL(from.url).pathname, replica.url);
    const rows = async (): Promise<unknown[]> => (await target.query("SELECT id, n FROM t ORDER BY id")).rows.map(({ id, n }) => `${id}:${n}`);

    const first = home.start();
    await streaming(first);
    await mysqlRows(from.url, "UPDATE t SET n = 1 WHERE id = 1");
    await waitFor(async () => (await rows())[0] === "1:1", "the update");
    await first.stop();
    await mysqlRows(from.url, "UPDATE t SET n = 2 WHERE id = 2"); // the replica has it, the target has not
    expect(await caughtUp(primary, replica)).toBe(true);

    const second = home.start({ TEST_SOURCE: onReplica.href });
    await streaming(second);
    await mysqlRows(onReplica.href, "INSERT INTO t VALUES (3, 3)"); // promoted: it takes writes of its own
    await waitFor(async () => (await rows()).length === 3, () => `the promoted server's row\n${second.output.slice(-2000)}`);
    expect(await rows()).toEqual(["1:1", "2:2", "3:3"]);
    await second.stop();

    const lacking = home.start(); // the old primary has neither row 3 nor the marks
    const { halt } = await lacking.until(({ state }) => state === "halted", "halted");
    expect(halt!.code).toBe("DR4003");
    await lacking.stop();
    for (let i = 0; i < 30; i++) await mysqlRows(from.url, `UPDATE t SET n = ${i} WHERE id = 2`); // it goes its own way, and further than the other
    const diverged = home.start();
    const later = await diverged.until(({ state }) => state === "halted", "halted");
    expect(["DR4003", "DR4004"]).toContain(later.halt!.code);
    expect(await rows()).toEqual(["1:1", "2:2", "3:3"]);
    await diverged.stop();
    await target.end();
    await to.drop();
  });
});
