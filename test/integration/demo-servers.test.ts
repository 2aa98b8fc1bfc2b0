import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import pg from "pg";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";

import { createDemoSchema, DEMO_CLASSES, seed } from "../../src/demo/schema.ts";
import { startEmbeddedPostgres } from "../../src/demo/servers.ts";
import { startWorkload, WORKLOAD_KINDS } from "../../src/demo/workload.ts";
import { describeWith, type FreshPair, orSkip, postgresServer, requireServer, ServerUnavailable, sharedPair } from "../support/servers.ts";

const SERVERS = new URL("../../src/demo/servers.ts", import.meta.url);

vi.setConfig({ testTimeout: 60_000 });

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

function value(url: string, text: string): Promise<unknown> {
  return withClient(url, async (client) => Object.values((await client.query<Record<string, unknown>>(text)).rows[0] ?? {})[0]);
}

async function execute(url: string, text: string): Promise<void> {
  await withClient(url, (client) => client.query(text));
}

for (const request of [{ controllable: true }, { controllable: true, major: 15 }, { controllable: true, durable: true }]) {
  describeWith(request, `a server of our own ${JSON.stringify(request)}`, (server) => {
    test("is set up for logical replication, in UTF8 and C.UTF-8, and asks for a password", async () => {
      const { url, major } = server();
      expect(await value(url, "show wal_level")).toBe("logical");
      expect(await value(url, "show max_prepared_transactions")).toBe("20");
      expect(await value(url, "show fsync")).toBe("durable" in request ? "on" : "off");
      expect(await value(url, "show server_encoding")).toBe("UTF8");
      expect(await value(url, "show unix_socket_directories")).toBe("");
      expect(await value(url, "select upper('ä')")).toBe("Ä");
      expect(await value(url, "select 'Z' < 'a'")).toBe(true);
      expect(await value(url, "select current_setting('server_version_num')::integer / 10000")).toBe(major);
      const wrong = new URL(url);
      wrong.password = "guess";
      await expect(value(wrong.href, "select 1")).rejects.toMatchObject({ code: "28P01" });
    });

    test("keeps what was committed when it is stopped, and when it is killed", async () => {
      const { process: own, url } = server();
      if (own === null) throw new Error("a controllable server has a process");
      await value(url, "create table kept (n integer)");
      await value(url, "insert into kept values (1)");
      expect(await own.stop()).toBe("fast");
      expect(own.pid).toBeNull();
      await expect(value(url, "select 1")).rejects.toMatchObject({ code: "ECONNREFUSED" });
      await own.start();
      await value(url, "insert into kept values (2)");
      const client = new pg.Client({ connectionString: url });
      const lost = once(client, "error");
      client.on("error", () => {});
      await client.connect();
      await own.kill();
      await lost;
      await own.start();
      expect(await value(url, "select count(*)::integer from kept")).toBe(2);
      expect(await own.stop("immediate")).toBe("immediate");
      await own.start();
      expect(await value(url, "select count(*)::integer from kept")).toBe(2);
    });
  });
}

describe("what servers leave behind", () => {
  test("nothing, after disposal", async (context) => {
    const server = await requireServer(context, { controllable: true });
    const directory = server.process?.directory ?? "";
    expect(existsSync(join(directory, "data"))).toBe(true);
    await server[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
    expect(existsSync(directory)).toBe(false);
  });

  for (const end of ["return", "throw", "exit", "SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"]) {
    test(`nothing, when the program ends by ${end}`, async (context) => {
      await (await requireServer(context, { controllable: true }))[Symbol.asyncDispose]();
      const { child, directory, pid } = await programWithServer(end);
      if (end.startsWith("SIG")) child.kill(end as NodeJS.Signals);
      await once(child, "exit");
      if (end === "SIGKILL") for (const deadline = Date.now() + 10_000; existsSync(directory) && Date.now() < deadline; ) await sleep(50);
      else expect(child.signalCode ?? child.exitCode).toBe(end.startsWith("SIG") ? end : end === "return" ? 0 : end === "exit" ? 7 : 1);
      expect(existsSync(directory)).toBe(false);
      expect(commandOf(pid)).not.toMatch(/postgres/);
    });
  }

  test("a directory of the caller's, with which the server starts again", async (context) => {
    await (await requireServer(context, { controllable: true }))[Symbol.asyncDispose]();
    const directory = await mkdtemp(join(process.getuid?.() === 0 ? "/tmp" : tmpdir(), "dualrun-kept-"));
    try {
      if (process.getuid?.() === 0) await chmod(directory, 0o711);
      for (const expected of ["0", "1"]) {
        await using server = await startEmbeddedPostgres({ directory, database: "kept", settings: { fsync: "off" } });
        await value(server.url, "create table if not exists visits (at timestamptz)");
        expect(await value(server.url, "select count(*) from visits")).toBe(expected);
        await value(server.url, "insert into visits values (now())");
      }
      expect(existsSync(join(directory, "data", "PG_VERSION"))).toBe(true);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  test("not an error without its reason: a port that is taken, a setting that does not exist", async (context) => {
    await using server = await requireServer(context, { controllable: true });
    await expect(startEmbeddedPostgres({ settings: { no_such_setting: "1" } })).rejects.toMatchObject({ code: "DR2001", details: expect.arrayContaining([expect.stringMatching(/no_such_setting/)]) });
    await expect(startEmbeddedPostgres({ port: Number(new URL(server.url).port) })).rejects.toMatchObject({ code: "DR2001", details: expect.arrayContaining([expect.stringMatching(/in use/)]) });
  });
});

/** A program of its own that starts a server, says where, and ends as told. */
async function programWithServer(end: string): Promise<{ child: ChildProcess; directory: string; pid: number }> {
  const program = `
    import { startEmbeddedPostgres } from ${JSON.stringify(SERVERS.href)};
    const server = await startEmbeddedPostgres({ settings: { fsync: "off" } });
    console.log(JSON.stringify({ directory: server.directory, pid: server.pid }));
    if (${JSON.stringify(end)} === "throw") throw new Error("on purpose");
    if (${JSON.stringify(end)} === "exit") process.exit(7);
    if (${JSON.stringify(end)} !== "return") setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module-typescript", "--eval", program], { stdio: ["ignore", "pipe", "ignore"] });
  const [line] = (await once(createInterface(child.stdout), "line")) as [string];
  return { child, ...(JSON.parse(line) as { directory: string; pid: number }) };
}

function commandOf(pid: number): string {
  const file = `/proc/${pid}/cmdline`;
  return existsSync(file) ? readFileSync(file, "utf8") : "";
}

describe("what tests ask for", () => {
  test("a version that nobody has is named in the skip", async () => {
    await expect(postgresServer({ major: 7 })).rejects.toThrow(ServerUnavailable);
    onTestFinished(() => void vi.unstubAllEnvs());
    const notes: (string | undefined)[] = [];
    const skip = (note?: string): never => {
      notes.push(note);
      throw new Error("skipped");
    };
    vi.stubEnv("DUALRUN_TEST_REQUIRE", "");
    await expect(orSkip({ skip }, postgresServer({ major: 7 }))).rejects.toThrow("skipped");
    expect(notes[0]).toMatch(/^PostgreSQL 7 cannot be had \(.*embedded: is version \d+/);
    vi.stubEnv("DUALRUN_TEST_REQUIRE", "all");
    await expect(orSkip({ skip }, postgresServer({ major: 7 }))).rejects.toThrow(ServerUnavailable);
  });

  test("databases of its own, which go with their slots, sessions and prepared transactions", async (context) => {
    const pair = await orSkip(context, sharedPair());
    const [one, two] = [await pair.fresh("Own databases!"), await pair.fresh("Own databases!")];
    expect(one.source).not.toBe(two.source);
    const name = new URL(one.source).pathname.slice(1);
    expect(name).toMatch(/^own_databases_[0-9a-f]{8}$/);
    await value(one.source, "select pg_create_logical_replication_slot('left_over', 'pgoutput')");
    await withClient(one.source, async (client) => {
      await client.query("begin; create table t (n integer); prepare transaction 'left over'");
    });
    const idle = new pg.Client({ connectionString: one.source });
    idle.on("error", () => {});
    await idle.connect();
    await Promise.all([one.drop(), two.drop()]);
    expect(await value(pair.source.url, `select count(*) from pg_database where datname = '${name}'`)).toBe("0");
    expect(await value(pair.source.url, "select count(*) from pg_replication_slots")).toBe("0");
  });
});

describe("the demo's business", () => {
  let databases: FreshPair | null = null;
  let unavailable: unknown = null;

  beforeAll(async () => {
    try {
      databases = await (await sharedPair()).fresh("demo");
      await withClient(databases.source, async (client) => {
        await createDemoSchema(client, "source");
        await seed(client, { scale: 0.02 });
      });
      await withClient(databases.target, (client) => createDemoSchema(client, "target"));
    } catch (error) {
      unavailable = error;
    }
  }, 60_000);

  afterAll(async () => {
    await databases?.drop();
  });

  function demo(context: { skip(note?: string): never }): Promise<FreshPair> {
    return orSkip(context, databases === null ? Promise.reject(unavailable) : Promise.resolve(databases));
  }

  test("has the same tables on both sides, and triggers on the source only", async (context) => {
    const { source, target } = await demo(context);
    const columns = "select json_agg(json_build_array(table_name, column_name, data_type, is_nullable, is_generated) order by 1, table_name, ordinal_position) from information_schema.columns where table_schema = 'billing'";
    expect(await value(target, columns)).toEqual(await value(source, columns));
    const triggers = "select count(*)::integer from pg_trigger where not tgisinternal";
    expect([await value(source, triggers), await value(target, triggers)]).toEqual([3, 0]);
  });

  test("is seeded with rows in every class, with totals that agree, in every currency", async (context) => {
    const { source } = await demo(context);
    for (const { table } of DEMO_CLASSES) expect(await value(source, `select count(*)::integer from ${table}`), table).toBeGreaterThan(0);
    expect(await value(source, "select count(distinct currency)::integer from billing.payments")).toBe(6);
    expect(await value(source, "select count(*)::integer from billing.customers where pg_column_size(profile) > 4000")).toBeGreaterThan(0);
    expect(await value(source, WRONG_TOTALS)).toBe(0);
  });

  test("is the same after every seeding, and complete in number", async (context) => {
    const pair = await orSkip(context, sharedPair());
    const twins = await pair.fresh("twins");
    const digest = "select md5(string_agg(p::text, '|' order by id)) from billing.payments p";
    const rows = await Promise.all(
      [twins.source, twins.target].map((url) =>
        withClient(url, async (client) => {
          await createDemoSchema(client, "target", { partitioned: url === twins.source });
          return seed(client, { scale: 0.01 });
        }),
      ),
    );
    expect(rows[0]).toBe(rows[1]);
    expect(await value(twins.source, digest)).toBe(await value(twins.target, digest));
    const counted = await Promise.all(DEMO_CLASSES.map(({ table }) => value(twins.source, `select count(*)::integer from ${table}`)));
    expect((counted as number[]).reduce((sum, count) => sum + count, 0)).toBe(rows[0]);
    await twins.drop();
  });

  test("goes on for two seconds with every kind of transaction, at no more than its rate", async (context) => {
    const { source } = await demo(context);
    const before = (await value(source, "select count(*)::integer from billing.audit_log")) as number;
    const workload = await startWorkload(source, { transactionsPerSecond: 250, seed: 7, mix: { keySwap: 400, large: 200 }, largeRows: 500 });
    await sleep(2_000);
    const totals = await workload.stop();
    for (const kind of WORKLOAD_KINDS) expect(totals.kinds[kind], kind).toBeGreaterThan(0);
    expect(totals.committed + totals.rolledBack).toBeLessThanOrEqual(250 * totals.seconds + 1);
    expect(totals.committed).toBeGreaterThan(100);
    expect(totals.rows).toBeGreaterThan(totals.committed);
    expect(((await value(source, "select count(*)::integer from billing.audit_log")) as number) - before).toBeGreaterThanOrEqual(totals.committed);
    expect(await value(source, WRONG_TOTALS)).toBe(0);
    expect(await value(source, "select count(*)::integer from billing.invoices where number like 'TMP%'")).toBe(0);
    expect(await value(source, "select count(*)::integer from billing.invoice_lines where description = 'Never seen'")).toBe(0);
    expect(await value(source, "select count(*)::integer from pg_stat_activity where application_name = 'dualrun-demo-workload'")).toBe(0);
  });

  test("tries again after a serialization failure, and counts it", async (context) => {
    const { source } = await demo(context);
    await execute(source, raising("40001", "random() < 0.2"));
    const workload = await startWorkload(source, { transactionsPerSecond: 200 });
    await sleep(500);
    const totals = await workload.stop();
    await execute(source, "drop function obstacle cascade");
    expect(totals.retried).toBeGreaterThan(0);
    expect(totals.committed).toBeGreaterThan(0);
  });

  test("stops with any other error", async (context) => {
    const { source } = await demo(context);
    await execute(source, raising("22012", "true"));
    const workload = await startWorkload(source);
    await expect(workload.ended).rejects.toMatchObject({ code: "22012" });
    await expect(workload.stop()).rejects.toMatchObject({ code: "22012" });
    await execute(source, "drop function obstacle cascade");
  });

  test("stops when its server goes away", async (context) => {
    await using server = await requireServer(context, { controllable: true });
    const { url } = await server.createDatabase("gone");
    await withClient(url, async (client) => {
      await createDemoSchema(client, "source");
      await seed(client, { scale: 0.001 });
    });
    const workload = await startWorkload(url);
    await sleep(200);
    await server.process?.kill();
    await expect(workload.ended).rejects.toThrow();
    await expect(startWorkload(url)).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });
});

const WRONG_TOTALS = "select count(*)::integer from billing.invoices where total is distinct from (select sum(amount) from billing.invoice_lines where invoice_number = number)";

function raising(code: string, condition: string): string {
  return `
    create function obstacle() returns trigger language plpgsql as $$
    begin
      if ${condition} then raise exception 'an obstacle' using errcode = '${code}'; end if;
      return new;
    end $$;
    create trigger obstacle before insert on billing.audit_log for each row execute function obstacle()`;
}
