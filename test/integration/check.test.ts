/** Preflight: each fault is provoked for real and found; the printed grants are enough for roles that have nothing else. */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { describe, expect, test, type TestContext } from "vitest";
import { engineOf } from "../../connectors/registry.ts";
import { parseConfig } from "../../src/config/index.ts";
import type { Finding } from "../../src/core/index.ts";
import { resolveClasses } from "../../src/plan/index.ts";
import { TestMirror } from "../support/mirror.ts";
import { orSkip, postgresServer, sharedPair, type FreshPair } from "../support/servers.ts";
import { startStandby } from "../support/standby.ts";

process.env["DUALRUN_ALLOW_UNSAFE_TARGET"] = "1";

interface Checked {
  readonly findings: readonly Finding[];
  readonly grants: { readonly source: readonly string[]; readonly target: readonly string[] };
}

async function check(source: string, target: string, config: object = { include: ["public.*"] }): Promise<Checked> {
  const parsed = parseConfig(JSON.stringify({
    migration: "check", timeZone: "UTC", source: { engine: "postgres", url: "env:S" }, target: { engine: "postgres", url: "env:T" }, ...config,
  }), { directory: ".", env: { S: source, T: target } });
  await using from = await engineOf("postgres", "source").connectSource(parsed.source, "check", null);
  await using to = await engineOf("postgres", "target").connectTarget(parsed.target, "check");
  const [sourceFacts, targetFacts] = [await from.inspect(), await to.inspect()];
  const { classes, findings } = resolveClasses(parsed, sourceFacts, targetFacts);
  return {
    findings: [...findings, ...from.preflight(classes, sourceFacts), ...to.preflight(classes, targetFacts, sourceFacts)],
    grants: { source: from.grants(classes, sourceFacts), target: to.grants(classes, targetFacts) },
  };
}

async function on(connectionString: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

async function fresh(context: TestContext): Promise<FreshPair> {
  return (await orSkip(context, sharedPair())).fresh("check");
}

/** Fault → what makes it on the source, on the target, and the check that names it. */
const FAULTS: readonly [check: string, source: string, target: string, config?: object][] = [
  ["missing-table", "CREATE TABLE t (id integer PRIMARY KEY)", "SELECT 1"],
  ["missing-column", "CREATE TABLE t (id integer PRIMARY KEY, v text)", "CREATE TABLE t (id integer PRIMARY KEY)"],
  ["unfilled-column", "CREATE TABLE t (id integer PRIMARY KEY)", "CREATE TABLE t (id integer PRIMARY KEY, v text NOT NULL)"],
  ["no-identity", "CREATE TABLE t (id integer)", "CREATE TABLE t (id integer)"],
  ["no-identity", "CREATE TABLE t (id integer PRIMARY KEY DEFERRABLE)", "CREATE TABLE t (id integer PRIMARY KEY)"],
  ["target-key", "CREATE TABLE t (id integer PRIMARY KEY)", "CREATE TABLE t (id integer)"],
  ["persistence", "CREATE UNLOGGED TABLE t (id integer PRIMARY KEY)", "CREATE TABLE t (id integer PRIMARY KEY)"],
  ["type", "CREATE TABLE t (id integer PRIMARY KEY, v numeric)", "CREATE TABLE t (id integer PRIMARY KEY, v integer)"],
  ["type", "CREATE TABLE t (id bigint PRIMARY KEY)", "CREATE TABLE t (id integer PRIMARY KEY)"],
  ["type", "CREATE TABLE t (id integer PRIMARY KEY, v timestamp)", "CREATE TABLE t (id integer PRIMARY KEY, v timestamptz)"],
  ["type", "CREATE TYPE m AS ENUM ('a', 'b'); CREATE TABLE t (id integer PRIMARY KEY, v m)", "CREATE TYPE m AS ENUM ('a'); CREATE TABLE t (id integer PRIMARY KEY, v m)"],
  ["generated-column", "CREATE TABLE t (id integer PRIMARY KEY, v integer)", "CREATE TABLE t (id integer PRIMARY KEY, v integer GENERATED ALWAYS AS (id) STORED)"],
  ["identity-always", "CREATE TABLE t (id integer PRIMARY KEY, v integer)", "CREATE TABLE t (id integer PRIMARY KEY, v integer GENERATED ALWAYS AS IDENTITY)"],
  ["trigger-fires", "CREATE TABLE t (id integer PRIMARY KEY)", "CREATE TABLE t (id integer PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE t ENABLE ALWAYS TRIGGER g"],
  ["filter-identity", "CREATE TABLE t (id integer PRIMARY KEY, v text)", "CREATE TABLE t (id integer PRIMARY KEY, v text)", { classes: [{ name: "t", source: "public.t", where: "v = 'x'" }] }],
  ["unknown-column", "CREATE TABLE t (id integer PRIMARY KEY)", "CREATE TABLE t (id integer PRIMARY KEY)", { classes: [{ name: "t", source: "public.t", sensitive: ["nope"] }] }],
  ["shared-target", "CREATE TABLE t (id integer PRIMARY KEY)", "CREATE TABLE t (id integer PRIMARY KEY)", { classes: [{ name: "a", source: "public.t" }, { name: "b", source: "public.t" }] }],
  ["inheritance", "CREATE TABLE t (id integer PRIMARY KEY); CREATE TABLE u (PRIMARY KEY (id)) INHERITS (t)", "CREATE TABLE t (id integer PRIMARY KEY); CREATE TABLE u (id integer PRIMARY KEY)"],
  ["inheritance", "CREATE TABLE t (id integer PRIMARY KEY)", "CREATE TABLE t (id integer PRIMARY KEY); CREATE TABLE other () INHERITS (t)"],
  ["partition-identity", "CREATE TABLE t (id integer PRIMARY KEY, c integer NOT NULL) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT; ALTER TABLE t1 REPLICA IDENTITY NOTHING", "CREATE TABLE t (id integer PRIMARY KEY, c integer)"],
  ["partition-identity", "CREATE TABLE t (id integer PRIMARY KEY, c integer NOT NULL) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT; CREATE UNIQUE INDEX u ON t1 (c); ALTER TABLE t1 REPLICA IDENTITY USING INDEX u", "CREATE TABLE t (id integer PRIMARY KEY, c integer)"],
  ["partition-identity", "CREATE TABLE t (id integer) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT; ALTER TABLE ONLY t REPLICA IDENTITY FULL", "CREATE TABLE t (id integer)"],
];

describe("faults", () => {
  for (const [name, onSource, onTarget, config] of FAULTS) {
    test(`${name}: ${onSource.slice(0, 60)}`, async (context) => {
      const pair = await fresh(context);
      await on(pair.source, onSource);
      await on(pair.target, onTarget);
      const { findings } = await check(pair.source, pair.target, config);
      const found = findings.find((finding) => finding.check === name);
      expect(found, JSON.stringify(findings, null, 1)).toMatchObject({ severity: "error" });
      expect(found!.mend.length).toBeGreaterThan(5);
      await pair.drop();
    });
  }

  test("all of them at once", async (context) => {
    const pair = await fresh(context);
    await on(pair.source, "CREATE TABLE a (id integer); CREATE TABLE b (id integer PRIMARY KEY, v numeric); CREATE UNLOGGED TABLE c (id integer PRIMARY KEY)");
    await on(pair.target, "CREATE TABLE b (id integer PRIMARY KEY, v integer); CREATE TABLE c (id integer PRIMARY KEY)");
    const { findings } = await check(pair.source, pair.target);
    expect(new Set(findings.map((finding) => finding.check))).toEqual(expect.objectContaining(new Set()));
    for (const name of ["missing-table", "type", "persistence"]) expect(findings.map((finding) => finding.check)).toContain(name);
    await pair.drop();
  });
});

test("roles with the printed grants and nothing else can mirror", { timeout: 120_000 }, async (context) => {
  const pair = await fresh(context);
  const role = `mover_${randomBytes(4).toString("hex")}`;
  const schema = "CREATE TABLE parent (id integer PRIMARY KEY); CREATE TABLE child (id integer PRIMARY KEY, p integer REFERENCES parent, v text)";
  for (const url of [pair.source, pair.target]) await on(url, `${schema}; CREATE ROLE ${role} LOGIN PASSWORD 'pw'; REVOKE TEMPORARY ON DATABASE "${new URL(url).pathname.slice(1)}" FROM PUBLIC`);
  const as = (url: string): string => Object.assign(new URL(url), { username: role, password: "pw" }).toString();
  const [source, target] = [as(pair.source), as(pair.target)];

  const before = await check(source, target);
  for (const name of ["replication-role", "grant-select", "grant-write", "grant-create", "replica-role", "publish"]) expect(before.findings.map((finding) => finding.check)).toContain(name);
  await on(pair.source, `${before.grants.source.join("\n")}\n; ALTER TABLE parent OWNER TO ${role}; ALTER TABLE child OWNER TO ${role}`);
  await on(pair.target, before.grants.target.join("\n"));
  const after = await check(source, target);
  expect(after.findings.filter((finding) => finding.severity === "error")).toEqual([]);
  expect(after.findings.map((finding) => finding.check)).not.toContain("origins");

  const admin = pair.drop;
  {
    await using mirror = await TestMirror.make({ source, target, drop: () => Promise.resolve() }, "SELECT 1", "INSERT INTO parent SELECT generate_series(1, 50); INSERT INTO child SELECT g, g, 'v' FROM generate_series(1, 50) AS g");
    await mirror.start();
    await mirror.streaming();
    const { proof } = mirror.daemon.control;
    expect((await proof.compare(null, true)).verdict).toBe("in_sync");
    expect((await proof.selfTest()).passed).toBe(true);
    await mirror.apply("INSERT INTO child VALUES (100, 1, 'x'); UPDATE child SET v = 'y' WHERE id < 10; DELETE FROM child WHERE id = 20", "BEGIN; TRUNCATE child; INSERT INTO child VALUES (1, 1, 'after'); COMMIT");
    expect(await mirror.differences("parent", "child")).toEqual([]);
  }
  await admin();
});

test("what is wrong with the servers themselves, all at once", { timeout: 120_000 }, async (context) => {
  const settings = { wal_level: "replica", max_replication_slots: "1", max_wal_senders: "1", fsync: "off" };
  await using source = await orSkip(context, postgresServer({ controllable: true, settings }));
  await using target = await orSkip(context, postgresServer({ controllable: true, settings: { ...settings, timezone: "Pacific/Auckland" } }));
  await on(source.url, "SELECT pg_create_physical_replication_slot('taken', false)");
  const from = (await source.createDatabase("servers")).url;
  await on(target.url, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0");
  const to = Object.assign(new URL(target.url), { pathname: "/latin" }).toString();
  await on(from, "CREATE TABLE t (id integer PRIMARY KEY); SELECT lo_create(0)");
  await on(to, "CREATE TABLE t (id integer PRIMARY KEY)");
  const { findings } = await check(from, to);
  const severities = Object.fromEntries(findings.map(({ check: name, side, severity }) => [`${side} ${name}`, severity]));
  expect(severities).toMatchObject({
    "source wal-level": "error", "source free-slots": "error", "source free-senders": "error", "source large-objects": "warning",
    "target encoding": "error", "target time-zone": "warning", "target collation": "warning", "target reverse-room": "warning", "target reverse-wal-level": "warning", "target fsync": "warning",
  });
  expect(findings.every(({ mend }) => mend.length > 5)).toBe(true);
});

test("row level security that hides rows, until the printed statement lifts it", async (context) => {
  const pair = await fresh(context);
  const role = `reader_${randomBytes(4).toString("hex")}`;
  for (const url of [pair.source, pair.target]) await on(url, `CREATE TABLE t (id integer PRIMARY KEY); CREATE ROLE ${role} LOGIN PASSWORD 'pw'`);
  await on(pair.source, "ALTER TABLE t ENABLE ROW LEVEL SECURITY");
  const source = Object.assign(new URL(pair.source), { username: role, password: "pw" }).toString();
  const hidden = async (): Promise<Finding | undefined> => (await check(source, pair.target)).findings.find((finding) => finding.check === "row-security");
  const found = await hidden();
  expect(found).toMatchObject({ severity: "error", side: "source" });
  await on(pair.source, found!.mend);
  expect(await hidden()).toBeUndefined();
  await pair.drop();
});

test("a standby cannot be the source", { timeout: 120_000 }, async (context) => {
  await using primary = await orSkip(context, postgresServer({ controllable: true }));
  await using target = await orSkip(context, postgresServer({ controllable: true }));
  const [database, to] = [await primary.createDatabase("standby"), await target.createDatabase("standby")];
  for (const { url } of [database, to]) await on(url, "CREATE TABLE t (id integer PRIMARY KEY)");
  await using standby = await startStandby(primary.process!, database.name);
  const { findings } = await check(standby.urlOf(database.name), to.url);
  expect(findings.map((finding) => finding.check)).toContain("in-recovery");
});

test("on PostgreSQL 15, and between major versions", { timeout: 120_000 }, async (context) => {
  await using old = await orSkip(context, postgresServer({ controllable: true, major: 15 }));
  await using young = await orSkip(context, postgresServer({ controllable: true }));
  const schema = "CREATE TABLE t (id integer PRIMARY KEY, v numeric, at timestamptz, doc jsonb); CREATE TABLE bag (a integer)";
  for (const [from, to] of [[old, young], [young, old]] as const) {
    const [source, target] = [await from.createDatabase("majors"), await to.createDatabase("majors")];
    await using mirror = await TestMirror.make({ source: source.url, target: target.url, drop: () => Promise.resolve() }, schema, "ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO t SELECT g, g / 3.0, now(), jsonb_build_object('g', g) FROM generate_series(1, 500) AS g; INSERT INTO bag SELECT g % 3 FROM generate_series(1, 30) AS g");
    await mirror.start({ comparison: { every: "31d" } });
    await mirror.streaming();
    await mirror.apply("UPDATE t SET v = 'NaN' WHERE id < 5; DELETE FROM t WHERE id = 10; UPDATE t SET id = -id WHERE id = 20; DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag LIMIT 2)");
    expect(await mirror.differences("t", "bag")).toEqual([]);
    expect((await mirror.daemon.control.proof.compare(null, true)).classes.map(({ verdict, note }) => [verdict, note])).toEqual([["in_sync", null], ["in_sync", null]]);
    await mirror.target.query("UPDATE t SET doc = '{}' WHERE id = 7");
    expect((await mirror.daemon.control.proof.compare("t", true)).classes[0]).toMatchObject({ verdict: "confirmed_out_of_sync", rows: [{ columns: ["doc"] }] });
  }
});

test("a target whose replication origins are used up is told of before it is needed", async (context) => {
  const pair = await orSkip(context, sharedPair());
  const fresh = await pair.fresh("origins");
  const admin = new pg.Client({ connectionString: fresh.target });
  await admin.connect();
  try {
    const room = async (): Promise<unknown[]> => (await check(fresh.source, fresh.target)).findings.filter((finding) => finding.check === "origins-room");
    await admin.query("SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin");
    expect(await room()).toEqual([]);
    await admin.query("SELECT pg_replication_origin_create('full_' || g) FROM generate_series(1, 18) AS g");
    expect(await room()).toMatchObject([{ severity: "warning", side: "target" }]);
  } finally {
    await admin.query("SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname LIKE 'full_%'");
    await admin.end();
    await fresh.drop();
  }
});
