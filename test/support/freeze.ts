/** One database with roles of its own: an application's, and the mirror's without more rights than it asks for. */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { connectPostgresSource, type PostgresSource } from "../../connectors/postgres/source.ts";
import type { Freeze, RecordClass } from "../../src/core/index.ts";
import { sqlState } from "../../connectors/postgres/connection.ts";
import type { TestServer } from "./servers.ts";

/** The migration that the freezes of a stage belong to. */
export const MIGRATION = "freeze-test";

/** A class of a table, `schema.name` or in `public`, whose columns have the same names on both sides. */
export function classOf(source: string, columns: readonly string[] = ["id"], target = source): RecordClass {
  const table = (name: string): { schema: string; name: string } => ({ schema: name.includes(".") ? name.split(".")[0]! : "public", name: name.split(".").at(-1)! });
  return {
    name: source, source: table(source), target: table(target), kind: "record", columns: columns.map((column) => ({ target: column, from: column, map: null, constant: null })), key: ["id"],
    where: null, fullBeforeImage: false, money: [], occurredAt: null, occurredAtZone: null, sensitive: [],
  };
}

/** SQLSTATE that a statement fails with; `ok` when it does not. */
export function outcome(work: Promise<unknown>): Promise<string> {
  return work.then(() => "ok", (error: unknown) => sqlState(error) ?? (error as { code?: string }).code ?? String(error));
}

/** Connects as whom the test likes; whatever it connected is closed, and roles and database are dropped, at the end. */
export class FreezeStage implements AsyncDisposable {
  admin: pg.Client;
  /** Reads and writes all tables; owns none. */
  readonly appUrl: string;
  readonly mirrorUrl: string;
  readonly adminUrl: string;
  readonly appRole: string;
  readonly mirrorRole: string;
  private readonly server: TestServer;
  private readonly drop: () => Promise<void>;
  private readonly open: { end(): Promise<void> }[] = [];
  private readonly sources: PostgresSource[] = [];

  private constructor(server: TestServer, admin: pg.Client, adminUrl: string, drop: () => Promise<void>) {
    const tag = randomBytes(4).toString("hex");
    this.server = server;
    this.admin = admin;
    this.adminUrl = adminUrl;
    this.drop = drop;
    this.appRole = `app_${tag}`;
    this.mirrorRole = `mirror_${tag}`;
    this.appUrl = this.urlOf(this.appRole);
    this.mirrorUrl = this.urlOf(this.mirrorRole);
  }

  static async make(server: TestServer, schema: string): Promise<FreezeStage> {
    const database = await server.createDatabase("freeze");
    const admin = new pg.Client({ connectionString: database.url });
    admin.on("error", () => undefined);
    await admin.connect();
    const stage = new FreezeStage(server, admin, database.url, () => database.drop());
    await admin.query(schema);
    await admin.query(`
      CREATE ROLE ${stage.appRole} LOGIN PASSWORD 'secret'; CREATE ROLE ${stage.mirrorRole} LOGIN PASSWORD 'secret';
      GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO ${stage.appRole}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ${stage.appRole}`);
    return stage;
  }

  get major(): number {
    return this.server.major;
  }

  private urlOf(role: string): string {
    const url = new URL(this.adminUrl);
    url.username = role;
    url.password = "secret";
    return url.href;
  }

  /** After a crash of the server. */
  async reconnect(): Promise<void> {
    this.admin = await this.connect(this.adminUrl);
  }

  async connect(url = this.appUrl, application = "billing batch"): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: url, application_name: application });
    client.on("error", () => undefined);
    await client.connect();
    this.open.push(client);
    return client;
  }

  async source(url = this.adminUrl): Promise<PostgresSource> {
    const source = await connectPostgresSource({ url, tls: { mode: "disable" } }, MIGRATION, null);
    this.sources.push(source);
    return source;
  }

  /** By default with the rights of a superuser. */
  async freezer(epoch = 1n, url = this.adminUrl): Promise<Freeze> {
    return (await this.source(url)).freezer({ name: "test", epoch });
  }

  async count(table: string): Promise<number> {
    return Number((await this.admin.query<{ n: string }>(`SELECT count(*) AS n FROM ${table}`)).rows[0]!.n);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.open.filter((client) => client !== this.admin).map((client) => client.end()));
    await Promise.allSettled(this.sources.map((source) => source[Symbol.asyncDispose]()));
    for (const role of [this.appRole, this.mirrorRole]) await this.admin.query(`DROP OWNED BY ${role}`).catch(() => undefined); // prepared transactions may hold what it owns
    await this.admin.end();
    await this.drop();
    const cluster = new pg.Client({ connectionString: this.server.url });
    await cluster.connect();
    for (const role of [this.appRole, this.mirrorRole]) {
      await cluster.query(`DROP OWNED BY ${role} CASCADE; DROP ROLE ${role}`).catch(() => undefined); // the server goes with the test run anyway
    }
    await cluster.end();
  }
}
