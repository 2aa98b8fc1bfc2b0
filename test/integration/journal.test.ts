/** A running mirror with a journal between source and target. */
import { execFile } from "node:child_process";
import { copyFile, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test, type TestContext } from "vitest";
import type { Position } from "../../src/core/index.ts";
import { lsnPositions } from "../../connectors/postgres/lsn.ts";
import { DaemonHome, waitFor } from "../support/daemon.ts";
import { TestMirror } from "../support/mirror.ts";
import { orSkip, postgresServer, sharedPair } from "../support/servers.ts";
import { query } from "../support/standby.ts";
import { isEqual, verifyTables } from "../../src/demo/verify.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const SCHEMA = "CREATE TABLE t (id integer PRIMARY KEY, v integer, body text)";
const ROWS = "INSERT INTO t SELECT g, 0, repeat('b', 100) FROM generate_series(1, 1000) AS g";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "dualrun-journal-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const journal = (): Record<string, unknown> => ({ kind: "sqlite", path: join(directory, "journal.db") });
const none = { journal: { kind: "none" } };
const withJournal = (): Record<string, unknown> => ({ journal: journal() });

async function running(context: TestContext, schema = SCHEMA, onSource = ROWS): Promise<TestMirror> {
  const pair = await orSkip(context, sharedPair());
  const mirror = await TestMirror.make(await pair.fresh("journal"), schema, onSource);
  await mirror.start(withJournal());
  await mirror.streaming();
  return mirror;
}

const sourceNow = async (mirror: TestMirror): Promise<string> => (await mirror.source.query("SELECT pg_current_wal_insert_lsn()::text AS lsn")).rows[0].lsn as string;

/** Until the source was told that it may forget everything that is in its log now. */
async function relieved(mirror: TestMirror): Promise<void> {
  const lsn = await sourceNow(mirror);
  await mirror.source.query("SELECT pg_logical_emit_message(true, 'dualrun', 'relief')");
  await waitFor(async () => (await mirror.source.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'dualrun_test' AND confirmed_flush_lsn >= $1", [lsn])).rowCount === 1, "the acknowledgement", 20_000);
}

describe("a mirror with a journal", () => {
  test("applies all that there is, tells of the journal, and compares at an exact cut", async (context) => {
    await using mirror = await running(context, `${SCHEMA}; CREATE TABLE h (a integer, b text); CREATE TABLE c (id integer PRIMARY KEY, t_id integer)`,
      `${ROWS}; ALTER TABLE h REPLICA IDENTITY FULL; INSERT INTO h SELECT g % 3, 'same' FROM generate_series(1, 30) AS g; INSERT INTO c VALUES (1, 1)`);
    const status = await mirror.apply(
      "UPDATE t SET v = v + 1 WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 0",
      "UPDATE t SET body = (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 500) AS g) WHERE id < 4", "UPDATE t SET v = 9 WHERE id < 4", "UPDATE t SET id = id + 10000 WHERE id < 4",
      "BEGIN; INSERT INTO c VALUES (2, 2); TRUNCATE c; INSERT INTO c VALUES (3, 3); COMMIT",
      "DELETE FROM h WHERE ctid IN (SELECT ctid FROM h WHERE a = 1 LIMIT 4)", "INSERT INTO t SELECT g, 0, repeat('x', 500) FROM generate_series(20001, 60000) AS g",
    );
    expect(await mirror.differences("t", "h", "c")).toEqual([]);
    expect(status.journal).toMatchObject({ kind: "sqlite", state: "ok", maxBytes: 10 * 2 ** 30, waitedSeconds: 0 });
    expect(status.classes.reduce((sum, cls) => sum + cls.conflicts, 0)).toBe(0);
    expect((await mirror.daemon.control.proof.compare(null, true)).verdict).toBe("in_sync");
    await waitFor(() => Promise.resolve(mirror.daemon.control.status().journal!.bytes < 32 << 20), "the trim", 10_000);
  });

  test("what is not durable is neither acknowledged nor applied", async (context) => {
    await using mirror = await running(context);
    const other = new DatabaseSync(join(directory, "journal.db"));
    other.exec("BEGIN IMMEDIATE"); // nobody else can commit
    await mirror.source.query("UPDATE t SET v = 77 WHERE id = 1");
    const written = await sourceNow(mirror);
    await sleep(2_000);
    const { rows: [slot] } = await mirror.source.query("SELECT confirmed_flush_lsn::text AS confirmed FROM pg_replication_slots WHERE slot_name = 'dualrun_test'");
    expect(lsnPositions.relate(slot.confirmed, written as Position)).toBe("before");
    expect((await mirror.target.query("SELECT v FROM t WHERE id = 1")).rows).toEqual([{ v: 0 }]);
    other.exec("ROLLBACK");
    other.close();
    await relieved(mirror);
    await mirror.apply("UPDATE t SET v = 78 WHERE id = 2");
    expect(await mirror.differences("t")).toEqual([]);
  });

  test("while it is paused the source may forget, and afterwards everything is applied once", async (context) => {
    await using mirror = await running(context);
    await mirror.daemon.control.pause("test");
    await mirror.until(({ state }) => state === "paused", "paused");
    for (let i = 0; i < 20; i++) await mirror.source.query(`UPDATE t SET v = v + 1; INSERT INTO t VALUES (${5_000 + i}, 0, 'n')`);
    await relieved(mirror);
    expect(mirror.daemon.control.status()).toMatchObject({ state: "paused", journal: { oldestCommitAt: expect.any(String) } });
    await mirror.daemon.control.resume("test");
    const status = await mirror.apply("UPDATE t SET v = v + 1 WHERE id = 1");
    expect(await mirror.differences("t")).toEqual([]);
    expect(status.classes[0]!.conflicts).toBe(0);
    await waitFor(() => Promise.resolve(mirror.daemon.control.status().journal!.oldestCommitAt === null), "an empty journal", 10_000);
  });

  test("a schema change halts where it stands, is accepted, and is not met again", async (context) => {
    await using mirror = await running(context);
    await mirror.source.query("UPDATE t SET v = 1 WHERE id = 1");
    await mirror.source.query("ALTER TABLE t ADD note text");
    await mirror.source.query("UPDATE t SET note = 'n', v = 2 WHERE id = 2");
    const halted = await mirror.until(({ state }) => state === "halted", "the halt");
    expect(halted.halt).toMatchObject({ code: "DR5001" });
    expect((await mirror.target.query("SELECT v FROM t WHERE id = 1")).rows).toEqual([{ v: 1 }]);
    await mirror.source.query("INSERT INTO t VALUES (9001, 1, 'b', 'n')");
    await relieved(mirror);
    await mirror.target.query("ALTER TABLE t ADD note text");
    await mirror.daemon.control.acceptSchema("note was added", "test");
    await mirror.streaming();
    await mirror.apply("UPDATE t SET note = 'm' WHERE id = 3");
    expect(await mirror.differences("t")).toEqual([]);
  });

  test("a column's type changes while what was written before waits in the journal", async (context) => {
    await using mirror = await running(context);
    await mirror.daemon.control.pause("test");
    await mirror.until(({ state }) => state === "paused", "paused");
    await mirror.source.query("UPDATE t SET v = 7 WHERE id = 1");
    await mirror.source.query("ALTER TABLE t ALTER v TYPE bigint");
    await mirror.source.query("UPDATE t SET v = 5000000000 WHERE id = 2");
    await relieved(mirror);
    await mirror.daemon.control.resume("test");
    await mirror.until(({ state }) => state === "halted", "the halt");
    await mirror.target.query("ALTER TABLE t ALTER v TYPE bigint");
    await mirror.daemon.control.acceptSchema("v is a bigint", "test");
    await mirror.streaming();
    await mirror.apply("UPDATE t SET v = 6000000000 WHERE id = 3");
    expect(await mirror.differences("t")).toEqual([]);
  });

  test("a class is copied again beside it", async (context) => {
    await using mirror = await running(context);
    await mirror.target.query("DELETE FROM t WHERE id < 10");
    await mirror.daemon.control.resnapshot("t", "test");
    await mirror.streaming();
    await mirror.apply("UPDATE t SET v = 8 WHERE id < 20");
    expect(await mirror.differences("t")).toEqual([]);
  });

  test("the source's connection is lost again and again, in the middle of large transactions", { timeout: 120_000 }, async (context) => {
    await using mirror = await running(context);
    for (let i = 0; i < 6; i++) {
      await mirror.source.query(`INSERT INTO t SELECT ${(i + 1) * 100_000} + g, ${i}, repeat('y', 300) FROM generate_series(1, 30000) AS g`);
      await mirror.source.query("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'dualrun_test' AND active_pid IS NOT NULL");
    }
    const status = await mirror.apply("UPDATE t SET v = 9 WHERE id % 1000 = 1");
    expect(await mirror.differences("t")).toEqual([]);
    expect(status.classes[0]!.conflicts).toBe(0);
  });
});

describe("what does not belong together is refused by name", () => {
  const file = (): string => join(directory, "journal.db");
  const moveAway = async (to: string): Promise<void> => {
    for (const suffix of ["", "-wal", "-shm"]) await rename(`${file()}${suffix}`, join(directory, `${to}${suffix}`)).catch(() => undefined);
  };
  const putBack = async (from: string): Promise<void> => {
    for (const suffix of ["", "-wal", "-shm"]) await rename(join(directory, `${from}${suffix}`), `${file()}${suffix}`).catch(() => undefined);
  };

  /** A mirror that was stopped with changes in the journal that the target lacks and the source has forgotten. */
  async function behind(context: TestContext): Promise<TestMirror> {
    const mirror = await running(context);
    await mirror.apply("UPDATE t SET v = 1");
    await mirror.target.query("ALTER TABLE t ADD CONSTRAINT refused CHECK (v <> 2)"); // the target halts, the journal goes on
    await mirror.source.query("UPDATE t SET v = 2 WHERE id < 100");
    await mirror.until(({ state }) => state === "halted", "the halt");
    await relieved(mirror);
    await mirror.stop();
    await mirror.target.query("ALTER TABLE t DROP CONSTRAINT refused");
    return mirror;
  }

  test("a journal that is lost, one that is an older copy, and none at all; with it the mirror goes on", { timeout: 120_000 }, async (context) => {
    await using mirror = await behind(context);
    await moveAway("kept");
    await mirror.start(withJournal());
    expect((await mirror.until(({ state }) => state === "halted", "the halt")).halt).toMatchObject({ code: "DR5102", what: expect.stringContaining("the journal is empty") });
    await mirror.stop();
    await mirror.start(none);
    expect((await mirror.until(({ state }) => state === "halted", "the halt")).halt).toMatchObject({ code: "DR5102", next: expect.stringContaining("Configure the journal again") });
    await mirror.stop();
    await rm(file(), { force: true });
    await putBack("kept");
    await mirror.start(withJournal());
    await mirror.streaming();
    const status = await mirror.apply("UPDATE t SET v = 3 WHERE id = 5");
    expect(await mirror.differences("t")).toEqual([]);
    expect(status.classes[0]!.conflicts).toBe(0);
    await mirror.stop();
    await mirror.start(none); // nothing is in it that the target lacks: it may be left out
    await mirror.streaming();
    await mirror.apply("UPDATE t SET v = 4 WHERE id = 6");
    await mirror.stop();
    await mirror.start(withJournal()); // and taken up again, though it has missed something
    await mirror.streaming();
    await mirror.apply("UPDATE t SET v = 5 WHERE id = 7");
    expect(await mirror.differences("t")).toEqual([]);
  });

  test("a damaged journal halts before the damage, and inspect finds it", async (context) => {
    await using mirror = await behind(context);
    const { position } = (await mirror.target.query("SELECT position FROM dualrun.checkpoints")).rows[0];
    const db = new DatabaseSync(file());
    db.exec("UPDATE records SET body = zeroblob(length(body)) WHERE seq = (SELECT max(seq) FROM records)");
    db.close();
    await mirror.start(withJournal());
    expect((await mirror.until(({ state }) => state === "halted", "the halt")).halt).toMatchObject({ code: "DR5101", what: expect.stringContaining("checksum"), next: expect.stringContaining("journal inspect") });
    await mirror.stop();
    expect(lsnPositions.relate((await mirror.target.query("SELECT position FROM dualrun.checkpoints")).rows[0].position, position)).not.toBe("before");
    const config = join(directory, "dualrun.yaml");
    await writeFile(config, JSON.stringify({ migration: "test", timeZone: "UTC", source: { engine: "postgres", url: "env:S" }, target: { engine: "postgres", url: "env:S" }, include: ["public.*"], journal: { kind: "sqlite", path: "journal.db" } }));
    const failed = (await promisify(execFile)(process.execPath, [MAIN, "journal", "inspect", "-c", config], { env: { ...process.env, S: "postgres://u@localhost/x" } }).catch((error: unknown) => error)) as { code: number; stdout: string; stderr: string };
    expect([failed.code, failed.stdout, failed.stderr]).toEqual([1, expect.stringContaining("does not have the checksum"), expect.stringContaining("error DR5101")]);
  });

  test("an older copy of the journal", async (context) => {
    await using mirror = await running(context);
    await mirror.apply("UPDATE t SET v = 1");
    await mirror.stop();
    await moveAway("older");
    await copyFile(join(directory, "older"), file());
    await mirror.target.query("ALTER TABLE t ADD CONSTRAINT refused CHECK (v <> 2)");
    await mirror.start(withJournal());
    await mirror.streaming();
    await mirror.source.query("UPDATE t SET v = 2 WHERE id < 100");
    await mirror.until(({ state }) => state === "halted", "the halt");
    await relieved(mirror);
    await mirror.stop();
    await mirror.target.query("ALTER TABLE t DROP CONSTRAINT refused");
    await putBack("older");
    await mirror.start(withJournal());
    expect((await mirror.until(({ state }) => state === "halted", "the halt")).halt).toMatchObject({ code: "DR5102", what: expect.stringContaining("but the source was told to forget more") });
  });

  test("a target that went back behind the journal's beginning", async (context) => {
    await using mirror = await running(context);
    const { position } = mirror.daemon.control.status();
    await mirror.apply("UPDATE t SET v = 1", "UPDATE t SET v = 2");
    await waitFor(() => Promise.resolve(mirror.daemon.control.status().journal!.first !== position), "the trim", 10_000);
    await relieved(mirror);
    await mirror.daemon.drain(AbortSignal.timeout(10_000));
    await waitFor(() => Promise.resolve(mirror.daemon.control.status().journal!.oldestCommitAt === null), "an empty journal", 10_000);
    await mirror.stop();
    await mirror.target.query("UPDATE dualrun.checkpoints SET position = $1", [position]);
    await mirror.start(withJournal());
    expect((await mirror.until(({ state }) => state === "halted", "the halt")).halt).toMatchObject({ code: "DR4002", what: expect.stringContaining("the journal begins at") });
  });

  test("another target's journal", async (context) => {
    await using mirror = await running(context);
    await mirror.stop();
    await mirror.target.query("DELETE FROM dualrun.settings WHERE name = 'journal-token'");
    await expect(mirror.start(withJournal())).rejects.toMatchObject({ code: "DR5103" });
  });
});

test("the target is down while the source writes: its log stays small, and then everything arrives once", { timeout: 180_000 }, async (context) => {
  await using source = await orSkip(context, postgresServer({ controllable: true }));
  await using target = await orSkip(context, postgresServer({ controllable: true, durable: true }));
  const [from, to] = [(await source.createDatabase("down")).url, (await target.createDatabase("down")).url];
  for (const url of [from, to]) await query(url, SCHEMA);
  await query(from, ROWS);
  await using home = await DaemonHome.make({ migration: "down", source: from, target: to, config: { include: ["public.*"], ...withJournal() } });
  const daemon = home.start();
  await daemon.until(({ phase, state }) => phase === "dual-run" && state === "streaming", "streaming");
  await target.process!.stop("immediate");
  const [{ before }] = (await query(from, "SELECT pg_current_wal_lsn() - '0/0' AS before")) as [{ before: string }];
  let most = 0;
  for (let i = 1; i <= 40; i++) {
    await query(from, `INSERT INTO t SELECT ${i * 10_000} + g, 0, repeat(md5(g::text), 20) FROM generate_series(1, 5000) AS g; UPDATE t SET v = v + 1 WHERE id % 97 = ${i}; CHECKPOINT`);
    const [{ retained }] = (await query(from, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS retained FROM pg_replication_slots WHERE slot_name = 'dualrun_down'")) as [{ retained: string }];
    most = Math.max(most, Number(retained));
  }
  const [{ written }] = (await query(from, `SELECT (pg_current_wal_lsn() - '0/0') - ${before} AS written`)) as [{ written: string }];
  expect(Number(written)).toBeGreaterThan(160 << 20);
  expect(most).toBeLessThan(64 << 20);
  console.log(`${(Number(written) / 2 ** 20).toFixed(0)} MiB of log written while the target was down, at most ${(most / 2 ** 20).toFixed(1)} MiB retained`);
  const { stdout } = await promisify(execFile)(process.execPath, [MAIN, "journal", "inspect", "-c", home.file, "--json"], { env: { ...process.env, TEST_SOURCE: from, TEST_TARGET: to } });
  expect(JSON.parse(stdout)).toMatchObject({ intact: true, fault: null, owner: "migration down" });
  expect(stdout).not.toContain("repeat");
  await target.process!.start();
  await daemon.until(({ state, halt, lagBytes }) => state === "streaming" && halt === null && lagBytes !== null && lagBytes < 1 << 20, "the rest", 90_000);
  await waitFor(async () => isEqual((await verifyTables(from, to, ["t"]))[0]!), "equal sides", 30_000);
  expect(await query(to, "SELECT count(*)::integer AS n FROM dualrun.conflicts")).toEqual([{ n: 0 }]);
  expect((await daemon.stop()).code).toBe(0);
});
