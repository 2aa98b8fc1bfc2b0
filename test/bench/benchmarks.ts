/** What is measured, and against whom. */
import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { Stage, until, type BenchDaemon } from "./stage.ts";

export interface BenchOptions {
  readonly rounds: number;
  /** 1 is the published size. */
  readonly scale: number;
  readonly say: (line: string) => void;
}

const run = promisify(execFile);
const PGBENCH = [process.env["PGBENCH"], "/usr/bin/pgbench", "/usr/lib/postgresql/18/bin/pgbench", "/usr/lib/postgresql/17/bin/pgbench", "/usr/lib/postgresql/15/bin/pgbench"]
  .find((path) => path !== undefined && existsSync(path));

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
const thousands = (value: number): string => Math.round(value).toLocaleString("en");

function compare(say: (line: string) => void, unit: string, ours: readonly number[], theirs: readonly number[], goal: string): void {
  const ratios = ours.map((value, i) => value / theirs[i]!);
  say(`median  dualrun ${thousands(median(ours))} ${unit}   contestant ${thousands(median(theirs))} ${unit}   ratio ${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} … ${Math.max(...ratios).toFixed(2)}), goal ${goal}`);
}

const WIDE = `CREATE TABLE wide (id bigint PRIMARY KEY, customer integer NOT NULL, amount numeric(14,2) NOT NULL, currency char(3) NOT NULL,
  state text NOT NULL, created timestamptz NOT NULL, updated timestamptz, note text, flag boolean NOT NULL, reference uuid NOT NULL)`;

const wideRows = (from: number, count: number): string => `
  INSERT INTO wide SELECT g, g % 1000, (g * 1.37)::numeric(14,2), 'EUR', 'open', now(), NULL, 'note ' || g, g % 2 = 0, gen_random_uuid()
  FROM generate_series(${from}, ${from + count - 1}) AS g`;

/** Backlogs of both contestants are made by the same writes; each is then timed alone. */
async function catchUps(
  { rounds, say }: BenchOptions, stage: Stage, daemon: BenchDaemon, changes: number, write: (round: number) => Promise<void>, goal: string,
): Promise<void> {
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await daemon.pause();
    await write(round);
    await stage.checkpoint();
    ours.push((changes / (await daemon.catchUp())) * 1000);
    await daemon.pause();
    await stage.checkpoint();
    theirs.push((changes / (await stage.subscriptionCatchUp())) * 1000);
    say(`round ${round + 1}  dualrun ${thousands(ours.at(-1)!)} rows/s   subscription ${thousands(theirs.at(-1)!)} rows/s   ratio ${(ours.at(-1)! / theirs.at(-1)!).toFixed(2)}`);
  }
  compare(say, "rows/s", ours, theirs, goal);
}

async function inserts(options: BenchOptions): Promise<void> {
  await using stage = await Stage.open();
  const rows = Math.round(500_000 * options.scale);
  await stage.everywhere(WIDE);
  await using daemon = await stage.startDaemon("bench-inserts", ["wide"]);
  await daemon.streaming();
  await stage.subscribe(["wide"]);
  // Single-row statements, 1000 to a transaction, as an application writes them.
  const body = `DO $$ BEGIN FOR i IN 1..%n LOOP ${wideRows(0, 1).replace("generate_series(0, 0)", "generate_series(%f + i, %f + i)")}; END LOOP; END $$`;
  await catchUps(options, stage, daemon, rows, async (round) => {
    for (let done = 0; done < rows; done += 1000) await stage.onSource.query(body.replaceAll("%n", "1000").replaceAll("%f", String(round * rows + done)));
  }, "≥ 1.5");
  await stage.unsubscribe();
}

/** Appending, reading back and applying, against applying what comes from the source directly: with values as they would travel, and with text on both ways. */
async function journal(options: BenchOptions): Promise<void> {
  await journalRounds(options, "without a journal, binary", WIDE);
  await journalRounds(options, "without a journal, text", WIDE.replace(/\)$/, ", tags text[])"));
}

async function journalRounds({ rounds, scale, say }: BenchOptions, contestant: string, table: string): Promise<void> {
  await using stage = await Stage.open();
  await stage.everywhere(table);
  const rows = Math.round(500_000 * scale);
  await using direct = await stage.startDaemon("bench-direct", ["wide"]);
  await using kept = await stage.startDaemon("bench-journal", ["wide"], { journal: { kind: "sqlite", path: "journal.db" } }, "rival");
  for (const daemon of [direct, kept]) await daemon.streaming();
  const measured = { direct: [] as number[], kept: [] as number[] };
  for (let round = 0; round < rounds; round++) {
    for (const daemon of [direct, kept]) daemon.suspend();
    for (let done = 0; done < rows; done += 1000) await stage.onSource.query(wideRows(round * rows + done, 1000));
    await stage.checkpoint();
    measured.direct.push((rows / (await direct.catchUpSuspended())) * 1000);
    direct.suspend();
    measured.kept.push((rows / (await kept.catchUpSuspended())) * 1000);
    await direct.catchUpSuspended();
    say(`round ${round + 1}  with the journal ${thousands(measured.kept.at(-1)!)} rows/s   ${contestant} ${thousands(measured.direct.at(-1)!)} rows/s`);
  }
  compare(say, "rows/s", measured.kept, measured.direct, `≥ 0.8 (contestant: ${contestant})`);
  say(`peak memory ${thousands(await kept.peakMemory())} MiB with, ${thousands(await direct.peakMemory())} MiB without`);
}

async function tpcb(options: BenchOptions): Promise<void> {
  if (PGBENCH === undefined) return options.say("skipped: pgbench was not found (set PGBENCH)");
  await using stage = await Stage.open();
  await pgbenchTables(stage);
  const tables = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];
  await using daemon = await stage.startDaemon("bench-tpcb", tables);
  await daemon.streaming();
  await stage.onRival.query("SELECT 1");
  await copyToRival(stage, tables);
  await stage.subscribe(tables);
  const transactions = Math.round(100_000 * options.scale);
  await catchUps(options, stage, daemon, transactions * 4, async () => {
    await run(PGBENCH, ["-n", "-c", "8", "-j", "2", "-t", String(transactions / 8), stage.source.url], { maxBuffer: 1 << 24 });
  }, "≥ 1.5");
  await stage.unsubscribe();
}

async function pgbenchTables(stage: Stage): Promise<void> {
  await run(PGBENCH!, ["-i", "-q", "-s", "10", stage.source.url]);
  await stage.onSource.query("ALTER TABLE pgbench_history REPLICA IDENTITY FULL");
  for (const url of [stage.target.url, stage.rivalUrl]) await run(PGBENCH!, ["-i", "-q", "-I", "dtp", "-s", "10", url]);
}

async function copyToRival(stage: Stage, tables: readonly string[]): Promise<void> {
  for (const table of tables) await pipe(stage.source.url, stage.rivalUrl, `COPY ${table} TO STDOUT`, `COPY ${table} FROM STDIN`);
}

function pipe(from: string, to: string, out: string, into: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn("sh", ["-c", 'psql -qX "$1" -c "$3" | psql -qX "$2" -c "$4"', "sh", from, to, out, into], { stdio: ["ignore", "ignore", "inherit"] });
    child.on("error", reject);
    child.on("exit", (code) => (code === 0 ? resolve() : reject(new Error(`psql ended with ${code}`))));
  });
}

async function snapshot(options: BenchOptions): Promise<void> {
  await using stage = await Stage.open();
  const tables = ["t1", "t2", "t3", "t4"];
  const rows = Math.round(1_250_000 * options.scale);
  for (const table of tables) {
    await stage.everywhere(WIDE.replace("wide", table));
    await stage.onSource.query(wideRows(1, rows).replace("INTO wide", `INTO ${table}`));
  }
  await stage.onSource.query("VACUUM ANALYZE");
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < options.rounds; round++) {
    for (const client of [stage.onTarget, stage.onRival]) await client.query(`TRUNCATE ${tables.join(", ")}`);
    await stage.checkpoint();
    const piped = performance.now();
    await Promise.all(tables.map((table) => pipe(stage.source.url, stage.rivalUrl, `COPY ${table} TO STDOUT`, `COPY ${table} FROM STDIN`)));
    theirs.push((4 * rows) / ((performance.now() - piped) / 1000));
    await stage.checkpoint();
    {
      await using daemon = await stage.startDaemon("bench-snapshot", tables, { snapshot: { parallel: 4 } });
      await daemon.streaming();
      const { rows: times } = await stage.onTarget.query<{ seconds: string }>(
        "SELECT extract(epoch FROM max(done_at) - (SELECT min(applied_at) FROM dualrun.migrations)) AS seconds FROM dualrun.chunks");
      ours.push((4 * rows) / Number(times[0]!.seconds));
    }
    options.say(`round ${round + 1}  dualrun ${thousands(ours.at(-1)!)} rows/s   COPY through a pipe ${thousands(theirs.at(-1)!)} rows/s   ratio ${(ours.at(-1)! / theirs.at(-1)!).toFixed(2)}`);
  }
  compare(options.say, "rows/s", ours, theirs, "≥ 0.9");
}

async function burden(options: BenchOptions): Promise<void> {
  if (PGBENCH === undefined) return options.say("skipped: pgbench was not found (set PGBENCH)");
  await using stage = await Stage.open();
  await pgbenchTables(stage);
  const tables = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];
  const seconds = String(Math.max(5, Math.round(20 * options.scale)));
  const rate = async (): Promise<number> => {
    const { stdout } = await run(PGBENCH, ["-n", "-c", "8", "-j", "2", "-T", seconds, stage.source.url]);
    return Number(/tps = ([\d.]+)/.exec(stdout)![1]);
  };
  await copyToRival(stage, tables);
  const ours: number[] = [];
  const theirs: number[] = [];
  await using daemon = await stage.startDaemon("bench-burden", tables);
  await daemon.streaming();
  for (let round = 0; round < options.rounds; round++) {
    await daemon.drained();
    ours.push(await rate());
    await daemon.drained();
    await daemon.pause();
    await stage.subscribe(tables, true);
    theirs.push(await rate());
    await stage.unsubscribe();
    await daemon.post("resume");
    options.say(`round ${round + 1}  with dualrun ${thousands(ours.at(-1)!)} tps   with a subscription ${thousands(theirs.at(-1)!)} tps   ratio ${(ours.at(-1)! / theirs.at(-1)!).toFixed(2)}`);
  }
  compare(options.say, "tps", ours, theirs, "≥ 0.95");
}

async function lag(options: BenchOptions): Promise<void> {
  if (PGBENCH === undefined) return options.say("skipped: pgbench was not found (set PGBENCH)");
  await using stage = await Stage.open();
  await pgbenchTables(stage);
  await using daemon = await stage.startDaemon("bench-lag", ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"]);
  await daemon.streaming();
  const seconds = Math.max(5, Math.round(30 * options.scale));
  const load = run(PGBENCH, ["-n", "-c", "4", "-j", "1", "-R", "1000", "-T", String(seconds), stage.source.url]);
  // Lag as a reader of the target sees it: a row is written on the source with its time, and waited for.
  await stage.onSource.query("SELECT 1");
  const seen: number[] = [];
  const end = Date.now() + (seconds - 2) * 1000;
  await sleep(1000);
  for (let i = 0; Date.now() < end; i++) {
    const started = performance.now();
    await stage.onSource.query("INSERT INTO pgbench_history (tid, bid, aid, delta) VALUES ($1, 0, 0, 0)", [-1 - i]);
    await until(async () => (await stage.onTarget.query("SELECT 1 FROM (SELECT tid FROM pgbench_history ORDER BY ctid DESC LIMIT 2000) AS last WHERE tid = $1", [-1 - i])).rowCount! > 0, 1);
    seen.push(performance.now() - started);
    await sleep(20);
  }
  const { stdout } = await load;
  const sorted = seen.sort((a, b) => a - b);
  const at = (share: number): string => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!.toFixed(0);
  options.say(`${sorted.length} samples at ${/tps = ([\d.]+)/.exec(stdout)![1]} tps: lag p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${at(1)} ms, goal p50 < 100 ms, p99 < 1 s`);
}

async function memory(options: BenchOptions): Promise<void> {
  for (const rows of [500_000, 5_000_000].map((count) => Math.round(count * options.scale))) {
    await using stage = await Stage.open();
    await stage.everywhere(WIDE);
    await using daemon = await stage.startDaemon("bench-memory", ["wide"]);
    await daemon.streaming();
    const before = await daemon.peakMemory();
    const started = performance.now();
    await stage.onSource.query(wideRows(1, rows));
    const written = performance.now();
    await daemon.drained();
    const { rows: count } = await stage.onTarget.query<{ n: string }>("SELECT count(*) AS n FROM wide");
    options.say(`one transaction of ${thousands(rows)} rows: peak RSS ${(await daemon.peakMemory()).toFixed(0)} MiB (before ${before.toFixed(0)}), written in ${((written - started) / 1000).toFixed(1)} s, applied ${((performance.now() - written) / 1000).toFixed(1)} s later, ${thousands(Number(count[0]!.n))} rows on the target, goal < 400 MiB`);
  }
}

const BARE = `SELECT count(*), sum(amount) FILTER (WHERE amount < 'Infinity' AND amount > '-Infinity'), count(amount), min(amount), max(amount), max(scale(amount)),
  sum(substring(h, 1, 8)::bigint), sum(substring(h, 9, 8)::bigint) FROM (
    SELECT amount, currency, sha256(record_send(ROW(id, customer, amount, currency, state, created, updated, note, flag, reference))) AS h FROM wide OFFSET 0) AS q GROUP BY currency`;
/** What people write who have no tool: one hash over everything, in order. */
const SCRIPT = "SELECT count(*), sum(amount), md5(string_agg(md5(w::text), '' ORDER BY id)) FROM wide AS w";

async function comparison(options: BenchOptions): Promise<void> {
  await using stage = await Stage.open();
  const rows = Math.round(5_000_000 * options.scale);
  await stage.everywhere(WIDE);
  await stage.onSource.query(wideRows(1, rows));
  await stage.onSource.query("VACUUM ANALYZE wide");
  const classes = [{ source: "public.wide", kind: "money", money: [{ column: "amount", currency: "currency" }] }];
  await using daemon = await stage.startDaemon("bench-compare", [], { classes, comparison: { every: "1h", rescan: "24h" } });
  await daemon.streaming();
  await stage.onTarget.query("VACUUM ANALYZE wide");
  await daemon.compare(true);
  const onBoth = async (sql: string): Promise<number> => {
    const started = performance.now();
    await Promise.all([stage.onSource.query(sql), stage.onTarget.query(sql)]);
    return (performance.now() - started) / 1000;
  };
  const [full, bare, script, hourly]: number[][] = [[], [], [], []];
  for (let round = 0; round < options.rounds; round++) {
    full!.push((await daemon.compare(true)).seconds);
    bare!.push(await onBoth(BARE));
    script!.push(await onBoth(SCRIPT));
    await stage.onSource.query(`UPDATE wide SET note = 'touched' || ${round} WHERE id % 1000 = ${round}`);
    await daemon.drained();
    const document = await daemon.compare(false);
    hourly!.push(document.seconds);
    options.say(`round ${round + 1}  full ${full!.at(-1)!.toFixed(1)} s   bare SQL ${bare!.at(-1)!.toFixed(1)} s   md5(string_agg) script ${script!.at(-1)!.toFixed(1)} s   hourly, 0.1 % touched ${hourly!.at(-1)!.toFixed(2)} s (${document.verdict}, ${thousands(Number(document.classes[0]!.hashedRows))} rows by value)`);
  }
  const ratio = (a: readonly number[], b: readonly number[]): string => median(a.map((value, i) => value / b[i]!)).toFixed(2);
  options.say(`median of ${thousands(rows)} rows: full / bare SQL ${ratio(full!, bare!)} (goal ≤ 1.3), full / script ${ratio(full!, script!)} (goal < 1), hourly / full ${ratio(hourly!, full!)} (goal ≤ 0.1), daemon peak RSS ${(await daemon.peakMemory()).toFixed(0)} MiB (goal < 300)`);
}

/** For how long nothing is applied because of an exact cut, beside a steady load. */
async function hold(options: BenchOptions): Promise<void> {
  if (PGBENCH === undefined) return options.say("skipped: pgbench was not found (set PGBENCH)");
  await using stage = await Stage.open();
  await pgbenchTables(stage);
  await using daemon = await stage.startDaemon("bench-hold", ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"], { comparison: { every: "31d", rescan: "31d" } });
  await daemon.streaming();
  await daemon.compare(true);
  const comparisons = Math.max(20, Math.round(100 * options.scale));
  for (const rate of [1_000, 0]) {
    const load = spawn(PGBENCH, ["-n", "-c", "8", "-j", "2", ...(rate === 0 ? [] : ["-R", String(rate)]), "-T", "3600", stage.source.url], { stdio: "ignore" });
    const held: number[] = [];
    let missed = 0;
    for (let i = 0; i < comparisons; i++) {
      const { holdMs, verdict } = await daemon.compare(false);
      if (holdMs === null || verdict !== "in_sync") missed += 1;
      else held.push(holdMs);
    }
    load.kill("SIGINT");
    await daemon.drained();
    held.sort((a, b) => a - b);
    const at = (share: number): string => held[Math.floor(share * (held.length - 1))]!.toFixed(1);
    options.say(`${rate === 0 ? "full load" : `${rate} tps`}: ${comparisons} comparisons, ${missed} without a proof; applier held p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, max ${at(1)} ms, goal p95 < 50 ms; the source is never held`);
  }
}

export const BENCHMARKS: Readonly<Record<string, (options: BenchOptions) => Promise<void>>> = { inserts, journal, tpcb, snapshot, burden, lag, memory, comparison, hold };
