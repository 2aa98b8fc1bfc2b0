/** Frozen tables take no write but the mirror's, whoever writes and however; and they thaw by themselves. */
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { describe, expect, test, type TestContext } from "vitest";
import { carryPass } from "../../connectors/postgres/freeze-sql.ts";
import { connectPostgresTarget } from "../../connectors/postgres/target.ts";
import type { Freeze, FreezeState } from "../../src/core/index.ts";
import { waitFor } from "../support/daemon.ts";
import { classOf, FreezeStage, MIGRATION, outcome } from "../support/freeze.ts";
import { orSkip, postgresServer, sharedPair, type TestServer } from "../support/servers.ts";

process.env["DUALRUN_ALLOW_UNSAFE_TARGET"] = "1";

const SCHEMA = `
  CREATE TABLE orders (id bigserial PRIMARY KEY, note text);
  INSERT INTO orders (note) SELECT 'seed' FROM generate_series(1, 10);
  CREATE TABLE payments (id bigint, year int, PRIMARY KEY (id, year)) PARTITION BY LIST (year);
  CREATE TABLE payments_2025 PARTITION OF payments FOR VALUES IN (2025);
  CREATE TABLE payments_rest PARTITION OF payments DEFAULT PARTITION BY RANGE (id);
  CREATE TABLE payments_rest_low PARTITION OF payments_rest FOR VALUES FROM (0) TO (1000);
  INSERT INTO payments VALUES (1, 2025), (2, 2026);
  CREATE TABLE unmapped (id int PRIMARY KEY);
  INSERT INTO unmapped VALUES (1), (2);
  CREATE TABLE lines (id int PRIMARY KEY, parent int REFERENCES unmapped ON DELETE CASCADE);
  INSERT INTO lines VALUES (1, 1)`;
const CLASSES = [classOf("orders"), classOf("payments"), classOf("lines")];
/** orders, lines, payments with three partitions under it. */
const TABLES = 6;

async function stageOn(context: TestContext, schema = SCHEMA): Promise<FreezeStage> {
  return FreezeStage.make((await orSkip(context, sharedPair())).source, schema);
}

async function frozen(stage: FreezeStage, lease = 60_000): Promise<Freeze> {
  const freeze = await stage.freezer();
  await freeze.prepare(CLASSES);
  await freeze.freeze({ lease, lockTimeout: 2_000 });
  return freeze;
}

/** Every way to write that an application has, by SQL that would succeed. */
function writes(major: number): string[] {
  return [
    "INSERT INTO orders (note) VALUES ('x')", "UPDATE orders SET note = 'y' WHERE id = 1", "DELETE FROM orders WHERE id = 2",
    "UPDATE orders SET note = 'z' WHERE false", "INSERT INTO orders (id, note) VALUES (1, 'u') ON CONFLICT (id) DO UPDATE SET note = 'u'",
    "INSERT INTO orders (id) VALUES (1) ON CONFLICT DO NOTHING", "TRUNCATE orders", "COPY orders (note) FROM PROGRAM 'echo copied'",
    "WITH w AS (DELETE FROM orders WHERE id = 3 RETURNING 1) SELECT * FROM w",
    "INSERT INTO payments VALUES (3, 2025)", "INSERT INTO payments VALUES (4, 2030)", "INSERT INTO payments_2025 VALUES (5, 2025)", "INSERT INTO payments_rest_low VALUES (6, 2031)",
    "UPDATE payments SET year = 2025 WHERE id = 2", "DELETE FROM payments_rest WHERE id = 2", "TRUNCATE payments_2025", "TRUNCATE payments_rest", "TRUNCATE payments",
    "DELETE FROM unmapped WHERE id = 1", "TRUNCATE unmapped CASCADE",
    ...(major >= 15 ? ["MERGE INTO orders AS o USING (SELECT 1 AS id) AS s ON o.id = s.id WHEN MATCHED THEN UPDATE SET note = 'm'"] : []),
  ];
}

for (const major of [undefined, 15]) {
  describe(`on PostgreSQL ${major ?? "as it comes"}`, () => {
    async function server(context: TestContext): Promise<TestServer & AsyncDisposable> {
      if (major !== undefined) return orSkip(context, postgresServer({ major }));
      return { ...(await orSkip(context, sharedPair())).source, [Symbol.asyncDispose]: () => Promise.resolve() };
    }

    test("every way of writing is refused, also in replica role, and possible again after the thaw", async (context) => {
      await using own = await server(context);
      await using stage = await FreezeStage.make(own, SCHEMA);
      const replica = await stage.connect(stage.adminUrl);
      await replica.query("SET session_replication_role = replica");
      const prepared = { name: "insert", text: "INSERT INTO orders (note) VALUES ($1)" };
      const application = await stage.connect();
      for (let round = 0; round < 6; round++) await application.query({ ...prepared, values: ["planned"] });
      const freeze = await frozen(stage);
      const before = await stage.count("orders");
      for (const statement of writes(own.major)) {
        const isCascade = statement === "DELETE FROM unmapped WHERE id = 1";
        if (!isCascade) expect(await outcome(replica.query(statement)), `replica role: ${statement}`).toBe("DR001"); // where no cascade fires
        if (!statement.startsWith("COPY")) expect(await outcome(application.query(statement)), statement).toBe("DR001");
      }
      expect(await outcome(application.query({ ...prepared, values: ["planned"] }))).toBe("DR001");
      expect(await stage.count("orders")).toBe(before);
      expect((await application.query("SELECT * FROM orders")).rows.length).toBe(before);
      expect(await outcome(application.query("INSERT INTO unmapped VALUES (9)"))).toBe("ok");
      expect(await freeze.thaw()).toBe(0);
      for (const statement of writes(own.major)) {
        await replica.query("BEGIN");
        expect(await outcome(replica.query(statement)), statement).toBe("ok");
        await replica.query("ROLLBACK");
      }
      expect((await freeze.state()).state).toBe("prepared");
    });

    test("a whole turn: prepared, frozen, proven, renewed, permanent, thawed, torn down", async (context) => {
      await using own = await server(context);
      await using stage = await FreezeStage.make(own, SCHEMA);
      const freeze = await stage.freezer();
      expect(await freeze.state()).toMatchObject({ state: "absent", holds: false, holder: null });
      await expect(freeze.freeze({ lease: 1000, lockTimeout: 100 })).rejects.toMatchObject({ code: "DR6104" });
      expect(await freeze.prepare(CLASSES)).toMatchObject({ state: "prepared", tables: TABLES, guards: TABLES * 2, faults: [], until: null });
      expect(await freeze.prepare(CLASSES)).toMatchObject({ state: "prepared", tables: TABLES, guards: TABLES * 2, faults: [] });
      await expect(freeze.proveQuiet({ timeout: 100, terminate: false })).rejects.toMatchObject({ code: "DR6102" });
      const until = await freeze.freeze({ lease: 20_000, lockTimeout: 1_000 });
      const state = await freeze.state();
      expect(state).toMatchObject({ state: "frozen", holds: true, holder: { name: "test", epoch: 1n }, until, faults: [] });
      expect(until.getTime() - state.now.getTime()).toBeGreaterThan(15_000);
      expect(await freeze.proveQuiet({ timeout: 1_000, terminate: false })).toMatchObject({ tables: TABLES, guards: TABLES * 2, writers: [], terminated: 0, preparedTransactions: 0, until });
      expect((await freeze.renew(40_000) as Date).getTime() - until.getTime()).toBeGreaterThan(19_000);
      const lease = await stage.admin.query("SELECT migration, holder, permanent, in_force FROM dualrun.freeze_test_freeze_lease");
      expect(lease.rows).toEqual([{ migration: MIGRATION, holder: "test", permanent: false, in_force: true }]);
      await freeze.makePermanent();
      expect(await freeze.state()).toMatchObject({ state: "permanent", holds: true, until: "permanent" });
      expect(await freeze.renew(1)).toBe("permanent");
      const refusal = await stage.admin.query("INSERT INTO orders (note) VALUES ('x')").catch((error: unknown) => error);
      expect(refusal).toMatchObject({ code: "DR001", schema: "public", table: "orders", message: expect.stringContaining("dualrun has frozen it for the cutover of migration freeze-test"), hint: expect.stringContaining("no longer the one to write to") });
      expect(await freeze.thaw()).toBe(0);
      await freeze.tearDown();
      expect(await freeze.state()).toMatchObject({ state: "absent" });
    });
  });
}

describe("who is let through", () => {
  test("a session of the mirror's login with the pass, and nobody who has one of the two", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await frozen(stage);
    const statement = "UPDATE orders SET note = 'mirror' WHERE id = 1";
    const [mirror, sameLogin] = [await stage.connect(stage.adminUrl), await stage.connect(stage.adminUrl)];
    await carryPass(mirror, MIGRATION);
    expect(await outcome(mirror.query(statement))).toBe("ok");
    expect(await outcome(mirror.query("INSERT INTO payments VALUES (7, 2025); DELETE FROM payments_rest WHERE id = 2; TRUNCATE lines"))).toBe("ok");
    expect(await outcome(sameLogin.query(statement))).toBe("DR001");
    await sameLogin.query("SELECT pg_replication_origin_create('forged_' || current_database()), pg_replication_origin_session_setup('forged_' || current_database())");
    expect(await outcome(sameLogin.query(statement))).toBe("DR001");
    await sameLogin.query("SELECT pg_replication_origin_session_reset(), pg_replication_origin_drop('forged_' || current_database())");

    const { rows } = await stage.admin.query<{ pass: string }>("SELECT pass FROM dualrun.freeze_test_freeze_pass");
    const stranger = await stage.connect();
    expect(await outcome(stranger.query("SELECT pass FROM dualrun.freeze_test_freeze_pass"))).toBe("42501");
    expect(await outcome(stranger.query("SELECT dualrun.freeze_test_freeze_extend(9, 'me', 1)"))).toBe("42501");
    expect(await outcome(stranger.query("SELECT setval('dualrun.freeze_test_freeze_deadline', 0)"))).toBe("42501");
    await stranger.query("SELECT set_config('dualrun.pass', $1, false)", [rows[0]!.pass]);
    expect(await outcome(stranger.query(statement))).toBe("DR001");
    await stranger.query("CREATE FUNCTION pg_temp.lie(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true'; CREATE OPERATOR pg_temp.<= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = pg_temp.lie); SET search_path = pg_temp, pg_catalog, public");
    expect(await outcome(stranger.query(statement))).toBe("DR001");
    expect((await freeze.state()).holds).toBe(true);
  });

  test("a target's own sessions", async (context) => {
    await using stage = await stageOn(context);
    await using target = await connectPostgresTarget({ url: stage.adminUrl, tls: { mode: "disable" } }, MIGRATION);
    await target.prepareState([]);
    const held = await target.takeOver("stream");
    const freeze = target.freezer({ name: "rollback", epoch: held.epoch });
    await freeze.prepare([classOf("orders")]);
    await freeze.freeze({ lease: 60_000, lockTimeout: 1_000 });
    expect(await outcome(stage.admin.query("TRUNCATE orders"))).toBe("DR001");
    await target.truncateAll([classOf("orders")], held);
    expect(await stage.count("orders")).toBe(0);
    await freeze.tearDown();
    expect((await target.checkpoint("stream"))?.epoch).toBe(held.epoch); // dualrun's own schema was not the freeze's to drop
  });

  test("no subscription's worker: its changes arrive after the thaw", async (context) => {
    const pair = await orSkip(context, sharedPair());
    await using publisher = await FreezeStage.make(pair.target, "CREATE TABLE orders (id bigint PRIMARY KEY, note text); CREATE PUBLICATION other FOR TABLE orders");
    await using stage = await FreezeStage.make(pair.source, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)");
    const name = `other_${stage.appRole}`;
    await stage.admin.query(`CREATE SUBSCRIPTION ${name} CONNECTION '${publisher.adminUrl}' PUBLICATION other`);
    try {
      await publisher.admin.query("INSERT INTO orders VALUES (1, 'before')");
      await waitFor(async () => (await stage.count("orders")) === 1, "the subscription to apply");
      const freeze = await stage.freezer();
      await freeze.prepare([classOf("orders")]);
      await freeze.freeze({ lease: 60_000, lockTimeout: 2_000 });
      await publisher.admin.query("INSERT INTO orders VALUES (2, 'during')");
      await sleep(1_500);
      expect(await stage.count("orders")).toBe(1);
      await freeze.thaw();
      await waitFor(async () => (await stage.count("orders")) === 2, "the change to arrive after the thaw", 30_000);
    } finally {
      await stage.admin.query(`DROP SUBSCRIPTION ${name}`);
    }
  });
});

describe("writers that were there first", () => {
  test("are waited for: what they commit is before the freeze", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await stage.freezer();
    await freeze.prepare(CLASSES);
    const writer = await stage.connect();
    await writer.query("BEGIN; INSERT INTO payments VALUES (10, 2025)");
    const freezing = freeze.freeze({ lease: 60_000, lockTimeout: 5_000 });
    await sleep(300);
    const queued = await stage.connect();
    const behind = outcome(queued.query("INSERT INTO payments VALUES (11, 2025)"));
    await writer.query("COMMIT");
    await freezing;
    expect(await behind).toBe("DR001");
    expect((await stage.admin.query("SELECT id FROM payments WHERE id >= 10")).rows).toEqual([{ id: "10" }]);
  });

  test("and do not end in time: nothing changes, and they are named without their queries", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await stage.freezer();
    await freeze.prepare(CLASSES);
    const writer = await stage.connect();
    await writer.query("BEGIN; UPDATE orders SET note = 'confidential' WHERE id = 1");
    const begun = performance.now();
    const refused = await freeze.freeze({ lease: 60_000, lockTimeout: 400 }).catch((error: unknown) => error as Error & { details: string[] });
    expect(performance.now() - begun).toBeLessThan(2_000);
    expect(refused).toMatchObject({ code: "DR6101", where: "source", details: [expect.stringMatching(new RegExp(`^session \\d+ "billing batch" of role ${stage.appRole} on public.orders, idle in transaction, since `))] });
    expect(JSON.stringify(refused)).not.toContain("confidential");
    expect(await freeze.state()).toMatchObject({ state: "prepared", faults: [] });
    expect(await modes(stage)).toEqual(["D"]);
    expect(await outcome(stage.admin.query("INSERT INTO orders (note) VALUES ('free')"))).toBe("ok");
    await writer.query("COMMIT");
    await freeze.freeze({ lease: 60_000, lockTimeout: 1_000 });
    expect((await freeze.state()).holds).toBe(true);
  });

  test("as a prepared transaction is named too", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await stage.freezer();
    await freeze.prepare(CLASSES);
    const gid = `batch ${stage.appRole}`;
    const writer = await stage.connect();
    await writer.query("BEGIN; DELETE FROM orders WHERE id = 1");
    await writer.query(`PREPARE TRANSACTION '${gid}'`);
    await expect(freeze.freeze({ lease: 60_000, lockTimeout: 300 })).rejects.toMatchObject({ code: "DR6101", details: [expect.stringContaining(`prepared transaction '${gid}' of role ${stage.appRole} on public.orders`)] });
    await stage.admin.query(`COMMIT PREPARED '${gid}'`);
    await freeze.freeze({ lease: 60_000, lockTimeout: 1_000 });
    expect(await stage.count("orders")).toBe(9);
  });

  test("and lock tables in another order: the freeze yields, not the application", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await stage.freezer();
    await freeze.prepare(CLASSES);
    const writer = await stage.connect();
    await writer.query("BEGIN; UPDATE payments SET id = id WHERE id = 1");
    const freezing = freeze.freeze({ lease: 60_000, lockTimeout: 5_000 });
    await sleep(300); // it has lines and orders, and waits for payments
    expect(await outcome(writer.query("UPDATE orders SET note = 'crossed' WHERE id = 1"))).toBe("ok");
    await writer.query("COMMIT");
    await freezing;
    expect((await stage.admin.query("SELECT note FROM orders WHERE id = 1")).rows).toEqual([{ note: "crossed" }]);
  });

  test("with an old snapshot meet the freeze, and every renewal of it", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await stage.freezer();
    await freeze.prepare(CLASSES);
    const snapshots = await Promise.all(["before", "between"].map(() => stage.connect()));
    const begin = (client: pg.Client): Promise<unknown> => client.query("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM unmapped");
    await begin(snapshots[0]!);
    const until = await freeze.freeze({ lease: 2_000, lockTimeout: 1_000 });
    await begin(snapshots[1]!);
    await freeze.renew(60_000);
    await waitFor(async () => (await freeze.state()).now > until, "the first lease to be over");
    for (const client of snapshots) expect(await outcome(client.query("INSERT INTO orders (note) VALUES ('stale')"))).toBe("DR001");
  });
});

async function modes(stage: FreezeStage): Promise<string[]> {
  const { rows } = await stage.admin.query<{ mode: string }>("SELECT DISTINCT tgenabled::text AS mode FROM pg_trigger WHERE tgname LIKE 'dualrun%' ORDER BY 1");
  return rows.map(({ mode }) => mode);
}

test("a vacuum that the server runs by itself gives way", async (context) => {
  await using server = await orSkip(context, postgresServer({ settings: { autovacuum_naptime: "1s" } }));
  await using stage = await FreezeStage.make(server, SCHEMA);
  const freeze = await stage.freezer();
  await freeze.prepare(CLASSES);
  await stage.admin.query("ALTER TABLE orders SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)");
  await stage.admin.query("INSERT INTO orders (note) SELECT repeat('x', 500) FROM generate_series(1, 5000); UPDATE orders SET note = 'dead'");
  const vacuuming = async (): Promise<boolean> => (await stage.admin.query("SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE l.relation = 'orders'::regclass AND a.backend_type = 'autovacuum worker' AND l.granted")).rows.length > 0;
  await waitFor(vacuuming, "a slow vacuum", 30_000);
  await freeze.freeze({ lease: 60_000, lockTimeout: 900 }); // within the second after which it would give way anyway
  expect(await freeze.proveQuiet({ timeout: 500, terminate: true })).toMatchObject({ writers: [], terminated: 0 });
});

describe("a lease", () => {
  test("that nobody renews runs out: writes go through, and the freeze is known to be broken", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await frozen(stage, 1_500);
    const application = await stage.connect();
    expect(await outcome(application.query("INSERT INTO orders (note) VALUES ('early')"))).toBe("DR001");
    await sleep(1_600);
    expect(await outcome(application.query("INSERT INTO orders (note) VALUES ('late')"))).toBe("ok");
    expect(await outcome(application.query("BEGIN ISOLATION LEVEL REPEATABLE READ; DELETE FROM orders WHERE id = 1; COMMIT"))).toBe("ok");
    expect(await freeze.state()).toMatchObject({ state: "lapsed", holds: false });
    for (const work of [() => freeze.renew(1_000), () => freeze.makePermanent(), () => freeze.proveQuiet({ timeout: 100, terminate: false })]) await expect(work()).rejects.toMatchObject({ code: "DR6102" });
    expect(await outcome(application.query("INSERT INTO orders (note) VALUES ('still free')"))).toBe("ok");
    await freeze.freeze({ lease: 60_000, lockTimeout: 1_000 });
    expect(await outcome(application.query("INSERT INTO orders (note) VALUES ('again')"))).toBe("DR001");
    await freeze.thaw();
    expect(await modes(stage)).toEqual(["D"]);
  });

  test("that runs out in the middle of a statement does not let half of it through", async (context) => {
    await using stage = await stageOn(context);
    await frozen(stage, 2_500);
    const application = await stage.connect();
    const slow = "INSERT INTO orders (note) SELECT 'slow' FROM (SELECT pg_sleep(0.1) FROM generate_series(1, 30)) AS s";
    expect(await outcome(application.query(slow))).toBe("DR001");
    await stage.admin.query("ALTER TABLE orders DISABLE TRIGGER dualrun_freeze_test_statement"); // what a subscription meets: the guard of rows alone
    expect(await outcome(application.query("INSERT INTO orders (note) VALUES ('quick')"))).toBe("DR001");
    expect(await outcome(application.query(slow))).toBe("ok");
    expect(await stage.count("orders")).toBe(40);
  });

  test("costs nothing while the guards are off: rows are still copied many at once, and updated without being locked first", async (context) => {
    await using stage = await stageOn(context);
    const logged = async (statement: string): Promise<number> => {
      const at = "SELECT pg_current_wal_insert_lsn() - '0/0' AS n";
      const before = Number((await stage.admin.query<{ n: string }>(at)).rows[0]!.n);
      await stage.admin.query(statement);
      return Number((await stage.admin.query<{ n: string }>(at)).rows[0]!.n) - before;
    };
    const work = "TRUNCATE orders RESTART IDENTITY; COPY orders (note) FROM PROGRAM 'yes note | head -n 20000'; UPDATE orders SET note = 'changed'";
    const plain = await logged(work);
    await (await stage.freezer()).prepare(CLASSES);
    expect(await logged(work) / plain).toBeLessThan(1.1);
  });

  test("is not taken from under a statement that came through when it had run out", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await frozen(stage, 100);
    await sleep(200);
    const application = await stage.connect();
    const slow = outcome(application.query("INSERT INTO orders (note) SELECT 'slow' FROM (SELECT pg_sleep(0.05) FROM generate_series(1, 20)) AS s"));
    await sleep(200);
    await freeze.freeze({ lease: 60_000, lockTimeout: 5_000 });
    const counted = await stage.count("orders");
    expect(await slow).toBe("ok");
    expect(counted).toBe(30);
  });

  test("belongs to the latest epoch: who is fenced out neither renews nor thaws", async (context) => {
    await using stage = await stageOn(context);
    const old = await frozen(stage);
    const young = await stage.freezer(2n);
    await young.renew(60_000);
    expect((await young.state()).holder).toEqual({ name: "test", epoch: 2n });
    const attempts = [() => old.renew(1), () => old.makePermanent(), () => old.thaw(), () => old.freeze({ lease: 1, lockTimeout: 100 }), () => old.prepare(CLASSES), () => old.tearDown(), () => old.proveQuiet({ timeout: 50, terminate: false })];
    for (const attempt of attempts) await expect(attempt()).rejects.toMatchObject({ code: "DR4001" });
    expect(await young.state()).toMatchObject({ state: "frozen", holds: true });
    await young.thaw();
    expect(await outcome(stage.admin.query("INSERT INTO orders (note) VALUES ('free')"))).toBe("ok");
  });

  test("that is being thawed by somebody who is fenced out meanwhile: no further guard is switched off", async (context) => {
    await using stage = await stageOn(context);
    const [old, young] = [await frozen(stage), await stage.freezer(2n)];
    const holder = await stage.connect();
    await holder.query("BEGIN; LOCK TABLE orders IN ROW EXCLUSIVE MODE");
    const thawing = old.thaw().catch((error: unknown) => error);
    await waitFor(async () => (await young.state()).state === "prepared", "the thaw to begin", 5_000);
    await expect(young.renew(60_000)).rejects.toMatchObject({ code: "DR6102" });
    expect(await thawing).toMatchObject({ code: "DR4001" });
    await holder.query("ROLLBACK");
    await young.freeze({ lease: 60_000, lockTimeout: 2_000 });
    expect((await young.state()).holds).toBe(true);
  });

  test("ends at once by a thaw, also where a guard cannot be switched off", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await frozen(stage);
    const holder = await stage.connect();
    await holder.query("BEGIN; LOCK TABLE orders IN ROW EXCLUSIVE MODE");
    const thawing = freeze.thaw();
    await waitFor(async () => (await freeze.state()).state === "prepared", "the thaw", 1_000);
    expect(await outcome(holder.query("INSERT INTO orders (note) VALUES ('free')"))).toBe("ok");
    expect(await thawing).toBe(1);
    await holder.query("COMMIT");
    expect(await freeze.thaw()).toBe(0);
    expect(await modes(stage)).toEqual(["D"]);
  });
});

describe("what changes under it", () => {
  test("partitions that came later are noticed, made part of the freeze, and guarded from birth", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await stage.freezer();
    await freeze.prepare(CLASSES);
    await stage.admin.query("CREATE TABLE payments_2027 PARTITION OF payments FOR VALUES IN (2027); CREATE TABLE loose (id bigint, year int, PRIMARY KEY (id, year)); ALTER TABLE payments ATTACH PARTITION loose FOR VALUES IN (2028)");
    expect((await freeze.state()).faults).toEqual(["public.loose: guard dualrun_freeze_test_statement is missing", "public.payments_2027: guard dualrun_freeze_test_statement is missing"]);
    await freeze.freeze({ lease: 60_000, lockTimeout: 1_000 });
    expect(await freeze.state()).toMatchObject({ holds: true, tables: TABLES + 2, faults: [] });
    for (const table of ["loose", "payments_2027"]) for (const statement of [`TRUNCATE ${table}`, `INSERT INTO ${table} VALUES (1, ${table === "loose" ? 2028 : 2027})`]) expect(await outcome(stage.admin.query(statement)), statement).toBe("DR001");
    await stage.admin.query("CREATE TABLE payments_2029 PARTITION OF payments FOR VALUES IN (2029)");
    expect(await outcome(stage.admin.query("INSERT INTO payments_2029 VALUES (1, 2029)"))).toBe("DR001");
    expect(await freeze.state()).toMatchObject({ state: "frozen", holds: false });
    expect(await freeze.prepare(CLASSES)).toMatchObject({ state: "frozen", holds: true, tables: TABLES + 3 });
    expect(await outcome(stage.admin.query("TRUNCATE payments_2029"))).toBe("DR001");
    await freeze.tearDown();
    expect(await modes(stage)).toEqual([]);
  });

  const TAMPERINGS: readonly (readonly [string, string])[] = [
    ["ALTER TABLE orders DISABLE TRIGGER ALL", "public.orders: guard dualrun_freeze_test_row is switched off"],
    ["ALTER TABLE payments_2025 ENABLE TRIGGER dualrun_freeze_test_row", "public.payments_2025: guard dualrun_freeze_test_row does not fire for everybody"],
    ["CREATE OR REPLACE TRIGGER dualrun_freeze_test_statement BEFORE INSERT ON lines FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION dualrun.freeze_test_freeze_guard()", "public.lines: guard dualrun_freeze_test_statement was altered"],
    ["DROP TRIGGER dualrun_freeze_test_statement ON lines", "public.lines: guard dualrun_freeze_test_statement is missing"],
    ["CREATE OR REPLACE FUNCTION dualrun.freeze_test_freeze_guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", 'function dualrun."freeze_test_freeze_guard" was altered'],
    ["ALTER TABLE orders RENAME TO orders_old", 'public.orders does not exist'],
  ];

  test("what the owner does to the guards cannot be prevented, and is found", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await frozen(stage);
    for (const [statement, fault] of TAMPERINGS) {
      expect((await freeze.state()).holds, statement).toBe(true);
      await stage.admin.query(statement);
      const state: FreezeState = await freeze.state();
      expect(state.holds, statement).toBe(false);
      expect(state.faults.map((line) => line.replaceAll('"public"."orders"', "public.orders")), statement).toContain(fault);
      await expect(freeze.proveQuiet({ timeout: 100, terminate: false })).rejects.toMatchObject({ code: "DR6103", details: state.faults });
      if (statement.includes("RENAME")) break;
      if (statement.includes("WHEN (false)")) {
        await expect(freeze.prepare(CLASSES)).rejects.toMatchObject({ code: "DR6104", details: ['DROP TRIGGER "dualrun_freeze_test_statement" ON public.lines; somebody has altered it'] });
        await stage.admin.query("DROP TRIGGER dualrun_freeze_test_statement ON lines");
      }
      await freeze.prepare(CLASSES);
    }
    await expect(freeze.prepare(CLASSES)).rejects.toMatchObject({ code: "DR6104", details: ['"public"."orders" does not exist'] });
    await expect(freeze.freeze({ lease: 1_000, lockTimeout: 500 })).rejects.toMatchObject({ code: "DR6104", details: ['relation "public.orders" does not exist'] });
  });

  test("the schema trigger and preflight do not take guards for changes of the schema", async (context) => {
    await using stage = await stageOn(context);
    const source = await stage.source();
    await source.publish(CLASSES);
    await source.schemaTrigger().install();
    await stage.admin.query("SELECT pg_create_logical_replication_slot('watch_' || current_database(), 'pgoutput')");
    const announced = async (): Promise<number> => Number((await stage.admin.query<{ n: string }>(
      `SELECT count(*) AS n FROM pg_logical_slot_get_binary_changes('watch_' || current_database(), NULL, NULL, 'proto_version', '1', 'publication_names', 'dualrun_freeze_test', 'messages', 'true') WHERE get_byte(data, 0) = ascii('M')`)).rows[0]!.n);
    const freeze = source.freezer({ name: "test", epoch: 1n });
    await freeze.prepare(CLASSES);
    await freeze.freeze({ lease: 60_000, lockTimeout: 1_000 });
    expect((await source.inspect()).tables.flatMap(({ triggers }) => triggers)).toEqual([]);
    await freeze.thaw();
    expect(await announced()).toBe(0);
    await stage.admin.query("ALTER TABLE orders ADD COLUMN more int");
    expect(await announced()).toBe(1);
  });

  test("nothing of it is sent to other people's subscribers", async (context) => {
    await using stage = await stageOn(context);
    await stage.admin.query("CREATE PUBLICATION everything FOR ALL TABLES");
    await stage.admin.query("SELECT pg_create_logical_replication_slot('all_' || current_database(), 'pgoutput')");
    const freeze = await frozen(stage);
    await freeze.renew(60_000);
    await (await stage.freezer(2n)).makePermanent();
    await (await stage.freezer(2n)).tearDown();
    const sent = async (): Promise<string[]> => (await stage.admin.query<{ kind: string }>(
      "SELECT DISTINCT chr(get_byte(data, 0)) AS kind FROM pg_logical_slot_get_binary_changes('all_' || current_database(), NULL, NULL, 'proto_version', '1', 'publication_names', 'everything') WHERE chr(get_byte(data, 0)) IN ('R', 'I', 'U', 'D', 'T') ORDER BY 1")).rows.map(({ kind }) => kind);
    expect(await sent()).toEqual([]);
    await stage.admin.query("INSERT INTO orders (note) VALUES ('seen')");
    expect(await sent()).toEqual(["I", "R"]);
  });

  test("taking it down leaves what is not its own", async (context) => {
    await using stage = await stageOn(context, `${SCHEMA}; CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER theirs BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION touch()`);
    const objects = async (): Promise<unknown[]> => (await stage.admin.query(`
      SELECT 'relation' AS what, oid::regclass::text AS name FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|information)' UNION ALL SELECT 'function', oid::regprocedure::text FROM pg_proc WHERE pronamespace::regnamespace::text !~ '^(pg_|information)'
      UNION ALL SELECT 'trigger', tgname FROM pg_trigger WHERE NOT tgisinternal UNION ALL SELECT 'schema', nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information)' ORDER BY 1, 2`)).rows;
    const before = await objects();
    const freeze = await frozen(stage);
    expect(await objects()).not.toEqual(before);
    await freeze.tearDown();
    expect(await objects()).toEqual(before);
    await freeze.tearDown();
    await stage.admin.query("CREATE SCHEMA dualrun; CREATE TABLE dualrun.kept ()");
    await freeze.prepare(CLASSES);
    await freeze.tearDown();
    expect(await outcome(stage.admin.query("TABLE dualrun.kept"))).toBe("ok");
  });
});

describe("the proof that writers are gone", () => {
  const HOLD = "BEGIN; LOCK TABLE orders IN ROW EXCLUSIVE MODE";

  test("waits for those that hold write locks, names them, and ends them when asked", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await frozen(stage);
    const left = await stage.connect();
    await left.query(HOLD);
    await expect(freeze.proveQuiet({ timeout: 200, terminate: false })).rejects.toMatchObject({ code: "DR6103", details: [expect.stringMatching(/^session \d+ "billing batch" of role app_\w+ on public.orders, idle in transaction/)] });
    const waiting = freeze.proveQuiet({ timeout: 5_000, terminate: false });
    await sleep(200);
    await left.query("COMMIT");
    expect(await waiting).toMatchObject({ writers: [{ kind: "session", application: "billing batch", role: stage.appRole, tables: ["public.orders"] }], terminated: 0 });
    await left.query(HOLD);
    expect(await freeze.proveQuiet({ timeout: 400, terminate: true })).toMatchObject({ terminated: 1, writers: [{ application: "billing batch" }] });
    expect(await outcome(left.query("SELECT 1"))).not.toBe("ok");
  });

  test("names prepared transactions and does not go past them", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await frozen(stage);
    const gid = `late ${stage.appRole}`;
    const writer = await stage.connect();
    await writer.query(HOLD);
    await writer.query(`PREPARE TRANSACTION '${gid}'`);
    await expect(freeze.proveQuiet({ timeout: 200, terminate: true })).rejects.toMatchObject({ code: "DR6105", details: [expect.stringContaining(`prepared transaction '${gid}'`)] });
    await stage.admin.query(`ROLLBACK PREPARED '${gid}'`);
    expect(await freeze.proveQuiet({ timeout: 200, terminate: true })).toMatchObject({ terminated: 0, preparedTransactions: 0 });
  });

  test("passes over the mirror's sessions and the engine's upkeep", async (context) => {
    await using stage = await stageOn(context);
    const freeze = await frozen(stage);
    const [mirror, upkeep] = [await stage.connect(stage.adminUrl, `dualrun ${MIGRATION} apply`), await stage.connect(stage.adminUrl, "vacuum")];
    await mirror.query(HOLD);
    await upkeep.query("BEGIN; LOCK TABLE orders IN SHARE UPDATE EXCLUSIVE MODE");
    expect(await freeze.proveQuiet({ timeout: 200, terminate: true })).toMatchObject({ writers: [], terminated: 0, passedOver: 1 });
    expect(await outcome(mirror.query("SELECT 1"))).toBe("ok");
    await mirror.query("COMMIT");
    const forged = await stage.connect(stage.appUrl, `dualrun ${MIGRATION} apply`);
    await forged.query(HOLD);
    await expect(freeze.proveQuiet({ timeout: 100, terminate: false })).rejects.toMatchObject({ code: "DR6103" });
  });
});

test("the grants that it asks for are enough, and without them it says so", async (context) => {
  await using stage = await stageOn(context);
  await stage.admin.query(`CREATE ROLE owner_of_${stage.appRole}`);
  await stage.admin.query(`GRANT CREATE, USAGE ON SCHEMA public TO owner_of_${stage.appRole}; ALTER TABLE orders OWNER TO owner_of_${stage.appRole}; ALTER TABLE payments OWNER TO owner_of_${stage.appRole}; ALTER TABLE payments_2025 OWNER TO owner_of_${stage.appRole}; ALTER TABLE lines OWNER TO owner_of_${stage.appRole}; ALTER TABLE payments_rest OWNER TO owner_of_${stage.appRole}; ALTER TABLE payments_rest_low OWNER TO owner_of_${stage.appRole}`);
  const source = await stage.source(stage.mirrorUrl);
  const freeze = source.freezer({ name: "test", epoch: 1n });
  await expect(freeze.prepare(CLASSES)).rejects.toMatchObject({ code: "DR6104" });
  const grants = freeze.grants(CLASSES, await source.inspect());
  expect(grants).toContainEqual(`GRANT "owner_of_${stage.appRole}" TO "${stage.mirrorRole}"; -- guards belong to a table's owner`);
  for (const grant of grants) await stage.admin.query(grant);
  await freeze.prepare(CLASSES);
  await freeze.freeze({ lease: 60_000, lockTimeout: 1_000 });
  const left = await stage.connect();
  expect(await outcome(left.query("INSERT INTO orders (note) VALUES ('x')"))).toBe("DR001");
  await left.query("BEGIN; LOCK TABLE orders IN ROW EXCLUSIVE MODE");
  expect(await freeze.proveQuiet({ timeout: 400, terminate: true })).toMatchObject({ terminated: 1 });
  await freeze.makePermanent();
  expect(await freeze.thaw()).toBe(0);
  await freeze.tearDown();
  expect(await freeze.state()).toMatchObject({ state: "absent" });
  await stage.admin.query(`REASSIGN OWNED BY owner_of_${stage.appRole} TO CURRENT_USER; DROP OWNED BY owner_of_${stage.appRole}; DROP ROLE owner_of_${stage.appRole}`);
});
