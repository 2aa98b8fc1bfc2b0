/**
 * Comparisons while everything is being written: none may be wrong.
 *
 * DUALRUN_COMPARISONS   how many comparisons (default 12; DUALRUN_FAULTS=full: 200), and as many planted differences
 * DUALRUN_FAULT_SEED    where the random choices begin; printed
 */
import pg from "pg";
import { expect, test, type TestContext } from "vitest";
import { keyHash } from "../../src/compare/index.ts";
import type { ClassComparison } from "../../src/core/index.ts";
import { TestMirror } from "../support/mirror.ts";
import { orSkip, sharedPair } from "../support/servers.ts";

const FULL = process.env["DUALRUN_FAULTS"] === "full";
const COMPARISONS = Number(process.env["DUALRUN_COMPARISONS"] ?? (FULL ? 200 : 12));
const SEED = Number(process.env["DUALRUN_FAULT_SEED"] ?? Math.floor(Math.random() * 1e5));
const WRITERS = 16;
const ROWS = 20_000;
/** Keys from here on belong to nobody but the corruptor. */
const STILL = 1_000_000;

const SCHEMA = `
  CREATE TABLE ledger (id bigint PRIMARY KEY, currency char(3), amount numeric(14,2), booked_at timestamptz, note text, scale numeric, rate float8);
  CREATE TABLE docs (id uuid PRIMARY KEY, body text);
  CREATE TABLE history (a integer, b integer, at timestamptz)`;
const FILL = `
  INSERT INTO ledger SELECT g, (ARRAY['NZD','EUR','JPY'])[1 + g % 3], g * 0.37, timestamptz '2026-10-01Z' + g * interval '3 min', 'note ' || g, g + 0.5, g / 3.0 FROM generate_series(1, ${ROWS}) AS g;
  INSERT INTO ledger SELECT ${STILL} + g, (ARRAY['NZD','EUR','JPY'])[1 + g % 3], g * 0.37, timestamptz '2026-10-01Z' + g * interval '3 min', 'note ' || g, g + 0.5, 0 FROM generate_series(1, 5000) AS g;
  INSERT INTO docs SELECT gen_random_uuid(), repeat(g::text, 20) FROM generate_series(1, 5000) AS g;
  ALTER TABLE history REPLICA IDENTITY FULL; INSERT INTO history SELECT g % 100, 0, '2026-11-01Z' FROM generate_series(1, 2000) AS g`;
const CLASSES = [
  { source: "public.ledger", kind: "money", money: [{ column: "amount", currency: "currency" }], occurredAt: "booked_at" }, { source: "public.docs" },
  { source: "public.history", occurredAt: "at" },
];

/** A small generator that the same seed always takes the same way. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const WRITES: readonly ((random: (below: number) => number) => string)[] = [
  (r) => `UPDATE ledger SET amount = amount + 1 WHERE id = ${1 + r(ROWS)}`,
  (r) => `INSERT INTO ledger VALUES (${100_000 + r(400_000)}, 'NZD', ${r(1000)}, now(), 'new', 1, 2) ON CONFLICT (id) DO UPDATE SET note = ledger.note || 'x'`,
  (r) => `DELETE FROM ledger WHERE id = ${100_000 + r(400_000)}`,
  (r) => `BEGIN; UPDATE ledger SET amount = amount - 5 WHERE id = ${1 + r(100)}; UPDATE ledger SET amount = amount + 5 WHERE id = ${101 + r(100)}; COMMIT`,
  (r) => `UPDATE ledger SET id = ${600_000 + r(300_000)} WHERE id = ${100_000 + r(400_000)} AND NOT EXISTS (SELECT 1 FROM ledger WHERE id >= 600_000 AND id < 600_010)`,
  (r) => `INSERT INTO docs VALUES (gen_random_uuid(), '${r(1e6)}')`,
  (r) => `INSERT INTO history VALUES (${r(100)}, ${r(3)}, now())`,
  (r) => `DELETE FROM history WHERE ctid IN (SELECT ctid FROM history WHERE a = ${r(100)} LIMIT 4)`,
  (r) => `BEGIN; INSERT INTO history SELECT ${r(100)}, g, now() FROM generate_series(1, 3) AS g; SAVEPOINT s; DELETE FROM ledger WHERE id < 50; ROLLBACK TO s; COMMIT`,
];

async function write(url: string, seed: number, signal: AbortSignal): Promise<number> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined); // it shows at the next statement
  await client.connect();
  const random = randomFrom(seed);
  let written = 0;
  try {
    while (!signal.aborted) {
      try {
        await client.query(WRITES[random(WRITES.length)]!(random));
        written += 1;
      } catch (error) {
        if (!["40P01", "23505", "40001"].includes((error as { code: string }).code)) throw error; // writers may get in each other's way
        await client.query("ROLLBACK");
      }
    }
  } finally {
    await client.end();
  }
  return written;
}

async function busy(context: TestContext): Promise<{ readonly mirror: TestMirror; readonly end: () => Promise<number> }> {
  const pair = await orSkip(context, sharedPair());
  const fresh = await pair.fresh("exact");
  const mirror = await TestMirror.make(fresh, SCHEMA, FILL);
  await mirror.start({ classes: CLASSES, comparison: { every: "31d", rescan: "31d", holdTimeout: "20s", cutTimeout: "5m" } });
  await mirror.streaming();
  const stop = new AbortController();
  const writers = Array.from({ length: WRITERS }, (_, i) => write(fresh.source, SEED * 100 + i, stop.signal));
  return {
    mirror,
    async end() {
      stop.abort();
      return (await Promise.all(writers)).reduce((sum, written) => sum + written, 0);
    },
  };
}

test(`${COMPARISONS} comparisons beside ${WRITERS} writers, seed ${SEED}`, { timeout: 1_800_000 }, async (context) => {
  const { mirror, end } = await busy(context);
  await using _ = mirror;
  const holds: number[] = [];
  for (let i = 0; i < COMPARISONS; i++) {
    const document = await mirror.daemon.control.proof.compare(null, i % 3 === 0);
    holds.push(document.holdMs!);
    expect(document.classes.map(({ class: name, verdict, note, differences }) => [name, verdict, note, differences.healed]), `comparison ${i}, seed ${SEED}`).toEqual(
      CLASSES.map(({ source }) => [source.slice(7), "in_sync", null, 0]));
  }
  const written = await end();
  holds.sort((a, b) => a - b);
  const at = (share: number): string => holds[Math.floor(share * (holds.length - 1))]!.toFixed(1);
  console.log(`seed ${SEED}: ${COMPARISONS} comparisons beside ${WRITERS} writers (${written} transactions), no false difference; hold p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, max ${at(1)} ms`);
  expect(written).toBeGreaterThan(100);
});

test(`comparisons beside ${WRITERS} writers and a transaction that does not end, seed ${SEED}`, { timeout: 1_800_000 }, async (context) => {
  const { mirror, end } = await busy(context);
  await using _ = mirror;
  const { proof } = mirror.daemon.control;
  await mirror.source.query(`BEGIN; UPDATE ledger SET note = 'does not end' WHERE id = ${STILL + 1}`);
  const seen = { rounds: Math.ceil(COMPARISONS / 2), leftOut: 0, proven: 0, planted: 0 };
  for (let i = 0; i < seen.rounds; i++) {
    const document = await proof.compare(null, i % 3 === 0);
    expect(document.cutBy).toBe("slot-free");
    const wrong = document.classes.filter(({ verdict, leftOut, differences }) => verdict === "confirmed_out_of_sync" || (verdict === "in_flight" && leftOut === 0) || differences.healed > 0);
    expect(wrong, `comparison ${i}, seed ${SEED}`).toEqual([]);
    seen.leftOut += document.classes.reduce((sum, { leftOut }) => sum + leftOut, 0);
    seen.proven += document.classes.filter(({ verdict }) => verdict === "in_sync").length;
    const id = STILL + 100 + 2 * i;
    await mirror.target.query("UPDATE ledger SET amount = amount + 0.01 WHERE id = $1", [id]);
    const found = (await proof.compare("ledger", true)).classes[0]!;
    expect([found.verdict, found.rows.map(({ keyHash: hash }) => hash)], `planted ${id}, seed ${SEED}, ${found.note}`).toEqual(["confirmed_out_of_sync", [keyHash([String(id)])]]);
    await mirror.target.query("UPDATE ledger SET amount = amount - 0.01 WHERE id = $1", [id]);
    seen.planted += 1;
  }
  await mirror.source.query("ROLLBACK");
  const written = await end();
  console.log(`seed ${SEED}: ${seen.rounds} comparisons by plain snapshots beside ${WRITERS} writers (${written} transactions), ${seen.leftOut} slices left out, ${seen.proven} classes in sync, no false difference; ${seen.planted} planted differences found`);
  expect(seen.leftOut).toBeGreaterThan(0);
  expect(seen.proven).toBeGreaterThan(0);
  expect((await proof.compare(null, true)).classes.map(({ verdict }) => verdict)).toEqual(CLASSES.map(() => "in_sync"));
});

interface Planted {
  readonly id: number;
  readonly kind: ClassComparison["rows"][number]["kind"];
  readonly columns: readonly string[];
  readonly sql: string;
}

const CORRUPTIONS: readonly ((id: number) => readonly Planted[])[] = [
  (id) => [{ id, kind: "missing", columns: [], sql: `DELETE FROM ledger WHERE id = ${id}` }],
  (id) => [{ id: id + 100_000, kind: "extra", columns: [], sql: `INSERT INTO ledger SELECT id + 100000, currency, amount, booked_at, note, scale, rate FROM ledger WHERE id = ${id}` }],
  (id) => [{ id, kind: "mismatched", columns: ["amount"], sql: `UPDATE ledger SET amount = amount + 0.01 WHERE id = ${id}` }],
  (id) => [{ id, kind: "mismatched", columns: ["booked_at"], sql: `UPDATE ledger SET booked_at = booked_at + interval '1 hour' WHERE id = ${id}` }],
  (id) => [{ id, kind: "mismatched", columns: ["note"], sql: `UPDATE ledger SET note = note || ' ' WHERE id = ${id}` }],
  (id) => [{ id, kind: "mismatched", columns: ["note"], sql: `UPDATE ledger SET note = initcap(note) WHERE id = ${id}` }],
  (id) => [{ id, kind: "mismatched", columns: ["scale"], sql: `UPDATE ledger SET scale = scale + 0.00 WHERE id = ${id}` }],
  (id) => [{ id, kind: "mismatched", columns: ["rate"], sql: `UPDATE ledger SET rate = '-0' WHERE id = ${id}` }],
  (id) => [{ id, kind: "mismatched", columns: ["currency"], sql: `UPDATE ledger SET currency = 'USD' WHERE id = ${id}` }],
  (id) => [
    { id, kind: "mismatched", columns: ["amount"], sql: `UPDATE ledger AS l SET amount = o.amount FROM ledger AS o WHERE (l.id, o.id) IN ((${id}, ${id + 1}), (${id + 1}, ${id}))` },
    { id: id + 1, kind: "mismatched", columns: ["amount"], sql: "" },
  ],
];

test(`${COMPARISONS} planted differences are all found and named, seed ${SEED}`, { timeout: 1_800_000 }, async (context) => {
  const { mirror, end } = await busy(context);
  await using _ = mirror;
  const random = randomFrom(SEED);
  await mirror.target.query(`CREATE TABLE kept AS SELECT * FROM ledger WHERE id >= ${STILL}`);
  for (let planted = 0; planted < COMPARISONS;) {
    const ids = new Set(Array.from({ length: 5 }, () => STILL + 1 + 2 * random(2_400)));
    const plants = [...ids].flatMap((id) => CORRUPTIONS[random(CORRUPTIONS.length)]!(id));
    for (const { sql } of plants) if (sql !== "") await mirror.target.query(sql);
    const { classes } = await mirror.daemon.control.proof.compare("ledger", true);
    const found = classes[0]!.rows.map(({ keyHash: hash, kind, columns }) => JSON.stringify([hash, kind, columns])).toSorted();
    expect(found, `seed ${SEED}, ${classes[0]!.note}`).toEqual(plants.map(({ id, kind, columns }) => JSON.stringify([keyHash([String(id)]), kind, columns])).toSorted());
    planted += plants.length;
    await mirror.target.query(`BEGIN; DELETE FROM ledger WHERE id >= ${STILL}; INSERT INTO ledger SELECT * FROM kept; COMMIT`);
  }
  const written = await end();
  console.log(`seed ${SEED}: at least ${COMPARISONS} planted differences found and named beside ${WRITERS} writers (${written} transactions)`);
});
