/** A daemon from MySQL or MariaDB to PostgreSQL, between two fresh databases, in this process. */
import pg from "pg";
import type { Connection } from "mariadb";
import { parseConfig } from "../../src/config/index.ts";
import { startDaemon, type RunningDaemon } from "../../src/daemon.ts";
import type { StatusDocument } from "../../src/core/index.ts";
import { createLogger } from "../../src/telemetry/index.ts";
import { waitFor } from "./daemon.ts";
import { connectMysql, sharedMysql, type MysqlRequest } from "./mysql.ts";
import { orSkip, sharedPair, type Skippable, type TestDatabase } from "./servers.ts";

process.env["DUALRUN_ALLOW_UNSAFE_TARGET"] = "1";

export class CrossMirror implements AsyncDisposable {
  readonly source: Connection;
  readonly target: pg.Client;
  /** The database's name on the source. */
  readonly schema: string;
  private readonly engine: "mysql" | "mariadb";
  private readonly databases: readonly TestDatabase[];
  private running: RunningDaemon | null = null;

  private constructor(source: Connection, target: pg.Client, engine: "mysql" | "mariadb", databases: readonly TestDatabase[]) {
    this.source = source;
    this.target = target;
    this.engine = engine;
    this.databases = databases;
    this.schema = databases[0]!.name;
  }

  /** Statements are separated by semicolons at a line's end. */
  static async make(context: Skippable, request: MysqlRequest, onSource: string, onTarget: string): Promise<CrossMirror> {
    const [server, pair] = [await orSkip(context, sharedMysql(request)), await orSkip(context, sharedPair())];
    const [from, to] = [await server.createDatabase("cross"), await pair.target.createDatabase("cross")];
    const source = await connectMysql(from.url);
    await source.query("SET SESSION time_zone = '+00:00', sql_mode = ''");
    for (const statement of onSource.split(/;\s*\n/).map((one) => one.trim()).filter(Boolean)) await source.query(statement);
    const target = new pg.Client({ connectionString: to.url });
    target.on("error", () => undefined);
    await target.connect();
    await target.query(onTarget);
    return new CrossMirror(source, target, server.engine, [from, to]);
  }

  get sourceUrl(): string {
    return this.databases[0]!.url;
  }

  get daemon(): RunningDaemon {
    if (this.running === null) throw new Error("the mirror was not started");
    return this.running;
  }

  async start(config: Readonly<Record<string, unknown>>, options: { readonly truncateTarget?: boolean } = {}): Promise<void> {
    const [from, to] = this.databases.map(({ url }) => url);
    const document = {
      migration: "cross", timeZone: "UTC", source: { engine: this.engine, url: "env:SOURCE" }, target: { engine: "postgres", url: "env:TARGET" },
      http: { listen: "127.0.0.1:0" }, ...config,
    };
    const parsed = parseConfig(JSON.stringify(document), { directory: ".", env: { SOURCE: from!, TARGET: to! } });
    this.running = await startDaemon(parsed, { truncateTarget: options.truncateTarget === true, logger: createLogger({ level: (process.env["DUALRUN_TEST_LOG"] ?? "fatal") as never, pretty: false }) });
  }

  /** Classes of tables that have the same names on both sides, in `public` there. */
  tables(...names: readonly string[]): { readonly source: string; readonly target: string; readonly name: string }[] {
    return names.map((name) => ({ name, source: `${this.schema}.${name}`, target: `public.${name}` }));
  }

  async until(condition: (status: StatusDocument) => boolean, what: string): Promise<StatusDocument> {
    await waitFor(() => Promise.resolve(condition(this.daemon.control.status())), () => `${what}: ${JSON.stringify(this.daemon.control.status(), null, 1)}`, 30_000);
    return this.daemon.control.status();
  }

  async streaming(): Promise<void> {
    await this.until(({ phase, state }) => phase === "dual-run" && state === "streaming", "streaming");
  }

  async apply(...statements: readonly string[]): Promise<StatusDocument> {
    for (const statement of statements) await this.source.query(statement);
    await this.daemon.drain(AbortSignal.timeout(30_000));
    return this.daemon.control.status();
  }

  async stop(): Promise<void> {
    await this.running?.stop();
    this.running = null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await Promise.allSettled([this.source.end(), this.target.end()]);
    await Promise.allSettled(this.databases.map((database) => database.drop()));
  }
}
