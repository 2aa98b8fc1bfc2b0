/** MySQL and MariaDB mirrored to PostgreSQL. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { CrossMirror } from "../support/cross.ts";

const FLAVOURS = ["mariadb-10.11", "mysql-9.7"] as const;

const INVOICES = {
  source: "CREATE TABLE invoices (id bigint PRIMARY KEY, customer varchar(50) NOT NULL, total decimal(14,2), paid boolean, at timestamp(6) NULL, note text)",
  target: "CREATE TABLE invoices (id bigint PRIMARY KEY, customer varchar(50) NOT NULL, total numeric(14,2), paid boolean, at timestamptz, note text)",
  fill: "INSERT INTO invoices SELECT seq, CONCAT('c', seq MOD 50), seq * 1.01, seq MOD 2, '2026-11-01 10:00:00.123456' + INTERVAL seq MINUTE, IF(seq MOD 5 = 0, NULL, CONCAT('tab\\there \\\\ ', seq, '\\n')) FROM (WITH RECURSIVE s AS (SELECT 1 AS seq UNION ALL SELECT seq + 1 FROM s WHERE seq < 900) SELECT seq FROM s) AS t",
};
const ROWS = "SELECT id::text, customer, total::text, paid::int, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') AS at, note FROM invoices ORDER BY id";

async function equal(mirror: CrossMirror): Promise<number> {
  const there = (await mirror.target.query<Record<string, unknown>>(ROWS)).rows;
  const here = await mirror.source.query<Record<string, unknown>[]>("SELECT CAST(id AS CHAR) AS id, customer, CAST(total AS CHAR) AS total, paid, CAST(at AS CHAR) AS at, note FROM invoices ORDER BY id");
  expect(there).toEqual([...here]);
  return there.length;
}

describe.each(FLAVOURS)("%s", (flavour) => {
  test("copies what is there, and mirrors what comes", { timeout: 60_000 }, async (context) => {
    await using mirror = await CrossMirror.make(context, { flavour }, `${INVOICES.source};\n${INVOICES.fill};\n`, INVOICES.target);
    await mirror.start({ classes: mirror.tables("invoices"), snapshot: { chunkRows: 1000 } });
    await mirror.streaming();
    expect(await equal(mirror)).toBe(900);
    await mirror.apply(
      "INSERT INTO invoices VALUES (1001, 'Zoë 漢字 😀', 12.30, 1, '2026-11-21 09:08:07.654321', 'a\\\\b\\tc')", "UPDATE invoices SET total = total + 0.01, note = NULL WHERE id < 100", "DELETE FROM invoices WHERE id BETWEEN 200 AND 300",
      "UPDATE invoices SET id = id + 5000 WHERE id BETWEEN 400 AND 410", "START TRANSACTION", "INSERT INTO invoices VALUES (2001, 'x', 1, 0, NULL, '')", "SAVEPOINT s", "DELETE FROM invoices WHERE id < 50", "ROLLBACK TO s", "COMMIT",
      "START TRANSACTION", "DELETE FROM invoices", "ROLLBACK");
    expect(await equal(mirror)).toBe(801);
    await mirror.stop();
    await mirror.source.query("UPDATE invoices SET customer = 'while away' WHERE id < 20");
    await mirror.start({ classes: mirror.tables("invoices") });
    await mirror.streaming();
    await mirror.apply("INSERT INTO invoices (id, customer) VALUES (3001, 'again')");
    expect(await equal(mirror)).toBe(802);
    await mirror.apply("TRUNCATE TABLE invoices", "INSERT INTO invoices (id, customer) VALUES (1, 'after')");
    expect(await equal(mirror)).toBe(1);
  });

  test.for([
    ["a schema change", "ALTER TABLE invoices ADD COLUMN more int", "DR5001"],
    ["a change of name", "RENAME TABLE invoices TO older", "DR5001"],
  ] as const)("%s halts exactly there", { timeout: 60_000 }, async ([, statement, code], context) => {
    await using mirror = await CrossMirror.make(context, { flavour }, `${INVOICES.source};\n${INVOICES.fill};\n`, INVOICES.target);
    await mirror.start({ classes: mirror.tables("invoices") });
    await mirror.streaming();
    await mirror.source.query("INSERT INTO invoices (id, customer) VALUES (1001, 'before')");
    await mirror.source.query(statement);
    const { halt } = await mirror.until(({ state }) => state === "halted", "halted");
    expect(halt?.code).toBe(code);
    expect((await mirror.target.query("SELECT count(*)::int AS n FROM invoices")).rows).toEqual([{ n: 901 }]);
  });

  test("a journal between them: paused, written on, and everything arrives once", { timeout: 60_000 }, async (context) => {
    const directory = await mkdtemp(join(tmpdir(), "dualrun-cross-"));
    try {
      await using mirror = await CrossMirror.make(context, { flavour }, `${INVOICES.source};\n${INVOICES.fill};\n`, INVOICES.target);
      await mirror.start({ classes: mirror.tables("invoices"), journal: { kind: "sqlite", path: join(directory, "journal.db") } });
      await mirror.streaming();
      await mirror.daemon.control.pause("ann");
      await mirror.until(({ state }) => state === "paused", "paused");
      await mirror.source.query("UPDATE invoices SET total = total + 1 WHERE id < 500");
      await mirror.source.query("DELETE FROM invoices WHERE id > 890");
      await mirror.until(({ journal }) => journal !== null && journal.oldestCommitAt !== null, "what is journalled");
      await mirror.daemon.control.resume("ann");
      await mirror.apply("UPDATE invoices SET note = 'last' WHERE id = 3");
      expect(await equal(mirror)).toBe(890);
      expect((await mirror.daemon.control.proof.compare(null, true)).classes).toMatchObject([{ verdict: "in_sync", note: null }]);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });

  test("both sides are compared at one moment: what agrees is in sync, every planted difference is found", { timeout: 120_000 }, async (context) => {
    await using mirror = await CrossMirror.make(context, { flavour }, `${INVOICES.source};\n${INVOICES.fill};\n`, INVOICES.target);
    await mirror.start({ classes: mirror.tables("invoices").map((cls) => ({ ...cls, kind: "money", money: [{ column: "total", currency: "'NZD'" }], occurredAt: "at" })), comparison: { every: "31d" } });
    await mirror.streaming();
    const { proof } = mirror.daemon.control;
    const [clean] = (await proof.compare(null, true)).classes;
    expect(clean).toMatchObject({ verdict: "in_sync", note: null, sourceRows: "900", targetRows: "900", hashedRows: "900", money: [{ source: "409504.50", target: "409504.50" }] });
    for (const [plant, kind, columns] of [
      ["UPDATE invoices SET total = total + 0.01 WHERE id = 7", "mismatched", ["total"]], ["DELETE FROM invoices WHERE id = 8", "missing", []], ["INSERT INTO invoices VALUES (99999, 'x')", "extra", []],
      ["UPDATE invoices SET note = note || ' ' WHERE id = 9", "mismatched", ["note"]], ["UPDATE invoices SET note = '' WHERE id = 10", "mismatched", ["note"]], ["UPDATE invoices SET at = at + interval '1 microsecond' WHERE id = 11", "mismatched", ["at"]],
      ["UPDATE invoices SET customer = upper(customer) WHERE id = 12", "mismatched", ["customer"]], ["UPDATE invoices SET paid = NOT paid WHERE id = 13", "mismatched", ["paid"]],
    ] as const) {
      await mirror.target.query(`CREATE TEMP TABLE kept AS TABLE invoices; ${plant}`);
      const [found] = (await proof.compare(null, true)).classes;
      expect([plant, found!.verdict, found!.rows.map((row) => [row.kind, row.columns])]).toEqual([plant, "confirmed_out_of_sync", [[kind, columns]]]);
      await mirror.target.query("TRUNCATE invoices; INSERT INTO invoices TABLE kept; DROP TABLE kept");
    }
    await mirror.apply("UPDATE invoices SET note = 'touched' WHERE id BETWEEN 64 AND 95");
    const [hourly] = (await proof.compare(null, false)).classes;
    expect(hourly).toMatchObject({ verdict: "in_sync" });
  });
});
