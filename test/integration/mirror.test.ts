/** What a source can do, and what the target then holds. */
import pg from "pg";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test, type TestContext } from "vitest";
import { engineOf } from "../../connectors/registry.ts";
import { waitFor } from "../support/daemon.ts";
import { TestMirror } from "../support/mirror.ts";
import type { SchemaTrigger } from "../../src/core/index.ts";
import { orSkip, sharedPair } from "../support/servers.ts";

async function mirrorOf(context: TestContext, schema: string, onSource = ""): Promise<TestMirror> {
  const pair = await orSkip(context, sharedPair());
  return TestMirror.make(await pair.fresh("mirror"), schema, onSource);
}

async function running(context: TestContext, schema: string, onSource = "", config: Readonly<Record<string, unknown>> = {}): Promise<TestMirror> {
  const mirror = await mirrorOf(context, schema, onSource);
  await mirror.start(config);
  await mirror.streaming();
  return mirror;
}

const BIG = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 500) AS i)";

describe("rows", () => {
  test("unchanged TOAST stays, alone, in a batch and with a moved key", async (context) => {
    await using mirror = await running(context, "CREATE TABLE docs (id integer PRIMARY KEY, v integer, body text NOT NULL)", `INSERT INTO docs SELECT g, 0, ${BIG} || g FROM generate_series(1, 20) AS g`);
    const status = await mirror.apply(
      "UPDATE docs SET v = 1 WHERE id = 1",
      `BEGIN; INSERT INTO docs VALUES (21, 0, ${BIG}); UPDATE docs SET v = 1 WHERE id = 21; UPDATE docs SET v = 2 WHERE id IN (2, 3); UPDATE docs SET body = 'short' WHERE id = 3; COMMIT`,
      "UPDATE docs SET id = 104 WHERE id = 4",
      "BEGIN; UPDATE docs SET v = 5 WHERE id = 5; UPDATE docs SET id = 105 WHERE id = 5; UPDATE docs SET v = 6 WHERE id = 105; COMMIT",
      "BEGIN; UPDATE docs SET id = -1 WHERE id = 6; UPDATE docs SET id = 6 WHERE id = 7; UPDATE docs SET id = 7 WHERE id = -1; COMMIT",
    );
    expect(await mirror.differences("docs")).toEqual([]);
    expect(status.classes[0]!.conflicts).toBe(0);
  });

  test("keys move, swap and come back", async (context) => {
    await using mirror = await running(context, "CREATE TABLE k (a text, b integer, v integer, PRIMARY KEY (a, b)); CREATE TABLE n (id numeric PRIMARY KEY, v integer)",
      "INSERT INTO k SELECT 'k' || g, g, g FROM generate_series(1, 50) AS g; INSERT INTO n SELECT g, g FROM generate_series(1, 10) AS g");
    await mirror.apply(
      "BEGIN; UPDATE k SET a = 'tmp' WHERE b = 1; UPDATE k SET a = 'k1', b = 1 WHERE b = 2; UPDATE k SET a = 'k2', b = 2 WHERE a = 'tmp'; COMMIT",
      "BEGIN; DELETE FROM k WHERE b = 3; INSERT INTO k VALUES ('k3', 3, 33); UPDATE k SET v = 333 WHERE b = 3; COMMIT",
      "BEGIN; INSERT INTO k VALUES ('new', 99, 1); DELETE FROM k WHERE a = 'new'; COMMIT",
      "UPDATE n SET id = id + 0.00 WHERE id < 4; UPDATE n SET v = 0 WHERE id = 2", "DELETE FROM n WHERE id = 1; INSERT INTO n VALUES (1.0, 11)",
    );
    expect(await mirror.differences("k", "n")).toEqual([]);
  });

  test("of equal rows exactly one is hit", async (context) => {
    await using mirror = await running(context, "CREATE TABLE h (a integer, j json, t text)", "ALTER TABLE h REPLICA IDENTITY FULL; INSERT INTO h SELECT g % 3, '{\"x\": 1}', NULL FROM generate_series(1, 30) AS g");
    await mirror.apply(
      "DELETE FROM h WHERE ctid IN (SELECT ctid FROM h WHERE a = 1 LIMIT 4)", "UPDATE h SET t = '' WHERE ctid IN (SELECT ctid FROM h WHERE a = 2 LIMIT 3)",
      "BEGIN; INSERT INTO h VALUES (1, '{}', 'x'), (1, '{}', 'x'); DELETE FROM h WHERE ctid IN (SELECT ctid FROM h WHERE t = 'x' LIMIT 1); COMMIT",
    );
    expect(await mirror.differences("h")).toEqual([]);
  });

  test("replica identities: index, full with a key, a deferrable key", async (context) => {
    await using mirror = await running(context, `
      CREATE TABLE i (id integer, code text NOT NULL, v text); CREATE UNIQUE INDEX i_code ON i (code);
      CREATE TABLE f (id integer PRIMARY KEY, v text);
      CREATE TABLE d (id integer PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text)`,
    `ALTER TABLE i REPLICA IDENTITY USING INDEX i_code; ALTER TABLE f REPLICA IDENTITY FULL; ALTER TABLE d REPLICA IDENTITY FULL;
     INSERT INTO i SELECT g, 'c' || g, 'v' FROM generate_series(1, 9) AS g; INSERT INTO f SELECT g, ${BIG} FROM generate_series(1, 9) AS g; INSERT INTO d SELECT g, 'v' || g FROM generate_series(1, 9) AS g`);
    await mirror.apply("UPDATE i SET code = 'x' || code WHERE id < 4; DELETE FROM i WHERE id = 5; UPDATE i SET v = NULL WHERE id = 6",
      "UPDATE f SET id = id + 100 WHERE id < 3; DELETE FROM f WHERE id = 4; UPDATE f SET v = 'short' WHERE id = 5",
      "UPDATE d SET id = 3 - id WHERE id IN (1, 2)", "UPDATE d SET id = 10 - id");
    expect(await mirror.differences("i", "f", "d")).toEqual([]);
  });

  test("statements of a wide table keep their names apart", async (context) => {
    const columns = Array.from({ length: 40 }, (_, i) => `c${i} integer DEFAULT ${i}`).join(", ");
    await using mirror = await running(context, `CREATE TABLE w (id integer PRIMARY KEY, code text UNIQUE, ${columns}, x text, y text)`, `INSERT INTO w (id, code, x, y) SELECT g, 'c' || g, ${BIG}, ${BIG} FROM generate_series(1, 5) AS g; ALTER TABLE w ALTER x SET STORAGE EXTERNAL, ALTER y SET STORAGE EXTERNAL`);
    await mirror.apply("BEGIN; UPDATE w SET code = 'tmp', x = 'short' WHERE id = 1; UPDATE w SET code = 'c1', y = 'short' WHERE id = 2; UPDATE w SET code = 'c2' WHERE id = 1; COMMIT");
    expect(await mirror.differences("w")).toEqual([]);
  });

  test("values of a second unique key change hands", async (context) => {
    await using mirror = await running(context, "CREATE TABLE u (id integer PRIMARY KEY, email text UNIQUE, r int4range, EXCLUDE USING gist (r WITH &&))",
      "INSERT INTO u SELECT g, 'm' || g, int4range(g * 10, g * 10 + 5) FROM generate_series(1, 20) AS g");
    const status = await mirror.apply(
      "BEGIN; UPDATE u SET email = 'tmp' WHERE id = 1; UPDATE u SET email = 'm1' WHERE id = 2; UPDATE u SET email = 'm2' WHERE id = 1; COMMIT",
      "BEGIN; UPDATE u SET r = NULL WHERE id = 3; UPDATE u SET r = int4range(30, 35) WHERE id = 4; UPDATE u SET r = int4range(40, 45) WHERE id = 3; COMMIT",
      "BEGIN; DELETE FROM u WHERE id = 5; INSERT INTO u VALUES (105, 'm5', int4range(50, 55)); COMMIT",
    );
    expect(await mirror.differences("u")).toEqual([]);
    expect(status.classes[0]!.conflicts).toBe(0);
  });

  test("partitions, generated columns and identities", async (context) => {
    await using mirror = await running(context, `
      CREATE TABLE p (id integer, region text, v integer, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
      CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); CREATE TABLE p_b PARTITION OF p FOR VALUES IN ('b');
      CREATE TABLE g (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, x integer, twice integer GENERATED ALWAYS AS (x * 2) STORED)`,
    "INSERT INTO p SELECT g, CASE WHEN g % 2 = 0 THEN 'a' ELSE 'b' END, 0 FROM generate_series(1, 20) AS g; INSERT INTO g (x) SELECT g FROM generate_series(1, 5) AS g");
    await mirror.apply("UPDATE p SET region = 'b' WHERE id = 2; UPDATE p SET v = 1; DELETE FROM p WHERE id = 3", "INSERT INTO g (x) VALUES (6); UPDATE g SET x = 7 WHERE id = 1; DELETE FROM g WHERE id = 2");
    expect(await mirror.differences("p", "g", "p_a", "p_b")).toEqual([]);
  });
});

describe("transactions", () => {
  test("TRUNCATE between inserts, of several tables, with foreign keys", async (context) => {
    await using mirror = await running(context, "CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE b (id integer PRIMARY KEY, a_id integer REFERENCES a)",
      "INSERT INTO a SELECT generate_series(1, 10); INSERT INTO b SELECT g, g FROM generate_series(1, 10) AS g");
    const status = await mirror.apply("BEGIN; INSERT INTO a VALUES (11); TRUNCATE a CASCADE; INSERT INTO a VALUES (1); INSERT INTO b VALUES (1, 1); COMMIT", "BEGIN; INSERT INTO b VALUES (2, 1); TRUNCATE b; COMMIT");
    expect(await mirror.differences("a", "b")).toEqual([]);
    expect(status.classes.reduce((sum, cls) => sum + cls.truncates, 0)).toBeGreaterThanOrEqual(3);
  });

  test("savepoints, rollbacks and two phases", async (context) => {
    await using mirror = await running(context, "CREATE TABLE t (id integer PRIMARY KEY, v text)");
    await mirror.apply(
      "BEGIN; INSERT INTO t VALUES (1, 'kept'); SAVEPOINT s; INSERT INTO t VALUES (2, 'gone'); UPDATE t SET v = 'gone' WHERE id = 1; ROLLBACK TO s; INSERT INTO t VALUES (3, 'kept'); COMMIT",
      "BEGIN; INSERT INTO t VALUES (4, 'gone'); ROLLBACK", "BEGIN; INSERT INTO t VALUES (5, 'prepared')", "PREPARE TRANSACTION 'one'", "COMMIT PREPARED 'one'",
      "BEGIN; INSERT INTO t VALUES (6, 'never')", "PREPARE TRANSACTION 'two'", "ROLLBACK PREPARED 'two'",
    );
    expect(await mirror.differences("t")).toEqual([]);
    expect((await mirror.target.query("SELECT id FROM t ORDER BY id")).rows.map((row) => row.id)).toEqual([1, 3, 5]);
  });

  test("one that is larger than the buffer, with changes of every kind", { timeout: 120_000 }, async (context) => {
    await using mirror = await running(context, "CREATE TABLE t (id integer PRIMARY KEY, v text)", "INSERT INTO t SELECT g, 'old' FROM generate_series(1, 1000) AS g", { apply: { maxBuffer: "1MiB", batchRows: 100 } });
    await mirror.apply("BEGIN; INSERT INTO t SELECT g, repeat('x', 40) FROM generate_series(1001, 200000) AS g; UPDATE t SET v = 'new' WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 0; UPDATE t SET id = -id WHERE id % 1000 = 1; COMMIT");
    expect(await mirror.differences("t")).toEqual([]);
  });

  test("one that is larger than the buffer, of which a piece is written in log order", { timeout: 120_000 }, async (context) => {
    await using mirror = await running(context, "CREATE TABLE u (id integer PRIMARY KEY, code text UNIQUE, v text)", "INSERT INTO u SELECT g, 'c' || g, 'x' FROM generate_series(1, 20000) AS g", { apply: { maxBuffer: "1MiB", batchRows: 100 } });
    const swap = (a: number, b: number): string => `UPDATE u SET code = 'tmp' WHERE id = ${a}; UPDATE u SET code = 'c${a}' WHERE id = ${b}; UPDATE u SET code = 'c${b}' WHERE id = ${a};`;
    const status = await mirror.apply(`BEGIN; UPDATE u SET v = repeat('a', 200); ${swap(1, 2)} UPDATE u SET v = repeat('b', 200); COMMIT`);
    expect(await mirror.differences("u")).toEqual([]);
    expect(status.classes[0]!.conflicts).toBe(0);
  });
});

describe("rules", () => {
  const CONFIG = {
    classes: [{
      name: "orders", source: "public.orders", target: "public.bills", where: "deleted_at is null and total > 1.50",
      columns: { state: { from: "status", map: { o: "open", p: "paid" } }, legacy: { drop: true }, country: { default: "NZ" } },
    }],
  };
  const SOURCE = "CREATE TABLE orders (id integer PRIMARY KEY, status text, total numeric, legacy text, deleted_at timestamptz); ALTER TABLE orders REPLICA IDENTITY FULL";
  const TARGET = "CREATE TABLE bills (country text NOT NULL, id integer PRIMARY KEY, state text, total numeric, deleted_at timestamptz)";
  const EXPECTED = "SELECT 'NZ' AS country, id, CASE status WHEN 'o' THEN 'open' WHEN 'p' THEN 'paid' END AS state, total::text FROM orders WHERE deleted_at IS NULL AND total > 1.50 ORDER BY id";

  async function ruled(context: TestContext): Promise<TestMirror> {
    const mirror = await mirrorOf(context, "SELECT 1");
    await mirror.source.query(`${SOURCE}; INSERT INTO orders SELECT g, CASE WHEN g % 2 = 0 THEN 'o' ELSE 'p' END, g * 0.5, 'x', CASE WHEN g % 5 = 0 THEN now() END FROM generate_series(1, 40) AS g`);
    await mirror.target.query(TARGET);
    await mirror.start(CONFIG);
    await mirror.streaming();
    return mirror;
  }

  const bills = async (mirror: TestMirror): Promise<unknown> => (await mirror.target.query("SELECT country, id, state, total::text FROM bills ORDER BY id")).rows;

  test("copy and stream render the same rows; rows enter and leave", async (context) => {
    await using mirror = await ruled(context);
    expect(await bills(mirror)).toEqual((await mirror.source.query(EXPECTED)).rows);
    await mirror.apply("UPDATE orders SET deleted_at = now() WHERE id = 7", "UPDATE orders SET deleted_at = NULL WHERE id = 10", "UPDATE orders SET total = 100, id = 400 WHERE id = 1",
      "UPDATE orders SET total = 'NaN' WHERE id = 8", "INSERT INTO orders VALUES (50, 'o', 9, NULL, NULL), (51, NULL, 9, NULL, NULL), (52, 'p', NULL, NULL, NULL)", "DELETE FROM orders WHERE id = 12", "UPDATE orders SET total = 1.5 WHERE id = 13");
    expect(await bills(mirror)).toEqual((await mirror.source.query(EXPECTED)).rows);
  });

  test("a row without a key that enters goes in, and takes no equal row with it", async (context) => {
    await using mirror = await mirrorOf(context, "SELECT 1");
    await mirror.source.query("CREATE TABLE h (a integer, active boolean); ALTER TABLE h REPLICA IDENTITY FULL; INSERT INTO h VALUES (1, true), (1, false), (2, true), (3, false)");
    await mirror.target.query("CREATE TABLE h (a integer)");
    await mirror.start({ classes: [{ name: "h", source: "public.h", where: "active = true", columns: { active: { drop: true } } }] });
    await mirror.streaming();
    const status = await mirror.apply("BEGIN; UPDATE h SET active = true WHERE NOT active; DELETE FROM h WHERE a = 2; COMMIT");
    expect((await mirror.target.query("SELECT a FROM h ORDER BY a")).rows.map((row) => row.a)).toEqual([1, 1, 3]);
    expect(status.classes[0]!.conflicts).toBe(0);
  });

  test("a value that is too long for the target is refused, never cut, however many may be", async (context) => {
    await using mirror = await mirrorOf(context, "SELECT 1");
    await mirror.source.query("CREATE TABLE m (id integer PRIMARY KEY, a text, c char(3), b bit(3)); INSERT INTO m VALUES (1, 'o', 'x', B'101'), (2, 'p', 'y', B'110')");
    await mirror.target.query("CREATE TABLE m (id integer PRIMARY KEY, a varchar(4), c char(3), b bit(3))");
    await mirror.start({ classes: [{ name: "m", source: "public.m", columns: { a: { map: { o: "open", p: "paid in full" } } } }], snapshot: { maxRefusedShare: 1 } });
    await mirror.streaming();
    expect((await mirror.target.query("SELECT id, a, c, b::text FROM m ORDER BY id")).rows).toEqual([{ id: 1, a: "open", c: "x  ", b: "101" }]);
  });

  test("a value that the map does not know halts", async (context) => {
    await using mirror = await ruled(context);
    await mirror.source.query("INSERT INTO orders VALUES (60, 'secret-state', 9, NULL, NULL)");
    const { halt } = await mirror.until(({ state }) => state === "halted", "a halt");
    expect(halt!.code).toBe("DR5006");
    expect(JSON.stringify(halt)).not.toContain("secret-state");
  });
});

describe("what does not agree", () => {
  const TABLE = "CREATE TABLE t (id integer PRIMARY KEY, v text, CHECK (v <> 'forbidden'))";
  const ROWS = "INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 20) AS g";

  async function disturbed(context: TestContext, config: Readonly<Record<string, unknown>>): Promise<TestMirror> {
    const mirror = await running(context, TABLE, ROWS, config);
    await mirror.target.query("DELETE FROM t WHERE id IN (1, 2); INSERT INTO t VALUES (100, 'foreign')");
    await mirror.source.query("BEGIN; UPDATE t SET v = 'changed' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (100, 'ours'); UPDATE t SET v = 'x' WHERE id = 3; COMMIT");
    return mirror;
  }

  test("the source wins, and each deviation is counted", async (context) => {
    await using mirror = await disturbed(context, {});
    const status = await mirror.apply();
    expect(await mirror.differences("t")).toEqual([]);
    expect(status.classes[0]!.conflicts).toBe(3);
    const { rows } = await mirror.target.query("SELECT kind FROM dualrun.conflicts ORDER BY kind");
    expect(rows.map((row) => row.kind)).toEqual(["delete-found-none", "insert-found-row", "update-found-none"]);
  });

  test("or it halts", async (context) => {
    await using mirror = await disturbed(context, { apply: { onConflict: "halt" } });
    const { halt } = await mirror.until(({ state }) => state === "halted", "a halt");
    expect(halt!.code).toBe("DR5003");
  });

  test("a row that the target refuses halts by name, and goes on after mending", async (context) => {
    await using mirror = await mirrorOf(context, "CREATE TABLE t (id integer PRIMARY KEY, v text)");
    await mirror.target.query("ALTER TABLE t ADD CONSTRAINT not_that CHECK (v <> 'forbidden')");
    await mirror.start();
    await mirror.streaming();
    await mirror.source.query("INSERT INTO t VALUES (1, 'fine'), (2, 'forbidden')");
    const { halt } = await mirror.until(({ state }) => state === "halted", "a halt");
    expect(halt!.code).toBe("DR5002");
    expect(halt!.what).toMatch(/key hash [0-9a-f]{16}.*23514.*not_that/);
    expect(JSON.stringify(halt)).not.toContain("forbidden");
    await mirror.target.query("ALTER TABLE t DROP CONSTRAINT not_that");
    await mirror.daemon.control.resume("test");
    await mirror.streaming();
    await mirror.apply();
    expect(await mirror.differences("t")).toEqual([]);
  });

  test("a schema change halts before the first transaction with it, and goes on after acceptance", async (context) => {
    await using mirror = await running(context, TABLE, ROWS);
    await mirror.source.query("UPDATE t SET v = 'before' WHERE id = 1");
    await mirror.source.query("ALTER TABLE t ADD COLUMN note text");
    await mirror.source.query("BEGIN; INSERT INTO t VALUES (200, 'after', 'n'); COMMIT");
    const { halt } = await mirror.until(({ state }) => state === "halted", "a halt");
    expect(halt!.code).toBe("DR5001");
    expect(halt!.details.join()).toContain('column "note" was added');
    expect((await mirror.target.query("SELECT v FROM t WHERE id IN (1, 200)")).rows).toEqual([{ v: "before" }]);
    await mirror.target.query("ALTER TABLE t ADD COLUMN note text");
    await mirror.daemon.control.acceptSchema("added note", "test");
    await mirror.streaming();
    await mirror.apply("UPDATE t SET note = 'later' WHERE id = 5");
    expect(await mirror.differences("t")).toEqual([]);
    expect((await mirror.daemon.control.audit()).map(({ what }) => what)).toContain("schema accepted");
  });

  test.for([
    ["full before images end", "CREATE TABLE f (id integer PRIMARY KEY, code integer NOT NULL UNIQUE, body text)", "ALTER TABLE f REPLICA IDENTITY FULL;",
      "ALTER TABLE f REPLICA IDENTITY DEFAULT; UPDATE f SET id = 100 WHERE id = 2"],
    ["the primary key moves to another column", "CREATE TABLE f (id integer NOT NULL, code integer NOT NULL UNIQUE, body text, CONSTRAINT f_pkey PRIMARY KEY (id))", "",
      "ALTER TABLE f DROP CONSTRAINT f_pkey, ADD PRIMARY KEY (code); DELETE FROM f WHERE id = 2"],
  ] as const)("%s: halts before the first row that is named otherwise", async ([, table, identity, change], context) => {
    await using mirror = await running(context, table, `${identity} INSERT INTO f SELECT g, g * 10, ${BIG} FROM generate_series(1, 9) AS g`);
    await mirror.apply("UPDATE f SET body = 'short' WHERE id = 1");
    await mirror.source.query(change);
    const { halt } = await mirror.until(({ state }) => state === "halted", "a halt");
    expect(halt!.code).toBe("DR5001");
    expect(halt!.details.join()).toMatch(/no longer holds: (replica identity f|log key id)/);
    expect((await mirror.target.query("SELECT id, length(body) > 1000 AS whole FROM f WHERE id IN (2, 100)")).rows).toEqual([{ id: 2, whole: true }]);
    await mirror.daemon.control.acceptSchema("identity", "test");
    await mirror.streaming();
    await mirror.apply("UPDATE f SET body = 'x' WHERE id = 3");
    expect(await mirror.differences("f")).toEqual([]);
  });

  test("rows from before a change of the columns are read by the columns that they had", async (context) => {
    await using mirror = await running(context, "CREATE TABLE t (id integer PRIMARY KEY, a text, b text)");
    await mirror.stop();
    await mirror.source.query("INSERT INTO t VALUES (1, 'is a', 'is b')");
    await mirror.source.query("ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD COLUMN a text");
    await mirror.source.query("INSERT INTO t (id) VALUES (2)");
    await mirror.start();
    const { halt } = await mirror.until(({ state }) => state === "halted", "a halt");
    expect(halt!.code).toBe("DR5001");
    expect((await mirror.target.query("SELECT id, a, b FROM t")).rows).toEqual([{ id: 1, a: "is a", b: "is b" }]);
  });

  test("what was written under another name of a table counts", async (context) => {
    await using mirror = await running(context, TABLE, ROWS);
    await mirror.stop();
    await mirror.source.query("ALTER TABLE t RENAME TO renamed; INSERT INTO renamed VALUES (100, 'new'); ALTER TABLE renamed RENAME TO t");
    await mirror.start();
    await mirror.streaming();
    await mirror.apply();
    expect(await mirror.differences("t")).toEqual([]);
  });

  test.for([
    ["made before", ["CREATE TABLE p2 (id integer)", "INSERT INTO p2 VALUES (NULL, 150)", "ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200)"]],
    ["made in the same transaction", ["BEGIN", "CREATE TABLE p2 (id integer)", "INSERT INTO p2 VALUES (NULL, 150)", "ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200)", "COMMIT"]],
  ] as const)("a partition that is attached with rows is a difference, %s; one that is made empty is none", async ([, statements], context) => {
    const pair = await (await orSkip(context, sharedPair())).fresh("attach");
    await using mirror = await TestMirror.make(pair, "CREATE TABLE p (id integer, v text) PARTITION BY RANGE (id); CREATE TABLE p_rest PARTITION OF p DEFAULT");
    await using source = await engineOf("postgres", "source").connectSource({ url: pair.source, tls: { mode: "disable" } }, "attach", null);
    const table = { schema: "public", name: "p" };
    const agreed = (await source.layouts([table])).get("public.p")!;
    const differences = async (): Promise<string[]> => source.layoutDifferences(agreed, (await source.layouts([table])).get("public.p")!);
    await mirror.source.query("BEGIN; INSERT INTO p VALUES (1); CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (200) TO (300); INSERT INTO p VALUES (250); COMMIT");
    await mirror.source.query("CREATE TABLE p4 PARTITION OF p FOR VALUES FROM (300) TO (400) PARTITION BY RANGE (id); CREATE TABLE p41 PARTITION OF p4 DEFAULT; ALTER TABLE p3 RENAME TO p3_renamed");
    expect(await differences()).toEqual([]);
    for (const statement of statements) await mirror.source.query(statement.replace("id integer", "v text, id integer"));
    expect(await differences()).toEqual(["no longer holds: attached with rows of their own, perhaps: none"]);
  });

  test("a class is copied again under the running mirror", async (context) => {
    await using mirror = await running(context, TABLE, ROWS);
    await mirror.target.query("UPDATE t SET v = 'damaged' WHERE id < 10");
    await mirror.daemon.control.resnapshot("t", "test");
    await mirror.source.query("UPDATE t SET v = 'meanwhile' WHERE id > 15");
    await mirror.streaming();
    await mirror.apply("DELETE FROM t WHERE id = 1");
    expect(await mirror.differences("t")).toEqual([]);
  });

  test("a copy that is asked for and fails passes for nothing: neither for the class nor for the mirror", async (context) => {
    await using mirror = await mirrorOf(context, "CREATE TABLE t (id integer PRIMARY KEY); CREATE TABLE u (id integer PRIMARY KEY)", "INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)");
    await mirror.start({ exclude: ["public.u"] });
    await mirror.streaming();
    await mirror.stop();
    await mirror.start();
    await mirror.streaming();
    await mirror.target.query("ALTER TABLE dualrun.chunks ADD CONSTRAINT no_u CHECK (class <> 'u')");
    await expect(mirror.daemon.control.resnapshot("u", "test")).rejects.toThrow("no_u");
    await mirror.streaming();
    await mirror.target.query("ALTER TABLE dualrun.chunks DROP CONSTRAINT no_u");
    await mirror.stop();
    await mirror.start();
    await mirror.streaming();
    expect((await mirror.apply("INSERT INTO u VALUES (2)")).newTables).toEqual(["public.u"]);
    await mirror.daemon.control.resnapshot("u", "test");
    await mirror.streaming();
    await mirror.apply();
    expect(await mirror.differences("t", "u")).toEqual([]);
  });

  test("target tables that hold rows are refused, unless they are to be emptied", async (context) => {
    await using mirror = await mirrorOf(context, TABLE, ROWS);
    await mirror.target.query("INSERT INTO t VALUES (999, 'left over')");
    await mirror.start();
    const { halt } = await mirror.until(({ state }) => state === "halted", "a halt");
    expect(halt!.code).toBe("DR3002");
    await mirror.stop();
    await mirror.start({}, { truncateTarget: true });
    await mirror.streaming();
    await mirror.apply();
    expect(await mirror.differences("t")).toEqual([]);
  });
});

test("pause keeps the stream, resume goes on", async (context) => {
  await using mirror = await running(context, "CREATE TABLE t (id integer PRIMARY KEY)");
  await mirror.daemon.control.pause("test");
  await mirror.until(({ state }) => state === "paused", "the pause");
  await mirror.source.query("INSERT INTO t SELECT generate_series(1, 100)");
  expect((await mirror.target.query("SELECT count(*)::integer AS n FROM t")).rows[0].n).toBe(0);
  await mirror.daemon.control.resume("test");
  await mirror.streaming();
  await mirror.apply();
  expect(await mirror.differences("t")).toEqual([]);
});

test("a commit whose answer was lost is not another daemon's", async (context) => {
  await using mirror = await running(context, "CREATE TABLE t (id integer PRIMARY KEY)");
  await mirror.apply("INSERT INTO t VALUES (1)");
  await mirror.target.query("UPDATE dualrun.checkpoints SET seq = seq + 1");
  await mirror.source.query("INSERT INTO t VALUES (2)");
  await mirror.until(({ restarts }) => restarts > 0, "another attempt");
  await mirror.streaming();
  await mirror.apply();
  expect(await mirror.differences("t")).toEqual([]);
});

test("stops while the slot waits for a transaction on the source, and begins again", async (context) => {
  await using mirror = await mirrorOf(context, "CREATE TABLE t (id integer PRIMARY KEY)");
  await mirror.source.query("BEGIN; INSERT INTO t VALUES (1)");
  const creating = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE_REPLICATION_SLOT%' AND wait_event = 'transactionid'";
  await mirror.start();
  await waitFor(async () => {
    await mirror.source.query("SELECT pg_stat_clear_snapshot()");
    return (await mirror.source.query(creating)).rowCount === 1;
  }, "the slot to wait", 20_000);
  await mirror.stop();
  await mirror.source.query("COMMIT");
  await mirror.start();
  await mirror.streaming();
  expect(await mirror.differences("t")).toEqual([]);
});

describe("the schema trigger", () => {
  const TABLES = "CREATE TABLE t (id integer PRIMARY KEY, v integer); CREATE TABLE other (id integer PRIMARY KEY)";

  async function triggered(context: TestContext): Promise<{ readonly mirror: TestMirror; readonly trigger: SchemaTrigger } & AsyncDisposable> {
    const pair = await (await orSkip(context, sharedPair())).fresh("trigger");
    const mirror = await TestMirror.make(pair, TABLES, "INSERT INTO t SELECT g, g FROM generate_series(1, 10) AS g");
    await mirror.start({ classes: [{ source: "public.t" }] });
    await mirror.streaming();
    const source = await engineOf("postgres", "source").connectSource({ url: pair.source, tls: { mode: "disable" } }, "test", null);
    const trigger = source.schemaTrigger();
    await trigger.install();
    return {
      mirror, trigger,
      async [Symbol.asyncDispose]() {
        await source[Symbol.asyncDispose]();
        await mirror[Symbol.asyncDispose]();
      },
    };
  }

  test("stops exactly at a rewrite that the log does not tell of, and goes on with a new copy", async (context) => {
    await using at = await triggered(context);
    const { mirror } = at;
    await mirror.source.query("INSERT INTO t VALUES (11, 11)");
    await mirror.source.query("BEGIN; INSERT INTO t VALUES (12, 12); ALTER TABLE t ALTER v TYPE integer USING v * 10; INSERT INTO t VALUES (13, 13); COMMIT");
    await mirror.source.query("INSERT INTO t VALUES (14, 14)");
    const { halt } = await mirror.until(({ state }) => state === "halted", "a halt");
    expect(halt).toMatchObject({ code: "DR5001", details: [expect.stringContaining("rewrites the table")] });
    expect((await mirror.target.query("SELECT max(id) AS last FROM t")).rows).toEqual([{ last: 11 }]);
    await mirror.daemon.control.resnapshot("t", "test");
    await mirror.until(({ state, phase, snapshot }) => state === "streaming" && phase === "dual-run" && snapshot?.done === true, "the new copy");
    await mirror.apply("INSERT INTO t VALUES (15, 15)");
    expect(await mirror.differences("t")).toEqual([]);
  });

  test("goes on after `schema accept`, and other tables halt nothing", async (context) => {
    await using at = await triggered(context);
    const { mirror, trigger } = at;
    await mirror.apply("ALTER TABLE other ADD COLUMN v integer; INSERT INTO other VALUES (1, 1); INSERT INTO t VALUES (20, 20)");
    expect(mirror.daemon.control.status().state).toBe("streaming");
    await mirror.source.query("ALTER TABLE t ADD COLUMN note text");
    await mirror.until(({ state }) => state === "halted", "a halt");
    await mirror.target.query("ALTER TABLE t ADD COLUMN note text");
    await mirror.daemon.control.acceptSchema("a note on both sides", "test");
    await mirror.until(({ state }) => state === "streaming", "streaming");
    await mirror.apply("INSERT INTO t VALUES (21, 21, 'new')");
    expect(await mirror.differences("t")).toEqual([]);
    expect(await trigger.isInstalled()).toBe(true);
    await trigger.remove();
    expect(await trigger.isInstalled()).toBe(false);
  });
});

test("a class that is copied again beside a long transaction leaves the others going", async (context) => {
  await using mirror = await running(context, "CREATE TABLE t (id integer PRIMARY KEY); CREATE TABLE other (id integer PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 20)");
  const long = new pg.Client({ connectionString: mirror.sourceUrl });
  await long.connect();
  await long.query("BEGIN; INSERT INTO t VALUES (1000)");
  await mirror.daemon.control.resnapshot("t", "test");
  await sleep(4_000);
  const before = performance.now();
  await mirror.source.query("INSERT INTO other VALUES (1)");
  while ((await mirror.target.query("SELECT 1 FROM other")).rows.length === 0) await sleep(20);
  expect(performance.now() - before).toBeLessThan(8_000);
  await long.query("COMMIT");
  await long.end();
  await mirror.until(({ state, phase, snapshot }) => state === "streaming" && phase === "dual-run" && snapshot?.done === true, "the new copy");
  await mirror.apply("INSERT INTO t VALUES (2000)");
  expect(await mirror.differences("t", "other")).toEqual([]);
});

test("a class that is copied again while the mirror is paused waits for `resume`", async (context) => {
  await using mirror = await running(context, "CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 20)");
  await mirror.daemon.control.pause("test");
  await mirror.until(({ state }) => state === "paused", "paused");
  await mirror.daemon.control.resnapshot("t", "test");
  await mirror.source.query("INSERT INTO t VALUES (100)");
  await sleep(500);
  expect(mirror.daemon.control.status().state).toBe("paused");
  expect((await mirror.target.query("SELECT 1 FROM t")).rows).toEqual([]);
  await mirror.daemon.control.resume("test");
  await mirror.until(({ state, phase, snapshot }) => state === "streaming" && phase === "dual-run" && snapshot?.done === true, "the new copy");
  await mirror.apply("INSERT INTO t VALUES (101)");
  expect(await mirror.differences("t")).toEqual([]);
});

describe("a layout that came and went while the mirror was down", () => {
  test.for([
    ["a column", "ALTER TABLE t ADD COLUMN extra integer; UPDATE t SET extra = id, v = 'meanwhile' WHERE id < 5; INSERT INTO t VALUES (50, 'with extra', 1); DELETE FROM t WHERE id = 6; ALTER TABLE t DROP COLUMN extra"],
    ["a replica identity", "ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET v = 'meanwhile' WHERE id < 5; DELETE FROM t WHERE id = 6; ALTER TABLE t REPLICA IDENTITY DEFAULT"],
  ] as const)("%s: halts, and a new copy of the class gets past it", async ([, meanwhile], context) => {
    await using mirror = await running(context, "CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE TABLE calm (id integer PRIMARY KEY)", "INSERT INTO t SELECT g, 'v' FROM generate_series(1, 20) AS g");
    await mirror.stop();
    await mirror.source.query(meanwhile);
    await mirror.source.query("INSERT INTO t VALUES (60, 'after'); INSERT INTO calm VALUES (1)");
    await mirror.start();
    const { halt } = await mirror.until(({ state }) => state === "halted", "a halt");
    expect(halt!.code).toBe("DR5001");
    await mirror.daemon.control.resnapshot("t", "test");
    await mirror.until(({ state, phase, snapshot }) => state === "streaming" && phase === "dual-run" && snapshot?.done === true, "the new copy");
    await mirror.apply("INSERT INTO t VALUES (70, 'later'); UPDATE t SET v = 'moved' WHERE id = 60; DELETE FROM t WHERE id = 7");
    expect(await mirror.differences("t", "calm")).toEqual([]);
    expect((await mirror.daemon.control.proof.compare(null, true)).verdict).toBe("in_sync");
  });
});

describe("a copy that meets what the target refuses", () => {
  const CHECKED = "CREATE TABLE r (id integer PRIMARY KEY, v integer CHECK (v % 100 <> 7))";

  async function refusing(context: TestContext, maxRefusedShare: number): Promise<TestMirror> {
    const mirror = await mirrorOf(context, "SELECT 1");
    await mirror.source.query("CREATE TABLE r (id integer PRIMARY KEY, v integer); INSERT INTO r SELECT g, g FROM generate_series(1, 5000) AS g");
    await mirror.target.query(CHECKED);
    await mirror.start({ snapshot: { maxRefusedShare, chunkRows: 500 } });
    return mirror;
  }

  test("sets few rows aside by the hash of their key, and says how many", async (context) => {
    await using mirror = await refusing(context, 0.05);
    await mirror.streaming();
    expect(mirror.daemon.control.status().snapshot).toMatchObject({ rows: 4950, refused: 50, done: true });
    expect((await mirror.target.query("SELECT count(*)::int AS n FROM r")).rows).toEqual([{ n: 4950 }]);
    const { rows } = await mirror.target.query("SELECT key_hash, sqlstate, constraint_name FROM dualrun.refused_rows");
    expect([rows.length, new Set(rows.map((row) => row.key_hash)).size, rows[0]]).toEqual([50, 50, { key_hash: expect.stringMatching(/^[0-9a-f]{16}$/), sqlstate: "23514", constraint_name: "r_v_check" }]);
    expect((await mirror.daemon.control.proof.compare(null, true)).classes[0]).toMatchObject({ verdict: "confirmed_out_of_sync", differences: { missing: 50 } });
  });

  test("stops to be looked at when they are more than the share", async (context) => {
    await using mirror = await refusing(context, 0.001);
    const { halt } = await mirror.until(({ state }) => state === "halted", "a halt");
    expect(halt!.code).toBe("DR6001");
  });

  test("rolls over into new snapshots when one grows too old, beside writes", async (context) => {
    await using mirror = await mirrorOf(context, "CREATE TABLE k (id integer PRIMARY KEY, v integer); CREATE TABLE b (a integer)", `
      INSERT INTO k SELECT g, 0 FROM generate_series(1, 12000) AS g; ALTER TABLE b REPLICA IDENTITY FULL; INSERT INTO b SELECT g % 10 FROM generate_series(1, 6000) AS g`);
    await mirror.start({ snapshot: { chunkRows: 200, maxRowsPerSecond: 8000, parallel: 1 } }, { tune: (config) => ({ ...config, snapshot: { ...config.snapshot, maxAge: 300 } }) });
    const positions = new Set<string>();
    for (let i = 0; mirror.daemon.control.status().phase !== "dual-run" || mirror.daemon.control.status().snapshot?.done !== true; i++) {
      positions.add(mirror.daemon.control.status().snapshot?.position ?? "");
      await mirror.source.query(`BEGIN; UPDATE k SET v = v + 1 WHERE id % 50 = ${i % 50}; UPDATE k SET id = -id WHERE id = ${1 + i * 7}; DELETE FROM k WHERE id = ${3 + i * 11}; INSERT INTO k VALUES (${20_000 + i}, 1); DELETE FROM b WHERE ctid IN (SELECT ctid FROM b LIMIT 1); COMMIT`);
      await sleep(20);
    }
    expect(positions.size).toBeGreaterThan(2);
    await mirror.apply("INSERT INTO k VALUES (-99999, 0)");
    expect(await mirror.differences("k", "b")).toEqual([]);
    expect((await mirror.daemon.control.proof.compare(null, true)).verdict).toBe("in_sync");
  });
});
