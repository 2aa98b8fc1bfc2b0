/** Comparisons and repairs beside transactions that do not end, commits that nobody sees yet, and sessions that come and go. */
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { expect, test, type TestContext } from "vitest";
import { TestMirror } from "../support/mirror.ts";
import { waitFor } from "../support/daemon.ts";
import { orSkip, sharedPair } from "../support/servers.ts";

const SLOW_COMMIT = "SET commit_delay = 100000; SET commit_siblings = 0";

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined); // it shows at the next statement
  await client.connect();
  return client;
}

/** Commits of its writers can stand in the log for 100 ms before a snapshot shows them; that needs fsync. */
async function durableMirror(context: TestContext, schema: string, fill: string, config: Readonly<Record<string, unknown>>): Promise<{ readonly mirror: TestMirror; readonly url: string }> {
  const pair = await orSkip(context, sharedPair({ durable: true }));
  const fresh = await pair.fresh("beside");
  const mirror = await TestMirror.make(fresh, schema, fill);
  await mirror.start(config);
  await mirror.streaming();
  return { mirror, url: fresh.source };
}

async function writers(url: string, count: number, statement: (writer: number, i: number) => string): Promise<() => Promise<void>> {
  let stopped = false;
  const all = Array.from({ length: count }, async (_, writer) => {
    const client = await connected(url);
    await client.query(SLOW_COMMIT);
    for (let i = 0; !stopped; i++) await client.query(statement(writer, i));
    await client.end();
  });
  await sleep(1_000);
  return async () => {
    stopped = true;
    await Promise.all(all);
  };
}

const rowsOf = async (client: pg.Client): Promise<unknown[]> => (await client.query("SELECT * FROM accounts ORDER BY code")).rows;

test.for(["code text PRIMARY KEY", "code text"])("a repair of a class with %s never writes what was read at another moment", { timeout: 180_000 }, async (column, context) => {
  const { mirror, url } = await durableMirror(context,
    `CREATE TABLE accounts (${column}, balance integer); CREATE TABLE parked (id integer PRIMARY KEY)${column === "code text" ? "; ALTER TABLE accounts REPLICA IDENTITY FULL" : ""}`,
    "INSERT INTO accounts SELECT 'a' || g, 0 FROM generate_series(1, 4000) AS g", { classes: [{ source: "public.accounts" }], comparison: { every: "31d", holdTimeout: "5s" } });
  await using _ = mirror;
  const parked = await connected(url);
  await parked.query("BEGIN; INSERT INTO parked VALUES (1)");
  await mirror.target.query("DELETE FROM accounts WHERE code = 'a3999'");
  const stop = await writers(url, 6, (writer, i) => `UPDATE accounts SET balance = 1 WHERE code = 'a${writer * 500 + i + 1}'`);
  await expect(mirror.daemon.control.proof.repair("accounts", true, "ann")).rejects.toMatchObject({ code: "DR7003" });
  await stop();
  await parked.query("ROLLBACK");
  await parked.end();
  await mirror.daemon.drain(AbortSignal.timeout(60_000));
  expect(await mirror.daemon.control.proof.repair("accounts", true, "ann")).toMatchObject({ applied: true, rows: 1, comparison: { verdict: "in_sync" } });
  expect(await rowsOf(mirror.target)).toEqual(await rowsOf(mirror.source));
});

test("what lies beside a row that is written all the time is no match until it was looked at", { timeout: 180_000 }, async (context) => {
  const { mirror, url } = await durableMirror(context, "CREATE TABLE accounts (code integer PRIMARY KEY, balance integer); CREATE TABLE parked (id integer PRIMARY KEY)",
    "INSERT INTO accounts SELECT g, 0 FROM generate_series(1, 4000) AS g", { classes: [{ source: "public.accounts" }], comparison: { every: "31d", holdTimeout: "5s" } });
  await using _ = mirror;
  const { proof } = mirror.daemon.control;
  const parked = await connected(url);
  await parked.query("BEGIN; INSERT INTO parked VALUES (1)");
  await mirror.target.query("DELETE FROM accounts WHERE code = 2");
  const stop = await writers(url, 4, () => "UPDATE accounts SET balance = balance + 1 WHERE code = 1");
  const beside = (await proof.compare(null, true)).classes[0]!;
  await stop();
  expect([beside.verdict, beside.differences.healed]).not.toContain("in_sync");
  await mirror.daemon.drain(AbortSignal.timeout(60_000));
  expect((await proof.compare(null, true)).classes[0]).toMatchObject({ verdict: "confirmed_out_of_sync", differences: { missing: 1 } });
  await parked.query("ROLLBACK");
  await parked.end();
});

test("a mark that is made in a new session is not forgotten by a comparison of the one before", { timeout: 180_000 }, async (context) => {
  const pair = await orSkip(context, sharedPair());
  await using mirror = await TestMirror.make(await pair.fresh("beside"), "CREATE TABLE b (id integer PRIMARY KEY, note text); CREATE TABLE c (id integer PRIMARY KEY, note text)",
    "INSERT INTO b SELECT g, '' FROM generate_series(1, 1500) AS g; INSERT INTO c SELECT g, '' FROM generate_series(1, 400) AS g");
  await mirror.start({ classes: [{ source: "public.b" }, { source: "public.c" }], comparison: { every: "31d", maxRowsPerSecond: 500 } });
  await mirror.streaming();
  const { proof } = mirror.daemon.control;
  await proof.compare(null, true);
  const comparing = proof.compare(null, true);
  await waitFor(() => Promise.resolve(proof.state().runningSince !== null), "a comparison");
  await sleep(1_500); // it reads b
  await mirror.daemon.control.pause("ann");
  await mirror.until(({ state }) => state === "paused", "paused");
  await mirror.daemon.control.resume("ann");
  await mirror.streaming();
  await mirror.apply("UPDATE c SET note = 'new' WHERE id = 64");
  await mirror.target.query("UPDATE c SET note = 'lost' WHERE id = 64");
  await comparing;
  const { rows } = await mirror.target.query<{ slices: string[] }>("SELECT slices FROM dualrun.touched WHERE class = 'c'");
  expect(rows.flatMap(({ slices }) => slices)).toContain("2");
  expect((await proof.compare("c", false)).classes[0]).toMatchObject({ verdict: "confirmed_out_of_sync" });
});

test("a marker does not wait for a standby that is away", { timeout: 180_000 }, async (context) => {
  const pair = await orSkip(context, sharedPair());
  await using mirror = await TestMirror.make(await pair.fresh("beside"), "CREATE TABLE b (id integer PRIMARY KEY, note text)", "INSERT INTO b VALUES (1, '')");
  await mirror.start({ classes: [{ source: "public.b" }], comparison: { every: "31d", holdTimeout: "1s", cutTimeout: "2s" } });
  await mirror.streaming();
  const server = await connected(pair.source.url);
  try {
    await server.query("SET synchronous_commit = local");
    await server.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    await server.query("SELECT pg_reload_conf()");
    await sleep(500);
    expect((await mirror.daemon.control.proof.compare(null, true)).verdict).toBe("in_sync");
  } finally {
    await server.query("ALTER SYSTEM RESET synchronous_standby_names");
    await server.query("SELECT pg_reload_conf()");
    await server.end();
  }
});
