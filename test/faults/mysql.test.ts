/**
 * MySQL and MariaDB mirrored to PostgreSQL, beside enemies: processes, connections and servers that die, logs that are cut, settings that change in
 * a session, two daemons, a source that fails over.
 *
 *     DUALRUN_FAULTS=full DUALRUN_FAULT_KILLS=60 DUALRUN_FAULT_SEED=7 npx vitest run test/faults/mysql.test.ts
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "mariadb";
import pg from "pg";
import { describe, expect, test, type TestContext } from "vitest";
import { mysqlPositions } from "../../connectors/mysql/positions.ts";
import type { Position } from "../../src/core/index.ts";
import { CrossMirror } from "../support/cross.ts";
import { DaemonHome, waitFor, type DaemonProcess } from "../support/daemon.ts";
import { connectMysql, mysqlRows, sharedMysql, type TestMysql } from "../support/mysql.ts";
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
    const source = await connectMysql(from.url);
    for (const statement of WORKLOAD_SOURCE.split(/;\n/).filter(Boolean)) await source.query(statement);
    const target = new pg.Client({ connectionString: to.url });
    target.on("error", () => undefined); // it shows at the next statement
    await target.connect();
    await target.query(WORKLOAD_TARGET);
    const home = await DaemonHome.make({
      migration: from.name.replaceAll("_", "-").slice(0, 30), source: from.url, target: to.url,
      config: {
        source: { engine: server.engine, url: "env:TEST_SOURCE" },
        classes: WORKLOAD_TABLES.map((name) => ({ name, source: `${from.name}.${name}`, target: `public.${name}` })),
        snapshot: { parallel: 2, chunkRows: 1000 }, apply: { batchRows: 50, batchDelay: "5ms" }, ...config,
      },
    });
    return new Stage(server, from, to, home, source, target);
  }

  /** Everything that was committed by now stands on the target, and both sides are equal row by row. */
  async expectEqual(daemon: DaemonProcess): Promise<void> {
    await this.drained(daemon);
    expect(await differences(this.source, this.target), daemon.output.slice(-2000)).toEqual([]);
    expect((await this.target.query("SELECT * FROM dualrun.conflicts")).rows).toEqual([]);
  }

  /** The log is in one order: once its last row is there, so is the rest. */
  private async drained(daemon: DaemonProcess): Promise<void> {
    if (!this.source.isValid()) this.source = await connectMysql(this.from.url);
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
    await stage.expectEqual(daemon);
    expect((await daemon.stop()).code).toBe(0);
    expect(await insertedTwice(stage.target)).toEqual([]);
    console.log(`${flavour}, seed ${SEED}: ${KILLS} kills beside ${committed} transactions: ${log.join("; ")}`);
  });
});
