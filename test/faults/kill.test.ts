/**
 * kill -9 at every named failpoint and at random moments, under load: nothing is lost and nothing is applied twice.
 *
 *     DUALRUN_FAULTS=full DUALRUN_FAULT_KILLS=200 DUALRUN_FAULT_SEED=7 DUALRUN_FAULT_JOURNAL=sqlite npm run test:faults
 */
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { expect, test } from "vitest";
import { DEMO_CLASSES, createDemoSchema, seed as seedDemo } from "../../src/demo/schema.ts";
import { isEqual, verifyTables } from "../../src/demo/verify.ts";
import { startWorkload } from "../../src/demo/workload.ts";
import { DaemonHome, waitFor, type DaemonProcess } from "../support/daemon.ts";
import { orSkip, sharedPair } from "../support/servers.ts";

const FULL = process.env["DUALRUN_FAULTS"] === "full";
const KILLS = Number(process.env["DUALRUN_FAULT_KILLS"] ?? (FULL ? 200 : 12));
const SEED = Number(process.env["DUALRUN_FAULT_SEED"] ?? Date.now() % 100_000);

const COPYING = ["copy.before-chunk", "copy.after-chunk"];
const STREAMING = ["read.before", "read.after", "apply.before-write", "apply.after-write", "commit.before", "commit.after", "acknowledge.before", "acknowledge.after"];
const JOURNALLING = ["journal.before-commit", "journal.after-commit", "journal.before-trim", "journal.after-trim", "journal.before-acknowledge", "journal.after-acknowledge"];
const KEY = "6b".repeat(32);

/** Kinds of journal to try, each with what it adds to the configuration and to the places where a crash is tried. */
const JOURNALS: Readonly<Record<string, { readonly journal: object; readonly points: readonly string[] }>> = {
  none: { journal: { kind: "none" }, points: [] },
  sqlite: { journal: { kind: "sqlite", path: "journal.db", key: "env:TEST_JOURNAL_KEY" }, points: JOURNALLING },
};
const CHOSEN = process.env["DUALRUN_FAULT_JOURNAL"]?.split(",") ?? Object.keys(JOURNALS);
const TABLES = [...DEMO_CLASSES.map(({ name, table }) => ({ name, source: table })), { name: "equal_rows", source: "public.equal_rows" }, { name: "documents", source: "public.documents" }];

function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Equal rows without a key, and documents whose large column stays unchanged. */
const OWN_TABLES = `
  CREATE TABLE public.equal_rows (a integer, b text);
  CREATE TABLE public.documents (id integer PRIMARY KEY, version integer NOT NULL, body text)`;

async function writeOwnTables(url: string, until: AbortSignal, seed: number): Promise<void> {
  const next = random(seed);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  while (!until.aborted) {
    const id = next(60);
    await client.query("BEGIN");
    await client.query("INSERT INTO public.equal_rows SELECT $1, 'same' FROM generate_series(1, 3)", [id % 5]);
    await client.query("DELETE FROM public.equal_rows WHERE ctid IN (SELECT ctid FROM public.equal_rows WHERE a = $1 LIMIT 2)", [id % 5]);
    await client.query("UPDATE public.equal_rows SET b = $2 WHERE ctid IN (SELECT ctid FROM public.equal_rows WHERE a = $1 LIMIT 1)", [(id + 1) % 5, `at ${id}`]);
    await client.query("UPDATE public.documents SET version = version + 1 WHERE id = $1", [id]);
    if (id % 7 === 0) await client.query("UPDATE public.documents SET id = id + 1000, version = version + 1 WHERE id = $1", [id]);
    if (id % 11 === 0) await client.query("UPDATE public.documents SET id = id - 1000 WHERE id = $1 + 1000", [id]);
    await client.query(id % 13 === 0 ? "ROLLBACK" : "COMMIT");
    await sleep(15);
  }
  await client.end();
}

test.for(CHOSEN)(`journal %s: ${KILLS} kills, seed ${SEED}`, { timeout: 120_000 + KILLS * 20_000 }, async (kind, context) => {
  const { journal, points: ofJournal } = JOURNALS[kind]!;
  const pair = await orSkip(context, sharedPair());
  const db = await pair.fresh("kill");
  const next = random(SEED);
  const source = new pg.Client({ connectionString: db.source });
  const target = new pg.Client({ connectionString: db.target });
  await Promise.all([source.connect(), target.connect()]);
  await createDemoSchema(source, "source");
  await createDemoSchema(target, "target");
  for (const client of [source, target]) await client.query(OWN_TABLES);
  await source.query("ALTER TABLE public.equal_rows REPLICA IDENTITY FULL");
  await source.query("INSERT INTO public.equal_rows SELECT g % 5, 'same' FROM generate_series(1, 500) AS g");
  await source.query("INSERT INTO public.documents SELECT g, 0, (SELECT string_agg(md5((g * i)::text), '') FROM generate_series(1, 200) AS i) FROM generate_series(0, 59) AS g");
  await seedDemo(source, { scale: 0.05 });

  await using home = await DaemonHome.make({
    migration: "kill", source: db.source, target: db.target,
    config: { journal, classes: TABLES, snapshot: { parallel: 2, chunkRows: 200 }, apply: { batchRows: 50, batchDelay: "5ms" } },
  });
  const ending = new AbortController();
  const workload = await startWorkload(db.source, { transactionsPerSecond: 120, seed: SEED, clients: 2, largeRows: 3_000, mix: { large: 20 } });
  const own = writeOwnTables(db.source, ending.signal, SEED);

  const log: string[] = [];
  let counting = false;
  let lastPosition = 0n;
  for (let kill = 0; kill < KILLS; kill++) {
    const copied = await allCopied(target);
    if (copied && !counting) {
      await countInserts(target);
      counting = true;
    }
    const points = copied || kill % 4 === 3 ? [...STREAMING, ...ofJournal] : COPYING;
    const named = next(4) > 0;
    const point = `${points[next(points.length)]!}:${1 + next(copied ? 40 : 12)}`;
    const daemon = home.start({ TEST_JOURNAL_KEY: KEY, ...(named ? { DUALRUN_FAILPOINT: point } : {}) });
    await Promise.race([daemon.exited, sleep(named ? 6_000 : 800 + next(2_500))]);
    const exit = await daemon.kill();
    log.push(`${kill} ${named ? point : "random moment"} → ${exit.signal ?? `exit ${exit.code}`}`);
    expect(exit.signal, `${log.at(-1)}\n${daemon.output}`).toBe("SIGKILL");
    const position = await positionOf(target);
    expect(position >= lastPosition, `checkpoint went back after ${log.at(-1)}`).toBe(true);
    lastPosition = position;
  }
  const totals = await workload.stop();
  ending.abort();
  await own;

  const daemon = home.start({ TEST_JOURNAL_KEY: KEY });
  await daemon.until(({ phase, state }) => phase === "dual-run" && state === "streaming", "dual-run", 120_000);
  await drained(source, target, daemon);
  const verdicts = await verifyTables(db.source, db.target, TABLES.map(({ source: table }) => table));
  expect((await daemon.stop()).code).toBe(0);
  console.log(`journal ${kind}, seed ${SEED}: ${KILLS} kills, ${log.filter((line) => !line.includes("random")).length} armed with a failpoint, ${totals.committed} transactions; ${verdicts.map((v) => `${v.table} ${v.sourceRows}/${v.missing}/${v.extra}`).join(", ")}`);
  expect(verdicts.filter((verdict) => !isEqual(verdict)), log.join("\n")).toEqual([]);
  const { rows: twice } = await target.query("SELECT id, count(*) FROM public.audit_inserts GROUP BY id HAVING count(*) > 1").catch(() => ({ rows: [] }));
  expect(twice).toEqual([]);
  const { rows: conflicts } = await target.query("SELECT class, kind, count(*)::integer AS n FROM dualrun.conflicts GROUP BY 1, 2");
  expect(conflicts).toEqual([]);
  const { rows: slots } = await source.query("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()");
  expect(slots).toEqual([{ slot_name: "dualrun_kill" }]);
  await Promise.all([source.end(), target.end()]);
  await db.drop();
});

async function allCopied(target: pg.Client): Promise<boolean> {
  const { rows } = await target.query("SELECT to_regclass('dualrun.chunks') IS NOT NULL AS there");
  if (!rows[0].there) return false;
  const { rows: left } = await target.query("SELECT count(*)::integer AS all, count(*) FILTER (WHERE done_at IS NULL)::integer AS undone FROM dualrun.chunks");
  return left[0].all > 0 && left[0].undone === 0;
}

/** An append-only log's rows may come once each; the trigger fires for the mirror's writes too. */
async function countInserts(target: pg.Client): Promise<void> {
  await target.query("CREATE TABLE public.audit_inserts (id bigint)");
  await target.query(`CREATE FUNCTION public.count_audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit_inserts VALUES (NEW.id); RETURN NULL; END $$`);
  await target.query("CREATE TRIGGER count_audit AFTER INSERT ON billing.audit_log FOR EACH ROW EXECUTE FUNCTION public.count_audit()");
  await target.query("ALTER TABLE billing.audit_log ENABLE ALWAYS TRIGGER count_audit");
}

async function positionOf(target: pg.Client): Promise<bigint> {
  const { rows: there } = await target.query("SELECT to_regclass('dualrun.checkpoints') IS NOT NULL AS yes");
  if (!there[0].yes) return 0n;
  const { rows } = await target.query("SELECT (position::pg_lsn - '0/0')::text AS bytes FROM dualrun.checkpoints WHERE position IS NOT NULL");
  return BigInt(rows[0]?.bytes ?? 0);
}

async function drained(source: pg.Client, target: pg.Client, daemon: DaemonProcess): Promise<void> {
  const { rows } = await source.query("SELECT pg_current_wal_insert_lsn()::text AS lsn");
  await source.query("SELECT pg_logical_emit_message(true, 'dualrun', 'drain')");
  await waitFor(async () => (await target.query("SELECT 1 FROM dualrun.checkpoints WHERE position::pg_lsn >= $1::pg_lsn", [rows[0].lsn])).rowCount === 1, () => `the drain\n${daemon.output.slice(-3000)}`);
}
