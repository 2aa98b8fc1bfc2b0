/**
 * pgbench's own workload on the source, with a table that has no key: both sides end equal.
 *
 *     DUALRUN_PGBENCH_SECONDS=600 npm run test:faults -- test/faults/pgbench.test.ts
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { promisify } from "node:util";
import pg from "pg";
import { expect, test } from "vitest";
import { isEqual, verifyTables } from "../../src/demo/verify.ts";
import { DaemonHome, waitFor } from "../support/daemon.ts";
import { orSkip, sharedPair } from "../support/servers.ts";

const SECONDS = Number(process.env["DUALRUN_PGBENCH_SECONDS"] ?? (process.env["DUALRUN_FAULTS"] === "full" ? 600 : 5));
const SCALE = SECONDS >= 60 ? "10" : "1";
const PGBENCH = [process.env["PGBENCH"], "/usr/bin/pgbench", ...[18, 17, 16, 15, 14].map((major) => `/usr/lib/postgresql/${major}/bin/pgbench`)].find((path) => path !== undefined && existsSync(path));
const TABLES = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"].map((name) => `public.${name}`);
const run = promisify(execFile);

test(`pgbench -s ${SCALE}, ${SECONDS} s with 8 clients`, { timeout: 300_000 + SECONDS * 3_000 }, async (context) => {
  if (PGBENCH === undefined) return context.skip("pgbench was not found (set PGBENCH)");
  const pair = await orSkip(context, sharedPair());
  const db = await pair.fresh("pgbench");
  await run(PGBENCH, ["-i", "-q", "-s", SCALE, db.source]);
  await run(PGBENCH, ["-i", "-q", "-I", "dtp", "-s", SCALE, db.target]);
  const source = new pg.Client({ connectionString: db.source });
  const target = new pg.Client({ connectionString: db.target });
  await Promise.all([source.connect(), target.connect()]);
  await source.query("ALTER TABLE pgbench_history REPLICA IDENTITY FULL");
  await using home = await DaemonHome.make({ migration: "pgbench", source: db.source, target: db.target, config: { include: ["public.*"] } });
  const daemon = home.start();
  const load = run(PGBENCH, ["-n", "-c", "8", "-j", "2", "-T", String(SECONDS), db.source], { maxBuffer: 1 << 24 });
  await daemon.until(({ phase, state }) => phase === "dual-run" && state === "streaming", "streaming");
  const { stdout } = await load;
  await source.query("DELETE FROM pgbench_history WHERE ctid IN (SELECT ctid FROM pgbench_history LIMIT 100)");
  const { rows } = await source.query<{ lsn: string }>("SELECT pg_current_wal_insert_lsn()::text AS lsn");
  await source.query("SELECT pg_logical_emit_message(true, 'dualrun', 'drain')");
  const started = Date.now();
  await waitFor(async () => (await target.query("SELECT 1 FROM dualrun.checkpoints WHERE position::pg_lsn >= $1::pg_lsn", [rows[0]!.lsn])).rowCount === 1, "the drain", 600_000);
  const verdicts = await verifyTables(db.source, db.target, TABLES);
  console.log(`${/number of transactions actually processed: \d+/.exec(stdout)?.[0]}, ${/tps = [\d.]+/.exec(stdout)?.[0]}; drained in ${Date.now() - started} ms; ${verdicts.map((verdict) => `${verdict.table} ${verdict.sourceRows}/${verdict.missing}/${verdict.extra}`).join(", ")}`);
  expect(verdicts.filter((verdict) => !isEqual(verdict))).toEqual([]);
  expect((await target.query("SELECT 1 FROM dualrun.conflicts")).rowCount).toBe(0);
  expect((await daemon.stop()).code).toBe(0);
  await Promise.all([source.end(), target.end()]);
  await db.drop();
});
