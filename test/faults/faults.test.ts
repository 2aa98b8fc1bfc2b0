/** What happens to servers, connections and slots while the mirror runs. */
import { createServer, connect, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { describe, expect, test, type TestContext } from "vitest";
import { isEqual, verifyTables } from "../../src/demo/verify.ts";
import { DaemonHome, waitFor, type DaemonProcess } from "../support/daemon.ts";
import { orSkip, postgresServer, type TestServer } from "../support/servers.ts";

const SCHEMA = "CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL, pad text)";

interface Scene extends AsyncDisposable {
  readonly source: TestServer;
  readonly target: TestServer;
  readonly sourceUrl: string;
  readonly targetUrl: string;
  readonly home: DaemonHome;
  readonly migration: string;
}

/** Two durable servers of their own, a table with rows, and a configuration. */
async function scene(context: TestContext, options: { readonly settings?: Record<string, string>; readonly via?: (port: string) => string; readonly config?: object } = {}): Promise<Scene> {
  const request = { controllable: true, durable: true, settings: { max_wal_size: "1GB", ...options.settings } };
  const [source, target] = await Promise.all([orSkip(context, postgresServer(request)), orSkip(context, postgresServer(request))]);
  const sourceUrl = (await source.createDatabase("fault")).url;
  const targetUrl = (await target.createDatabase("fault")).url;
  await on(sourceUrl, `${SCHEMA}; INSERT INTO t SELECT g, 0, repeat('x', 50) FROM generate_series(1, 2000) AS g`);
  await on(targetUrl, SCHEMA);
  const url = new URL(sourceUrl);
  if (options.via !== undefined) url.port = options.via(url.port);
  const home = await DaemonHome.make({ migration: "fault", source: url.toString(), target: targetUrl, config: { include: ["public.*"], ...options.config } });
  return {
    source, target, sourceUrl, targetUrl, home, migration: "fault",
    async [Symbol.asyncDispose]() {
      await home[Symbol.asyncDispose]();
      await Promise.allSettled([source[Symbol.asyncDispose](), target[Symbol.asyncDispose]()]);
    },
  };
}

async function on<T extends pg.QueryResultRow>(connectionString: string, sql: string): Promise<T[]> {
  const client = new pg.Client({ connectionString });
  client.on("error", () => undefined);
  await client.connect();
  try {
    const result = await client.query<T>(sql);
    return result.rows ?? [];
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Writes until told to stop, reconnecting when the source goes away; every committed write counts. */
function writer(url: string): { stop(): Promise<number> } {
  let going = true;
  let committed = 0;
  const work = (async () => {
    while (going) {
      const client = new pg.Client({ connectionString: url });
      client.on("error", () => undefined);
      try {
        await client.connect();
        for (; going; committed++) {
          await client.query(`UPDATE t SET n = n + 1 WHERE id = ${1 + (committed % 2000)}`);
          await client.query(`INSERT INTO t SELECT coalesce(max(id), 0) + 1, 0, 'new' FROM t`);
          await client.query(`DELETE FROM t WHERE id = ${1 + ((committed * 7) % 1900)}`);
          await sleep(5);
        }
      } catch {
        await sleep(100); // the source is away: that is what these tests are about
      } finally {
        await client.end().catch(() => undefined);
      }
    }
  })();
  return {
    async stop() {
      going = false;
      await work;
      return committed;
    },
  };
}

const streaming = (daemon: DaemonProcess): Promise<unknown> => daemon.until(({ phase, state }) => phase === "dual-run" && state === "streaming", "streaming");

async function expectEqual({ sourceUrl, targetUrl }: Scene, daemon: DaemonProcess): Promise<void> {
  const [head] = await on<{ lsn: string }>(sourceUrl, "SELECT pg_current_wal_insert_lsn()::text AS lsn");
  await on(sourceUrl, "SELECT pg_logical_emit_message(true, 'dualrun', 'drain')");
  const reached = `SELECT position::pg_lsn >= '${head!.lsn}'::pg_lsn AS yes FROM dualrun.checkpoints`;
  await waitFor(async () => (await on<{ yes: boolean }>(targetUrl, reached).catch(() => []))[0]?.yes === true, () => `the drain\n${daemon.output.slice(-3000)}`);
  expect((await verifyTables(sourceUrl, targetUrl, ["t"])).filter((verdict) => !isEqual(verdict))).toEqual([]);
  expect(await on(targetUrl, "SELECT * FROM dualrun.conflicts")).toEqual([]);
}

describe("the mirror goes on by itself", () => {
  const disturbances: readonly [string, (scene: Scene) => Promise<void>][] = [
    ["the source restarts", async ({ source }) => { await source.process!.stop("fast"); await source.process!.start(); }],
    ["the source crashes", async ({ source }) => { await source.process!.kill(); await source.process!.start(); }],
    ["the target restarts", async ({ target }) => { await target.process!.stop("fast"); await sleep(1_500); await target.process!.start(); }],
    ["the target crashes", async ({ target }) => { await target.process!.kill(); await sleep(500); await target.process!.start(); }],
    ["connections are cut", async ({ sourceUrl, targetUrl }) => {
      for (let i = 0; i < 4; i++) {
        for (const url of [sourceUrl, targetUrl]) await on(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'dualrun%' AND pid <> pg_backend_pid()");
        await sleep(400);
      }
    }],
    ["the target takes no writes for a while", async ({ targetUrl }) => {
      await on(targetUrl, "ALTER DATABASE \"" + new URL(targetUrl).pathname.slice(1) + "\" SET default_transaction_read_only = on");
      await on(targetUrl, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'dualrun%apply'");
      await sleep(1_500);
      await on(`${targetUrl}?options=-c%20default_transaction_read_only%3Doff`, "ALTER DATABASE \"" + new URL(targetUrl).pathname.slice(1) + "\" RESET default_transaction_read_only");
      await on(targetUrl, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'dualrun%' AND pid <> pg_backend_pid()");
    }],
    ["another session deadlocks with it", async ({ targetUrl }) => {
      const other = new pg.Client({ connectionString: targetUrl });
      await other.connect();
      await other.query("BEGIN; UPDATE t SET pad = pad WHERE id IN (SELECT id FROM t ORDER BY id DESC LIMIT 50)");
      await sleep(600);
      await other.query("UPDATE t SET pad = pad WHERE id < 60").catch(() => undefined); // one of the two is the victim
      await other.query("ROLLBACK");
      await other.end();
    }],
  ];

  for (const [what, disturb] of disturbances) {
    test(what, { timeout: 120_000 }, async (context) => {
      await using stage = await scene(context);
      const daemon = stage.home.start();
      await streaming(daemon);
      const load = writer(stage.sourceUrl);
      await sleep(400);
      await disturb(stage);
      await sleep(400);
      expect(await load.stop()).toBeGreaterThan(0);
      await expectEqual(stage, daemon);
      expect((await daemon.stop()).code).toBe(0);
    });
  }

  test("the network stalls for longer than wal_sender_timeout, and the target hangs", { timeout: 120_000 }, async (context) => {
    const proxy = new StallingProxy();
    await using stage = await scene(context, { settings: { wal_sender_timeout: "2s" }, via: (port) => proxy.listen(Number(port)) });
    await proxy.ready;
    const daemon = stage.home.start();
    await streaming(daemon);
    const load = writer(stage.sourceUrl);
    proxy.stalled = true;
    await sleep(4_000);
    proxy.stalled = false;
    const locker = new pg.Client({ connectionString: stage.targetUrl });
    await locker.connect();
    await waitFor(async () => (await daemon.status()).state === "streaming", "streaming after the stall");
    await locker.query("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
    await sleep(5_000);
    await locker.query("COMMIT");
    await locker.end();
    await load.stop();
    await expectEqual(stage, daemon);
    await daemon.stop();
    proxy.close();
  });
});

/** Forwards to a port, and for a while not. */
class StallingProxy {
  stalled = false;
  readonly ready: Promise<void>;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private port = 0;
  private goal = 0;

  constructor() {
    this.server = createServer((client) => {
      const upstream = connect(this.goal, "127.0.0.1");
      for (const [from, to] of [[client, upstream], [upstream, client]] as const) {
        this.sockets.add(from);
        from.on("data", (chunk: Buffer) => void this.forward(chunk, to));
        from.on("close", () => to.destroy());
        from.on("error", () => to.destroy());
      }
    });
    this.port = 20_000 + Math.floor(Math.random() * 20_000);
    this.ready = new Promise((resolve) => this.server.listen(this.port, "127.0.0.1", resolve));
  }

  listen(goal: number): string {
    this.goal = goal;
    return String(this.port);
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy();
    this.server.close();
  }

  private async forward(chunk: Buffer, to: Socket): Promise<void> {
    while (this.stalled) await sleep(50);
    to.write(chunk);
  }
}

describe("the mirror halts, and says what to do", () => {
  async function halted(stage: Scene, daemon: DaemonProcess, code: string): Promise<void> {
    const { halt } = await daemon.until(({ state }) => state === "halted", `a halt with ${code}`);
    expect(halt!.code).toBe(code);
    expect(halt!.next.length).toBeGreaterThan(20);
    expect((await daemon.stop()).code).toBe(0);
    expect((await on(stage.sourceUrl, "SELECT 1 FROM pg_stat_replication"))).toEqual([]);
  }

  async function mirroredAndStopped(stage: Scene): Promise<void> {
    const daemon = stage.home.start();
    await streaming(daemon);
    await on(stage.sourceUrl, "UPDATE t SET n = 1");
    await expectEqual(stage, daemon);
    await daemon.stop();
  }

  test("the slot was dropped; it is never made anew", { timeout: 120_000 }, async (context) => {
    await using stage = await scene(context);
    await mirroredAndStopped(stage);
    await on(stage.sourceUrl, "SELECT pg_drop_replication_slot('dualrun_fault')");
    await halted(stage, stage.home.start(), "DR4004");
    expect(await on(stage.sourceUrl, "SELECT 1 FROM pg_replication_slots")).toEqual([]);
  });

  test("the slot was invalidated", { timeout: 120_000 }, async (context) => {
    await using stage = await scene(context, { settings: { max_slot_wal_keep_size: "16MB", min_wal_size: "32MB", max_wal_size: "32MB" } });
    await mirroredAndStopped(stage);
    for (let i = 0; i < 8; i++) await on(stage.sourceUrl, `CREATE TABLE junk${i} AS SELECT repeat('x', 500) FROM generate_series(1, 30000)`);
    await on(stage.sourceUrl, "CHECKPOINT");
    await on(stage.sourceUrl, "SELECT pg_switch_wal()");
    await on(stage.sourceUrl, "CHECKPOINT");
    expect(await on(stage.sourceUrl, "SELECT wal_status FROM pg_replication_slots")).toEqual([{ wal_status: "lost" }]);
    await halted(stage, stage.home.start(), "DR4004");
  });

  test("the target went back to an older state", { timeout: 120_000 }, async (context) => {
    await using stage = await scene(context);
    await mirroredAndStopped(stage);
    await on(stage.targetUrl, "CREATE TABLE kept AS SELECT * FROM t; CREATE TABLE kept_checkpoint AS SELECT * FROM dualrun.checkpoints");
    const daemon = stage.home.start();
    await streaming(daemon);
    await on(stage.sourceUrl, "UPDATE t SET n = 2");
    await expectEqual(stage, daemon);
    await sleep(500); // the acknowledgement is on its way
    await daemon.stop();
    await on(stage.targetUrl, "DELETE FROM t; INSERT INTO t SELECT * FROM kept; UPDATE dualrun.checkpoints AS c SET position = k.position, seq = k.seq FROM kept_checkpoint AS k");
    await halted(stage, stage.home.start(), "DR4002");
    expect(await on(stage.targetUrl, "SELECT DISTINCT n FROM t")).toEqual([{ n: 1 }]);
  });

  test("the source is another server", { timeout: 120_000 }, async (context) => {
    await using stage = await scene(context);
    await mirroredAndStopped(stage);
    await on(stage.targetUrl, "UPDATE dualrun.checkpoints SET source_identity = '1234567890/1'");
    await halted(stage, stage.home.start(), "DR4003");
  });
});

test("of two daemons one is fenced out and applies nothing more", { timeout: 120_000 }, async (context) => {
  await using stage = await scene(context);
  const first = stage.home.start();
  await streaming(first);
  const load = writer(stage.sourceUrl);
  await sleep(500);
  const second = stage.home.start();
  const exit = await first.exited;
  expect(exit.code, first.output).toBe(6);
  expect(first.output).toContain("DR4001");
  await streaming(second);
  await load.stop();
  await expectEqual(stage, second);
  await second.stop();
});

describe("SIGTERM ends cleanly", () => {
  test("in the middle of the copy, which then goes on", { timeout: 120_000 }, async (context) => {
    await using stage = await scene(context, { config: { snapshot: { maxRowsPerSecond: 500, chunkRows: 200 } } });
    const first = stage.home.start();
    await first.until(({ snapshot }) => (snapshot?.rows ?? 0) > 200, "some rows");
    const started = Date.now();
    expect((await first.stop()).code).toBe(0);
    expect(Date.now() - started).toBeLessThan(8_000);
    const second = stage.home.start();
    await streaming(second);
    await expectEqual(stage, second);
    await second.stop();
  });

  test("in the middle of a large transaction", { timeout: 120_000 }, async (context) => {
    await using stage = await scene(context, { config: { apply: { maxBuffer: "1MiB" } } });
    const first = stage.home.start();
    await streaming(first);
    await on(stage.sourceUrl, "INSERT INTO t SELECT g, 0, repeat('y', 100) FROM generate_series(100000, 400000) AS g");
    const started = Date.now();
    expect((await first.stop()).code).toBe(0);
    expect(Date.now() - started).toBeLessThan(60_000); // the transaction is not waited for
    const second = stage.home.start();
    await streaming(second);
    await expectEqual(stage, second);
    await second.stop();
  });
});

test("a source that keeps too much log is told of, once per limit, and goes quiet again", async (context) => {
  await using stage = await scene(context, { config: { safety: { slotRetainedBytesWarn: "8MiB", slotRetainedBytesMax: "24MiB" } } });
  const daemon = stage.home.start();
  await daemon.until(({ phase, state }) => phase === "dual-run" && state === "streaming", "streaming");
  const blocker = new pg.Client({ connectionString: stage.targetUrl });
  await blocker.connect();
  await blocker.query("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
  for (let i = 0; i < 40; i++) await on(stage.sourceUrl, `INSERT INTO t SELECT ${100_000 + i * 1000} + g, 0, repeat(md5(g::text), 30) FROM generate_series(1, 1000) AS g`);
  await daemon.until(({ slot }) => slot.state === "over-limit", "over the limit");
  await blocker.end();
  await daemon.until(({ slot }) => slot.state === "ok", "little log");
  expect([...daemon.output.matchAll(/slotRetainedBytesMax: its disk is at risk/g)]).toHaveLength(1);
  expect(daemon.output).toContain("keeps little log again");
  expect((await daemon.stop()).code).toBe(0);
});
