/** A daemon between two fresh databases, in this process. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { parseConfig, type Config } from "../../src/config/index.ts";
import { startDaemon, type RunningDaemon } from "../../src/daemon.ts";
import { isEqual, verifyTables } from "../../src/demo/verify.ts";
import type { StatusDocument } from "../../src/core/index.ts";
import { createLogger } from "../../src/telemetry/index.ts";
import { waitFor } from "./daemon.ts";
import type { FreshPair } from "./servers.ts";

/** `sqlite`: every mirror that names no journal of its own has one. What holds without a journal has to hold with it. */
const JOURNAL = process.env["DUALRUN_TEST_JOURNAL"];

/** Test servers run without fsync. */
process.env["DUALRUN_ALLOW_UNSAFE_TARGET"] = "1";

export class TestMirror implements AsyncDisposable {
  readonly source: pg.Client;
  readonly target: pg.Client;
  private readonly pair: FreshPair;
  private readonly directory = mkdtempSync(join(tmpdir(), "dualrun-mirror-"));
  private running: RunningDaemon | null = null;

  private constructor(pair: FreshPair, source: pg.Client, target: pg.Client) {
    this.pair = pair;
    this.source = source;
    this.target = target;
  }

  /** Two databases with the same tables, made by `schema`; `onSource` is for the source alone. */
  static async make(pair: FreshPair, schema: string, onSource = ""): Promise<TestMirror> {
    const [source, target] = await Promise.all([pair.source, pair.target].map(async (connectionString) => {
      const client = new pg.Client({ connectionString });
      client.on("error", () => undefined);
      await client.connect();
      await client.query(schema);
      return client;
    }));
    if (onSource !== "") await source!.query(onSource);
    return new TestMirror(pair, source!, target!);
  }

  get sourceUrl(): string {
    return this.pair.source;
  }

  get daemon(): RunningDaemon {
    if (this.running === null) throw new Error("the mirror was not started");
    return this.running;
  }

  /** Starts with a configuration; `include: ["public.*"]` unless it names classes. */
  async start(config: Readonly<Record<string, unknown>> = {}, options: { readonly truncateTarget?: boolean; readonly tune?: (config: Config) => Config } = {}): Promise<void> {
    const document = {
      migration: "test", timeZone: "UTC",
      source: { engine: "postgres", url: "env:SOURCE" }, target: { engine: "postgres", url: "env:TARGET" },
      ...("classes" in config ? {} : { include: ["public.*"] }), http: { listen: "127.0.0.1:0" },
      ...(JOURNAL === "sqlite" ? { journal: { kind: "sqlite", path: "journal.db" } } : {}), ...config,
    };
    const parsed = parseConfig(JSON.stringify(document), { directory: this.directory, env: { SOURCE: this.pair.source, TARGET: this.pair.target } });
    this.running = await startDaemon((options.tune ?? ((config) => config))(parsed), { truncateTarget: options.truncateTarget === true, logger: createLogger({ level: "fatal" as never, pretty: false }) });
  }

  async streaming(): Promise<void> {
    await this.until(({ phase, state }) => phase === "dual-run" && state === "streaming", "streaming");
  }

  async until(condition: (status: StatusDocument) => boolean, what: string): Promise<StatusDocument> {
    await waitFor(() => Promise.resolve(condition(this.daemon.control.status())), () => `${what}: ${JSON.stringify(this.daemon.control.status(), null, 1)}`, 30_000);
    return this.daemon.control.status();
  }

  /** Runs statements on the source, drains, and returns the status. */
  async apply(...statements: readonly string[]): Promise<StatusDocument> {
    for (const statement of statements) await this.source.query(statement);
    await this.daemon.drain(AbortSignal.timeout(30_000));
    return this.daemon.control.status();
  }

  /** Rows that differ between the two sides, by table; empty when all are equal. */
  async differences(...tables: readonly string[]): Promise<unknown[]> {
    return (await verifyTables(this.pair.source, this.pair.target, tables)).filter((verdict) => !isEqual(verdict));
  }

  async stop(): Promise<void> {
    await this.running?.stop();
    this.running = null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await Promise.allSettled([this.source.end(), this.target.end()]);
    rmSync(this.directory, { recursive: true, force: true });
    await this.pair.drop();
  }
}
