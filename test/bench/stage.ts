/** Two servers, the daemon as a process of its own, and PostgreSQL's own subscription beside it. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import pg from "pg";
import type { ComparisonDocument } from "../../src/core/index.ts";
import { startEmbeddedPostgres, type EmbeddedServer } from "../../src/demo/servers.ts";

const SETTINGS = { max_wal_size: "16GB", shared_buffers: "1GB", checkpoint_timeout: "60min", autovacuum: "off", wal_sender_timeout: "10min" };
const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const SUBSCRIPTION = "contestant";

export class Stage implements AsyncDisposable {
  readonly source: EmbeddedServer;
  readonly target: EmbeddedServer;
  readonly onSource: pg.Client;
  /** The mirror's target database. */
  readonly onTarget: pg.Client;
  /** The subscription's target database, on the same server. */
  readonly onRival: pg.Client;
  private readonly directory: string;

  private constructor(source: EmbeddedServer, target: EmbeddedServer, clients: readonly [pg.Client, pg.Client, pg.Client], directory: string) {
    this.source = source;
    this.target = target;
    [this.onSource, this.onTarget, this.onRival] = clients;
    this.directory = directory;
  }

  static async open(): Promise<Stage> {
    const [source, target] = await Promise.all([startEmbeddedPostgres({ settings: SETTINGS }), startEmbeddedPostgres({ settings: SETTINGS })]);
    const onTarget = await connect(target.url);
    await onTarget.query("CREATE DATABASE rival");
    const clients = [await connect(source.url), onTarget, await connect(databaseUrl(target.url, "rival"))] as const;
    return new Stage(source, target, clients, await mkdtemp(join(tmpdir(), "dualrun-bench-")));
  }

  get rivalUrl(): string {
    return databaseUrl(this.target.url, "rival");
  }

  /** Runs DDL on all three databases. */
  async everywhere(sql: string): Promise<void> {
    for (const client of [this.onSource, this.onTarget, this.onRival]) await client.query(sql);
  }

  async checkpoint(): Promise<void> {
    await this.onSource.query("CHECKPOINT");
    await this.onTarget.query("CHECKPOINT");
  }

  /** Mirrors into the mirror's database, or into the rival's where two mirrors are compared. */
  async startDaemon(migration: string, tables: readonly string[], more: Readonly<Record<string, unknown>> = {}, into: "mirror" | "rival" = "mirror"): Promise<BenchDaemon> {
    const file = join(this.directory, `${migration}.yaml`);
    const side = (url: string): object => ({ engine: "postgres", url });
    await writeFile(file, JSON.stringify({
      migration, timeZone: "UTC", source: side("env:BENCH_SOURCE"), target: side("env:BENCH_TARGET"),
      classes: tables.map((table) => ({ name: table, source: `public.${table}` })), http: { listen: "127.0.0.1:0" }, log: { level: "info" }, ...more,
    }));
    const [url, client] = into === "mirror" ? [this.target.url, this.onTarget] : [this.rivalUrl, this.onRival];
    return BenchDaemon.start(file, migration, { BENCH_SOURCE: this.source.url, BENCH_TARGET: url }, this.onSource, client);
  }

  /** A disabled subscription whose slot exists: what it misses is its backlog. */
  async subscribe(tables: readonly string[], enabled = false): Promise<void> {
    await this.onSource.query(`CREATE PUBLICATION ${SUBSCRIPTION} FOR TABLE ${tables.join(", ")}`);
    await this.onSource.query(`SELECT pg_create_logical_replication_slot('${SUBSCRIPTION}', 'pgoutput')`);
    await this.onRival.query(`CREATE SUBSCRIPTION ${SUBSCRIPTION} CONNECTION '${this.source.url}' PUBLICATION ${SUBSCRIPTION}
      WITH (create_slot = false, copy_data = false, enabled = ${enabled})`);
  }

  async unsubscribe(): Promise<void> {
    await this.onRival.query(`ALTER SUBSCRIPTION ${SUBSCRIPTION} DISABLE`);
    await this.onRival.query(`ALTER SUBSCRIPTION ${SUBSCRIPTION} SET (slot_name = NONE)`);
    await this.onRival.query(`DROP SUBSCRIPTION ${SUBSCRIPTION}`);
    await until(async () => (await this.onSource.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND active", [SUBSCRIPTION])).rowCount === 0);
    await this.onSource.query(`SELECT pg_drop_replication_slot('${SUBSCRIPTION}')`);
    await this.onSource.query(`DROP PUBLICATION ${SUBSCRIPTION}`);
  }

  /** Milliseconds from enabling the subscription until it has applied everything that is in the log now. */
  async subscriptionCatchUp(): Promise<number> {
    const { rows } = await this.onSource.query<{ lsn: string }>("SELECT pg_current_wal_insert_lsn()::text AS lsn");
    const started = performance.now();
    await this.onRival.query(`ALTER SUBSCRIPTION ${SUBSCRIPTION} ENABLE`);
    await this.onSource.query("SELECT pg_logical_emit_message(true, 'bench', '')");
    await until(async () => (await this.onSource.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn >= $2", [SUBSCRIPTION, rows[0]!.lsn])).rowCount === 1);
    const elapsed = performance.now() - started;
    await this.onRival.query(`ALTER SUBSCRIPTION ${SUBSCRIPTION} DISABLE`);
    await until(async () => (await this.onSource.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND active", [SUBSCRIPTION])).rowCount === 0);
    return elapsed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled([this.onSource.end(), this.onTarget.end(), this.onRival.end()]);
    await Promise.allSettled([this.source[Symbol.asyncDispose](), this.target[Symbol.asyncDispose]()]);
    await rm(this.directory, { recursive: true, force: true });
  }
}

export class BenchDaemon implements AsyncDisposable {
  private readonly child: ChildProcess;
  private readonly address: string;
  private readonly migration: string;
  private readonly onSource: pg.Client;
  private readonly onTarget: pg.Client;

  private constructor(child: ChildProcess, address: string, migration: string, onSource: pg.Client, onTarget: pg.Client) {
    this.child = child;
    this.address = address;
    this.migration = migration;
    this.onSource = onSource;
    this.onTarget = onTarget;
  }

  static async start(file: string, migration: string, env: Readonly<Record<string, string>>, onSource: pg.Client, onTarget: pg.Client): Promise<BenchDaemon> {
    const child = spawn(process.execPath, [MAIN, "run", "-c", file], { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    child.stdout!.on("data", (chunk: Buffer) => (output += chunk.toString()));
    await until(() => Promise.resolve(child.exitCode !== null || /http:\/\/[0-9.:]+/.test(output)));
    const address = /http:\/\/[0-9.:]+/.exec(output)?.[0];
    if (address === undefined) throw new Error(`the daemon did not start: ${output}`);
    return new BenchDaemon(child, address, migration, onSource, onTarget);
  }

  async post(path: string): Promise<void> {
    const response = await fetch(`${this.address}/api/v1/${path}`, { method: "POST" });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  }

  /** A comparison, as its document tells of it. */
  async compare(full: boolean): Promise<ComparisonDocument> {
    const begun = await fetch(`${this.address}/api/v1/comparisons`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ full }) });
    const { id } = (await begun.json()) as { id: string };
    while (true) {
      const document = (await (await fetch(`${this.address}/api/v1/comparisons/${id}`)).json()) as ComparisonDocument;
      if (document.finishedAt !== null) return document;
      await sleep(50);
    }
  }

  async status(): Promise<{ state: string; phase: string; lagSeconds: number | null }> {
    return (await (await fetch(`${this.address}/api/v1/status`)).json()) as never;
  }

  async pause(): Promise<void> {
    await this.post("pause");
    await until(async () => (await this.status()).state === "paused");
  }

  async streaming(): Promise<void> {
    await until(async () => (await this.status()).phase === "dual-run");
  }

  /** Milliseconds from `resume` until everything that is in the log now stands on the target. */
  async catchUp(): Promise<number> {
    const { rows } = await this.onSource.query<{ lsn: string }>("SELECT pg_current_wal_insert_lsn()::text AS lsn");
    const started = performance.now();
    await this.post("resume");
    await this.reached(rows[0]!.lsn);
    return performance.now() - started;
  }

  /** The process stands still: not even a journal takes anything in. */
  suspend(): void {
    this.child.kill("SIGSTOP");
  }

  /** Milliseconds from the end of `suspend` until everything that is in the log now stands on the target. */
  async catchUpSuspended(): Promise<number> {
    const { rows } = await this.onSource.query<{ lsn: string }>("SELECT pg_current_wal_insert_lsn()::text AS lsn");
    const started = performance.now();
    this.child.kill("SIGCONT");
    await this.reached(rows[0]!.lsn);
    return performance.now() - started;
  }

  /** Until everything that is in the log now stands on the target. */
  async drained(): Promise<void> {
    const { rows } = await this.onSource.query<{ lsn: string }>("SELECT pg_current_wal_insert_lsn()::text AS lsn");
    await this.reached(rows[0]!.lsn);
  }

  /** Peak resident memory in MiB. */
  async peakMemory(): Promise<number> {
    const status = await readFile(`/proc/${this.child.pid}/status`, "utf8");
    return Number(/VmHWM:\s+(\d+)/.exec(status)![1]) / 1024;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill("SIGTERM");
    await until(() => Promise.resolve(this.child.exitCode !== null || this.child.signalCode !== null));
    const slot = `dualrun_${this.migration.replaceAll("-", "_")}`;
    await until(async () => (await this.onSource.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND active", [slot])).rowCount === 0);
    await this.onSource.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", [slot]);
    await this.onSource.query(`DROP PUBLICATION IF EXISTS ${slot}`);
    await this.onTarget.query("DROP SCHEMA dualrun CASCADE");
  }

  private async reached(lsn: string): Promise<void> {
    await this.onSource.query("SELECT pg_logical_emit_message(true, 'dualrun', 'bench')");
    await until(async () => (await this.onTarget.query("SELECT 1 FROM dualrun.checkpoints WHERE stream = $1 AND position::pg_lsn >= $2::pg_lsn", [this.migration, lsn])).rowCount === 1);
  }
}

export async function connect(connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  return client;
}

export async function until(condition: () => Promise<boolean>, everyMs = 10): Promise<void> {
  while (!(await condition())) await sleep(everyMs);
}

function databaseUrl(address: string, database: string): string {
  const url = new URL(address);
  url.pathname = `/${database}`;
  return url.toString();
}
