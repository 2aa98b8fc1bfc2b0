/** Both sides at one moment: what agrees is said to agree, and every planted difference is found and named. */
import { describe, expect, test, type TestContext } from "vitest";
import type { ClassComparison, ComparisonDocument } from "../../src/core/index.ts";
import { TestMirror } from "../support/mirror.ts";
import { waitFor } from "../support/daemon.ts";
import { orSkip, sharedPair } from "../support/servers.ts";

const INVOICES = `
  CREATE TABLE invoices (id bigint PRIMARY KEY, customer text NOT NULL, currency char(3), total numeric(14,2), issued_at timestamptz, due date, note text, flags jsonb, rate double precision)`;
const FILL = `
  INSERT INTO invoices SELECT g, 'c' || g % 50, (ARRAY['NZD','EUR','JPY',NULL])[1 + g % 4], g * 1.01, timestamptz '2026-11-01 10:00Z' + g * interval '7 min',
    date '2026-11-01' + g % 20, CASE WHEN g % 5 = 0 THEN NULL ELSE 'note ' || g END, jsonb_build_object('g', g), g / 7.0 FROM generate_series(1, 5000) AS g`;
const CLASSES = [{ name: "invoices", source: "public.invoices", kind: "money", money: [{ column: "total", currency: "currency" }], occurredAt: "issued_at", sensitive: ["customer"] }];

async function running(context: TestContext, schema: string, onSource: string, config: Readonly<Record<string, unknown>> = {}, options: Parameters<TestMirror["start"]>[1] = {}): Promise<TestMirror> {
  const pair = await orSkip(context, sharedPair());
  const mirror = await TestMirror.make(await pair.fresh("compare"), schema, onSource);
  await mirror.start({ timeZone: "Pacific/Auckland", comparison: { every: "31d" }, ...config }, options);
  await mirror.streaming();
  return mirror;
}

function only(document: ComparisonDocument): ClassComparison {
  expect(document.classes).toHaveLength(1);
  return document.classes[0]!;
}

describe("a comparison", () => {
  test("of equal sides: counts, money by currency, days, everything proven", async (context) => {
    await using mirror = await running(context, INVOICES, FILL, { classes: CLASSES });
    const result = only(await mirror.daemon.control.proof.compare(null, true));
    expect(result).toMatchObject({ verdict: "in_sync", sourceRows: "5000", targetRows: "5000", difference: "0", hashedRows: "5000" });
    expect(result.money.map(({ currency, iso, difference }) => [currency, iso, difference])).toEqual(expect.arrayContaining([["NZD", true, "0.00"], ["EUR", true, "0.00"], ["JPY", true, "0.00"], [null, false, "0.00"]]));
    expect(result.days.reduce((sum, day) => sum + Number(day.sourceRows), 0)).toBe(5000);
    expect(result.provenSince).not.toBeNull();
  });

  const CORRUPTIONS: readonly (readonly [string, string, string, Partial<ClassComparison["differences"]>, readonly string[]])[] = [
    ["a missing row", "DELETE FROM invoices WHERE id = 77", "missing", { missing: 1 }, []],
    ["an extra row", "INSERT INTO invoices SELECT 999999, customer, currency, total, issued_at, due, note, flags, rate FROM invoices WHERE id = 77", "extra", { extra: 1 }, []],
    ["one cent", "UPDATE invoices SET total = total + 0.01 WHERE id = 78", "mismatched", { mismatched: 1 }, ["total"]],
    ["two rows swapped", "UPDATE invoices AS i SET total = o.total FROM invoices AS o WHERE (i.id, o.id) IN ((10, 14), (14, 10))", "mismatched", { mismatched: 2 }, ["total"]],
    ["money moved between currencies", "UPDATE invoices SET currency = 'EUR' WHERE id = 4", "mismatched", { mismatched: 1 }, ["currency"]],
    ["a time zone shift", "UPDATE invoices SET issued_at = issued_at + interval '13 hours' WHERE id = 80", "mismatched", { mismatched: 1 }, ["issued_at"]],
    ["a microsecond", "UPDATE invoices SET issued_at = issued_at + interval '1 microsecond' WHERE id = 81", "mismatched", { mismatched: 1 }, ["issued_at"]],
    ["a trailing space", "UPDATE invoices SET note = note || ' ' WHERE id = 82", "mismatched", { mismatched: 1 }, ["note"]],
    ["NULL against empty", "UPDATE invoices SET note = '' WHERE id = 85", "mismatched", { mismatched: 1 }, ["note"]],
    ["case", "UPDATE invoices SET customer = upper(customer) WHERE id = 83", "mismatched", { mismatched: 1 }, ["customer"]],
    ["minus zero", "UPDATE invoices SET rate = '-0' WHERE id = 5000", "mismatched", { mismatched: 1 }, ["rate"]],
    ["a last digit of a float", "UPDATE invoices SET rate = rate + 1e-13 WHERE id = 3", "mismatched", { mismatched: 1 }, ["rate"]],
    ["a number in a document", "UPDATE invoices SET flags = jsonb_build_object('g', 1.0) WHERE id = 1", "mismatched", { mismatched: 1 }, ["flags"]],
  ];

  test("finds and names every planted difference, and only those", { timeout: 240_000 }, async (context) => {
    await using mirror = await running(context, INVOICES, `${FILL}; UPDATE invoices SET rate = 0 WHERE id = 5000`, { classes: CLASSES });
    const { proof } = mirror.daemon.control;
    for (const [what, plant, category, counts, columns] of CORRUPTIONS) {
      await mirror.target.query(`CREATE TEMP TABLE kept AS TABLE invoices; ${plant}`);
      const result = only(await proof.compare(null, true));
      expect(result, what).toMatchObject({ verdict: "confirmed_out_of_sync", differences: { missing: 0, extra: 0, mismatched: 0, healed: 0, complete: true, ...counts } });
      expect(result.rows.map((row) => row.category), what).toEqual(result.rows.map(() => category));
      expect([...new Set(result.rows.flatMap((row) => row.columns))], what).toEqual(columns);
      await mirror.target.query("TRUNCATE invoices; INSERT INTO invoices TABLE kept; DROP TABLE kept");
    }
    expect(only(await proof.compare(null, true)).verdict).toBe("in_sync");
    expect(await proof.breaks(true)).toHaveLength(3);
  });

  test("by day: a row on another date is seen in both days", async (context) => {
    await using mirror = await running(context, INVOICES, FILL, { classes: CLASSES });
    await mirror.target.query("UPDATE invoices SET issued_at = '2026-11-19 10:59:59Z' WHERE id = 5");
    const result = only(await mirror.daemon.control.proof.compare(null, false));
    const differing = result.days.filter((day) => day.sourceRows !== day.targetRows).map((day) => [day.day, Number(day.targetRows) - Number(day.sourceRows)]);
    expect(differing).toEqual([["2026-11-01", -1], ["2026-11-19", 1]]);
  });

  test("after a proof reads what was touched and a share, and finds what the mirror lost there", async (context) => {
    await using mirror = await running(context, INVOICES, FILL, { classes: CLASSES, comparison: { every: "1h", rescan: "24h" } });
    const { proof } = mirror.daemon.control;
    expect(Number(only(await proof.compare(null, true)).hashedRows)).toBe(5000);
    expect(Number(only(await proof.compare(null, false)).hashedRows)).toBeLessThan(400);
    await mirror.apply("UPDATE invoices SET note = 'touched' WHERE id BETWEEN 64 AND 95");
    await mirror.target.query("UPDATE invoices SET note = 'lost' WHERE id = 70");
    const result = only(await proof.compare(null, false));
    expect(result).toMatchObject({ verdict: "confirmed_out_of_sync", differences: { mismatched: 1 } });
    await mirror.target.query("UPDATE invoices SET note = 'touched' WHERE id = 70");
    const healed = only(await proof.compare(null, false));
    expect(healed.verdict).toBe("in_sync");
    expect(Number(healed.hashedRows)).toBeGreaterThanOrEqual(32);
  });

  test("marks outlive a restart", async (context) => {
    await using mirror = await running(context, INVOICES, FILL, { classes: CLASSES, comparison: { every: "1h", rescan: "24h" } });
    await mirror.daemon.control.proof.compare(null, true);
    await mirror.apply("UPDATE invoices SET note = 'touched' WHERE id = 3200");
    await mirror.stop();
    await mirror.target.query("UPDATE invoices SET note = 'lost' WHERE id = 3200");
    await mirror.start({ timeZone: "Pacific/Auckland", classes: CLASSES, comparison: { every: "1h", rescan: "24h" } });
    await mirror.streaming();
    const seen = await mirror.daemon.control.proof.compare(null, false);
    expect(only(seen)).toMatchObject({ verdict: "confirmed_out_of_sync", differences: { mismatched: 1 } });
  });

  test("text, uuid, composite and no keys; a filter, a map, a constant, a wider number, a generated sum", { timeout: 120_000 }, async (context) => {
    const schema = `
      CREATE TABLE texts (code text PRIMARY KEY, v integer);
      CREATE TABLE uuids (id uuid PRIMARY KEY, v numeric);
      CREATE TABLE pairs (tenant integer, no smallint, v text, PRIMARY KEY (tenant, no));
      CREATE TABLE bag (a integer, b text);
      CREATE TABLE lines (id integer PRIMARY KEY, amount numeric(10,2), qty integer, net numeric(12,2) GENERATED ALWAYS AS (amount * qty) STORED);
      CREATE TABLE orders (id integer PRIMARY KEY, state text, gone boolean)`;
    const fill = `
      INSERT INTO texts SELECT 'key ' || g || CASE WHEN g % 3 = 0 THEN 'É' ELSE '' END, g FROM generate_series(1, 500) AS g;
      INSERT INTO uuids SELECT gen_random_uuid(), CASE g % 4 WHEN 0 THEN 'NaN'::numeric WHEN 1 THEN 'Infinity' WHEN 2 THEN NULL ELSE g + 0.10 END FROM generate_series(1, 500) AS g;
      INSERT INTO pairs SELECT g / 10, g % 10, 'v' || g FROM generate_series(1, 500) AS g;
      ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag SELECT g % 5, NULL FROM generate_series(1, 100) AS g;
      ALTER TABLE orders REPLICA IDENTITY FULL; INSERT INTO lines SELECT g, g, 2 FROM generate_series(1, 100) AS g;
      INSERT INTO orders SELECT g, CASE g % 2 WHEN 0 THEN 'o' ELSE 'p' END, g % 10 = 0 FROM generate_series(1, 200) AS g`;
    const classes = [
      { source: "public.texts" }, { source: "public.uuids", kind: "money", money: [{ column: "v", currency: "'NZD'" }] }, { source: "public.pairs" }, { source: "public.bag" },
      { source: "public.lines", kind: "money", money: [{ column: "net", currency: "'EUR'" }] },
      { source: "public.orders", where: "gone = false", columns: { state: { map: { o: "open", p: "paid" } } } },
    ];
    await using mirror = await running(context, schema, fill, { classes });
    const { proof } = mirror.daemon.control;
    const before = await proof.compare(null, true);
    expect(before.classes.map(({ class: name, verdict, sourceRows }) => [name, verdict, sourceRows])).toEqual(
      [["texts", "in_sync", "500"], ["uuids", "in_sync", "500"], ["pairs", "in_sync", "500"], ["bag", "in_sync", "100"], ["lines", "in_sync", "100"], ["orders", "in_sync", "180"]]);
    expect(before.classes[1]!.money[0]!.sourceSpecial).toEqual({ nulls: "125", nan: "125", infinite: "125", negativeInfinite: "0" });
    expect(before.classes[4]!.money[0]!.source).toBe("10100.00");
    await mirror.apply("UPDATE texts SET v = -1 WHERE code = 'key 9É'", "UPDATE uuids SET v = 7", "UPDATE pairs SET no = no + 10 WHERE tenant = 3", "DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag LIMIT 3)", "UPDATE orders SET gone = true WHERE id < 20");
    const after = await proof.compare(null, false);
    expect(after.classes.map(({ verdict }) => verdict)).toEqual(["in_sync", "in_sync", "in_sync", "in_sync", "in_sync", "in_sync"]);
    await mirror.target.query("INSERT INTO bag SELECT a, b FROM bag LIMIT 2; UPDATE lines SET qty = 3 WHERE id = 9; UPDATE orders SET state = 'lost' WHERE id = 21; DELETE FROM texts WHERE code = 'key 10'; UPDATE uuids SET v = 7.0 WHERE id = (SELECT min(id::text)::uuid FROM uuids); UPDATE pairs SET v = NULL WHERE tenant = 3 AND no = 11");
    const found = await proof.compare(null, true);
    expect(found.classes.map(({ class: name, differences: { missing, extra, mismatched }, rows }) => [name, missing, extra, mismatched, rows[0]?.category])).toEqual(
      [["texts", 1, 0, 0, "missing"], ["uuids", 0, 0, 1, "rounding"], ["pairs", 0, 0, 1, "mismatched"], ["bag", 0, 2, 0, "duplicate"], ["lines", 0, 0, 1, "mismatched"], ["orders", 0, 0, 1, "mapping"]]);
  });

  test("shows rows with masked values, mends them and settles their breaks", async (context) => {
    await using mirror = await running(context, `${INVOICES}; CREATE TABLE bag (a integer)`, `${FILL}; ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag SELECT g % 3 FROM generate_series(1, 30) AS g`, { classes: [...CLASSES, { source: "public.bag" }] });
    const { proof } = mirror.daemon.control;
    await mirror.target.query("UPDATE invoices SET total = total + 1, customer = 'secret name' WHERE id = 7; DELETE FROM invoices WHERE id = 8; INSERT INTO invoices (id, customer, note) VALUES (-5, 'x', 'extra'); INSERT INTO bag VALUES (1), (1), (99)");
    const diff = await proof.diff("invoices", 10);
    expect(diff).toMatchObject({ total: 3, complete: true });
    const changed = diff.rows.find(({ kind }) => kind === "mismatched")!;
    expect(changed).toMatchObject({ key: { id: "7" }, columns: [{ name: "customer" }, { name: "total", source: "7.07", target: "8.07" }] });
    expect(JSON.stringify(diff)).not.toMatch(/secret name|"c7"/);
    await proof.compare(null, true);
    expect(await proof.breaks(true)).toHaveLength(5);
    const planned = await proof.repair("invoices", false, "ann");
    expect(planned).toMatchObject({ applied: false, rows: 3 });
    expect(planned.statements.join("\n")).not.toMatch(/secret name|'c7'/);
    expect(planned.statements.map((statement) => statement.split(" ")[0])).toEqual(["DELETE", "UPDATE", "INSERT"]);
    expect(await proof.repair("invoices", true, "ann")).toMatchObject({ applied: true, rows: 3, comparison: { verdict: "in_sync" } });
    expect(await proof.repair("bag", true, "ann")).toMatchObject({ applied: true, rows: 3, comparison: { verdict: "in_sync" } });
    expect(await proof.breaks(true)).toEqual([]);
    expect(await mirror.differences("invoices", "bag")).toEqual([]);
    expect((await mirror.daemon.control.audit()).map(({ what }) => what)).toEqual(expect.arrayContaining(["repair of class invoices: 3 rows"]));
  });

  test("proves itself", async (context) => {
    await using mirror = await running(context, INVOICES, FILL, { classes: CLASSES });
    const result = await mirror.daemon.control.proof.selfTest();
    expect(result.errors.filter(({ found }) => !found)).toEqual([]);
    expect(result).toMatchObject({ passed: true, equalBefore: true });
  });

  test("goes on after a lost connection: what was looked at stays, the rest is looked at again", { timeout: 60_000 }, async (context) => {
    await using mirror = await running(context, `${INVOICES}; CREATE TABLE big (id integer PRIMARY KEY, v text)`, `${FILL}; INSERT INTO big SELECT g, repeat('x', 300) FROM generate_series(1, 150000) AS g`, { classes: [...CLASSES, { source: "public.big" }] });
    const comparing = mirror.daemon.control.proof.compare(null, true);
    const reading = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'dualrun% compare' AND state = 'active' AND query LIKE '%\"big\"%' AND datname = current_database() AND pid <> pg_backend_pid()";
    await waitFor(async () => (await mirror.target.query(`SELECT pg_terminate_backend(pid) FROM (${reading}) AS r`)).rowCount! > 0, "a reader of the second class", 20_000);
    const document = await comparing;
    expect(document.classes.map(({ class: name, verdict, note }) => [name, verdict, note])).toEqual([["invoices", "in_sync", null], ["big", "in_sync", expect.stringContaining("a connection was lost")]]);
  });

  test("a statement that takes too long is named, and not tried again", async (context) => {
    await using mirror = await running(context, INVOICES, `${FILL}; INSERT INTO invoices SELECT g, 'c' || g FROM generate_series(6000, 400000) AS g`, { classes: CLASSES }, { tune: (config) => ({ ...config, comparison: { ...config.comparison, statementTimeout: 20 } }) });
    expect(only(await mirror.daemon.control.proof.compare(null, true))).toMatchObject({ verdict: "not_comparable", note: expect.stringContaining("comparison.statementTimeout (20 ms)") });
  });

  test("a writer that does not end is not waited for: the cut needs no slot", async (context) => {
    await using mirror = await running(context, INVOICES, FILL, { classes: CLASSES, comparison: { every: "31d", holdTimeout: "300ms" } });
    const { proof } = mirror.daemon.control;
    await mirror.source.query("BEGIN; UPDATE invoices SET note = 'open' WHERE id = 1");
    const beside = await proof.compare(null, false);
    expect(beside.cutBy).toBe("slot-free");
    expect(beside.holdMs).toBeLessThan(300);
    expect(only(beside)).toMatchObject({ verdict: "in_sync", sourceRows: "5000", targetRows: "5000", note: null, leftOut: 0 });
    await mirror.target.query("UPDATE invoices SET total = total + 0.01 WHERE id = 1");
    expect(only(await proof.compare(null, true))).toMatchObject({ verdict: "confirmed_out_of_sync", rows: [{ columns: ["total"] }] });
    await mirror.target.query("UPDATE invoices SET total = total - 0.01 WHERE id = 1");
    await mirror.source.query("COMMIT");
    const after = await proof.compare(null, true);
    expect([after.cutBy, only(after).verdict]).toEqual(["slot", "in_sync"]);
  });

  test("a writer that began before the mirror was connected may have been mirrored already: nothing is compared", async (context) => {
    await using mirror = await running(context, INVOICES, FILL, { classes: CLASSES, comparison: { every: "31d", holdTimeout: "300ms" } });
    await mirror.source.query("BEGIN; UPDATE invoices SET note = 'open' WHERE id = 1");
    await mirror.stop();
    await mirror.start({ timeZone: "Pacific/Auckland", classes: CLASSES, comparison: { every: "31d", holdTimeout: "300ms" } });
    await mirror.streaming();
    const blocked = await mirror.daemon.control.proof.compare(null, false);
    expect(only(blocked)).toMatchObject({ verdict: "not_comparable", note: expect.stringContaining("before the mirror was connected") });
    expect(blocked.holdMs).toBeGreaterThan(0);
    await mirror.source.query("COMMIT");
    expect(only(await mirror.daemon.control.proof.compare(null, true)).verdict).toBe("in_sync");
  });

  test("rows that the applier met and that were not what the log says are breaks", async (context) => {
    await using mirror = await running(context, INVOICES, FILL, { classes: CLASSES });
    await mirror.target.query("DELETE FROM invoices WHERE id = 5");
    await mirror.apply("UPDATE invoices SET note = 'again' WHERE id = 5");
    await mirror.until(() => mirror.daemon.control.proof.state().openBreaks.length > 0, "a break");
    expect(await mirror.daemon.control.proof.breaks(true)).toMatchObject([{ class: "invoices", category: "missing", rows: 1, comparison: null }]);
    expect(only(await mirror.daemon.control.proof.compare(null, true)).verdict).toBe("in_sync");
    expect((await mirror.daemon.control.proof.breaks(true))[0]!.cleanSince).not.toBeNull();
  });

  test("a source that would refuse its own updates is refused before anything is touched", async (context) => {
    const pair = await orSkip(context, sharedPair());
    await using mirror = await TestMirror.make(await pair.fresh("compare"), "CREATE TABLE g (id integer PRIMARY KEY, a integer, b integer GENERATED ALWAYS AS (a * 2) STORED)", "ALTER TABLE g REPLICA IDENTITY FULL");
    if (pair.source.major < 18) context.skip("servers before 18 take such updates");
    await expect(mirror.start()).rejects.toMatchObject({ code: "DR3001", details: [expect.stringContaining("generated-identity")] });
    await mirror.source.query("INSERT INTO g VALUES (1, 1); UPDATE g SET a = 2");
  });
});
