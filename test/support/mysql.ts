/**
 * MySQL and MariaDB for tests, from whatever this machine has: an address in the environment, binaries on PATH,
 * Docker, Debian's packages in a cache directory.
 *
 * DUALRUN_TEST_MYSQL_URL, DUALRUN_TEST_MARIADB_URL   address of a user who may do everything
 * DUALRUN_TEST_MYSQL                                 env | path | docker | packages: from there only
 * DUALRUN_TEST_REQUIRE                               see servers.ts; MySQL 8.0 and 8.4 count as images
 */
import { randomBytes } from "node:crypto";
import { type Connection, createConnection } from "mariadb";
import { engineOf, fits, installedBinaries, type MysqlBinaries, type MysqlFlavour, unpackedBinaries } from "../../src/demo/mysql-binaries.ts";
import { type MysqlServer, mysqlSettings, startMysql } from "../../src/demo/mysql-servers.ts";
import { databaseName, orSkip, ServerUnavailable, type Skippable, type TestDatabase } from "./servers.ts";

export interface MysqlRequest {
  readonly flavour: MysqlFlavour;
  readonly settings?: Readonly<Record<string, string>>;
  /** Safe in a crash of the machine too; off by default, for speed. */
  readonly durable?: boolean;
  /** The test stops or starts it: the server has to be ours, and `process` is there. */
  readonly controllable?: boolean;
}

export type MysqlKind = "env" | "path" | "docker" | "packages";

export interface TestMysql extends AsyncDisposable {
  readonly kind: MysqlKind;
  readonly flavour: MysqlFlavour;
  readonly engine: "mysql" | "mariadb";
  /** Address of a user who may do everything, without a database. */
  readonly url: string;
  /** Null when the server is not ours to stop. */
  readonly process: MysqlServer | null;
  /** An empty database whose name begins with `label`. */
  createDatabase(label: string): Promise<TestDatabase>;
}

/** Servers that were started together, in the order of the requests. */
export interface MysqlServers extends AsyncDisposable {
  readonly all: readonly TestMysql[];
}

/** @throws ServerUnavailable */
export async function mysqlServer(request: MysqlRequest): Promise<TestMysql> {
  const reasons: string[] = [];
  for (const kind of candidates(request)) {
    try {
      return await providers[kind](request);
    } catch (error) {
      if (!(error instanceof ServerUnavailable)) throw error;
      reasons.push(`${kind}: ${error.message}`);
    }
  }
  throw new ServerUnavailable(`${request.flavour} cannot be had (${reasons.join("; ")})`, { isImage: isImageOnly(request.flavour) });
}

/** All of them or none. @throws ServerUnavailable */
export async function mysqlServers(requests: readonly MysqlRequest[]): Promise<MysqlServers> {
  const started = await Promise.allSettled(requests.map(mysqlServer));
  const all = started.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
  const end = async (): Promise<void> => void (await Promise.all(all.map((server) => server[Symbol.asyncDispose]())));
  const failed = started.find((result) => result.status === "rejected");
  if (failed === undefined) return { all, [Symbol.asyncDispose]: end };
  await end();
  throw failed.reason;
}

/** A server for this one test, which is skipped by name without it: `await using server = await requireMysql(ctx, { flavour: "mysql-9.7" })`. */
export function requireMysql(context: Skippable, request: MysqlRequest): Promise<TestMysql> {
  return orSkip(context, mysqlServer(request));
}

/** Servers for this one test, started at the same time: `await using servers = await requireMysqls(ctx, …); const [source, target] = servers.all`. */
export function requireMysqls(context: Skippable, ...requests: readonly MysqlRequest[]): Promise<MysqlServers> {
  return orSkip(context, mysqlServers(requests));
}

const SHARED = Symbol.for("dualrun.test.mysql");

/** A server that lives as long as this vitest worker; every caller takes databases of its own from it with `createDatabase`. */
export function sharedMysql(request: MysqlRequest): Promise<TestMysql> {
  const store = globalThis as { [SHARED]?: Map<string, Promise<TestMysql>> };
  const servers = (store[SHARED] ??= new Map());
  const key = JSON.stringify(request);
  const server = servers.get(key) ?? mysqlServer(request);
  servers.set(key, server);
  return server;
}

// ---- SQL ---------------------------------------------------------------------------------------------------------

export type MysqlRow = Readonly<Record<string, unknown>>;

/** A connection to an address such as those above. */
export function connectMysql(url: string): Promise<Connection> {
  const { hostname, port, username, password, pathname } = new URL(url);
  return createConnection({
    host: hostname,
    port: Number(port),
    user: decodeURIComponent(username),
    password: decodeURIComponent(password),
    ...(pathname.length > 1 ? { database: decodeURIComponent(pathname.slice(1)) } : {}),
    allowPublicKeyRetrieval: true,
    bigIntAsNumber: true,
    dateStrings: true,
  });
}

/** The rows of one statement, on a connection of its own. */
export async function mysqlRows(url: string, sql: string, values: readonly unknown[] = []): Promise<MysqlRow[]> {
  const connection = await connectMysql(url);
  try {
    return await connection.query<MysqlRow[]>(sql, values);
  } finally {
    await connection.end();
  }
}

/** The first column of the first row. */
export async function mysqlValue(url: string, sql: string, values: readonly unknown[] = []): Promise<unknown> {
  return Object.values((await mysqlRows(url, sql, values))[0] ?? {})[0];
}

// ---- replication -------------------------------------------------------------------------------------------------

/** Makes `replica` follow `source`, of the same engine, by GTID from the beginning. */
export async function follow(source: TestMysql, replica: TestMysql): Promise<void> {
  const { hostname, port, username, password } = new URL(source.url);
  const change =
    source.engine === "mysql"
      ? "CHANGE REPLICATION SOURCE TO SOURCE_HOST = ?, SOURCE_PORT = ?, SOURCE_USER = ?, SOURCE_PASSWORD = ?, SOURCE_AUTO_POSITION = 1, SOURCE_CONNECT_RETRY = 1, GET_SOURCE_PUBLIC_KEY = 1"
      : "CHANGE MASTER TO MASTER_HOST = ?, MASTER_PORT = ?, MASTER_USER = ?, MASTER_PASSWORD = ?, MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1";
  await mysqlRows(replica.url, change, [hostname, Number(port), username, password]);
  await mysqlRows(replica.url, "START REPLICA");
}

/** Waits until `replica` has executed all that `source` has committed by now; false after `seconds`. */
export async function caughtUp(source: TestMysql, replica: TestMysql, seconds = 30): Promise<boolean> {
  const position = await mysqlValue(source.url, source.engine === "mysql" ? "SELECT @@GLOBAL.gtid_executed" : "SELECT @@GLOBAL.gtid_binlog_pos");
  const wait = source.engine === "mysql" ? "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, ?)" : "SELECT MASTER_GTID_WAIT(?, ?)";
  return (await mysqlValue(replica.url, wait, [position, seconds])) === 0;
}

// ---- where servers come from -------------------------------------------------------------------------------------

const providers: Record<MysqlKind, (request: MysqlRequest) => Promise<TestMysql>> = {
  env: fromEnvironment,
  path: async (request) => fromBinaries("path", await onPath(request.flavour), request),
  docker: fromDocker,
  packages: async (request) => fromBinaries("packages", await unpacked(request.flavour), request),
};

function candidates(request: MysqlRequest): readonly MysqlKind[] {
  const chosen = process.env["DUALRUN_TEST_MYSQL"];
  if (chosen !== undefined && !(chosen in providers)) throw new Error(`DUALRUN_TEST_MYSQL is ${chosen}; allowed: ${Object.keys(providers).join(", ")}`);
  if (chosen !== undefined) return [chosen as MysqlKind];
  return process.env[variable(request.flavour)] === undefined ? ["path", "docker", "packages"] : ["env", "path", "docker", "packages"];
}

function variable(flavour: MysqlFlavour): string {
  return engineOf(flavour) === "mysql" ? "DUALRUN_TEST_MYSQL_URL" : "DUALRUN_TEST_MARIADB_URL";
}

function isImageOnly(flavour: MysqlFlavour): boolean {
  return flavour === "mysql-8.0" || flavour === "mysql-8.4";
}

async function onPath(flavour: MysqlFlavour): Promise<MysqlBinaries> {
  const binaries = await installedBinaries(flavour);
  if (binaries === null) throw new ServerUnavailable(`no ${flavour} on PATH`);
  return binaries;
}

function unpacked(flavour: MysqlFlavour): Promise<MysqlBinaries> {
  return unpackedBinaries(flavour).catch((error: unknown) => {
    throw new ServerUnavailable(reason(error), { cause: error });
  });
}

async function fromBinaries(kind: "path" | "packages", binaries: MysqlBinaries, { flavour, settings, durable }: MysqlRequest): Promise<TestMysql> {
  const server = await startMysql({ flavour, binaries, settings: settings ?? {}, durable: durable === true });
  return testMysql(kind, flavour, server.url, server, async () => server[Symbol.asyncDispose]());
}

const DEMANDED = { log_bin: "ON", binlog_format: "ROW", binlog_row_image: "FULL", binlog_row_metadata: "FULL" };
const DEMANDED_DURABLE = { innodb_flush_log_at_trx_commit: "1", sync_binlog: "1" };

async function fromEnvironment({ flavour, settings, durable, controllable }: MysqlRequest): Promise<TestMysql> {
  const name = variable(flavour);
  const url = process.env[name];
  if (url === undefined) throw new ServerUnavailable(`${name} is not set`);
  if (controllable === true) throw new ServerUnavailable("a server that is not ours cannot be stopped");
  const facts = await variablesOf(url, name);
  if (!fits(flavour, facts["version"] ?? "")) throw new ServerUnavailable(`${name} is version ${facts["version"]}`);
  const demanded = { ...DEMANDED, ...(durable === true ? DEMANDED_DURABLE : {}), ...settings };
  const differing = Object.entries(demanded).filter(([setting, value]) => facts[setting] !== value);
  if (differing.length > 0) throw new ServerUnavailable(`${name} differs in ${differing.map(([setting]) => setting).join(", ")}`);
  return testMysql("env", flavour, url, null, async () => {});
}

async function variablesOf(url: string, name: string): Promise<Record<string, string>> {
  try {
    const rows = await mysqlRows(url, "SHOW GLOBAL VARIABLES");
    return Object.fromEntries(rows.map((row) => Object.values(row).map(String)));
  } catch (error) {
    throw new ServerUnavailable(`${name} cannot be reached (${reason(error)})`, { cause: error });
  }
}

async function fromDocker({ flavour, settings, durable, controllable }: MysqlRequest): Promise<TestMysql> {
  if (controllable === true) throw new ServerUnavailable("a container's port changes when it is started again");
  const { GenericContainer, getContainerRuntimeClient, ImageName, Wait } = await import("testcontainers");
  const runtime = await getContainerRuntimeClient().catch((error: unknown) => {
    throw new ServerUnavailable("no Docker engine", { cause: error });
  });
  const image = flavour.replace("-", ":");
  await runtime.image.pull(ImageName.fromString(image)).catch((error: unknown) => {
    throw new ServerUnavailable(`image ${image} cannot be pulled`, { cause: error });
  });
  const engine = engineOf(flavour);
  const options = { server_id: "1", ...mysqlSettings(engine, durable === true), ...settings };
  const password = randomBytes(12).toString("hex");
  const container = await new GenericContainer(image)
    .withEnvironment({ [`${engine.toUpperCase()}_ROOT_PASSWORD`]: password, [`${engine.toUpperCase()}_ROOT_HOST`]: "%" })
    .withCommand(Object.entries(options).map(([name, value]) => `--${name}=${value}`))
    .withExposedPorts(3306)
    .withWaitStrategy(Wait.forLogMessage(/port: 3306\b/))
    .start();
  const url = `mysql://root:${password}@${container.getHost()}:${container.getMappedPort(3306)}/`;
  return testMysql("docker", flavour, url, null, async () => {
    await container.stop();
  });
}

function testMysql(kind: MysqlKind, flavour: MysqlFlavour, url: string, own: MysqlServer | null, dispose: () => Promise<void>): TestMysql {
  return { kind, flavour, engine: engineOf(flavour), url, process: own, createDatabase: (label) => createDatabase(url, databaseName(label)), [Symbol.asyncDispose]: dispose };
}

async function createDatabase(adminUrl: string, name: string): Promise<TestDatabase> {
  await mysqlRows(adminUrl, `CREATE DATABASE ${name}`);
  const url = new URL(adminUrl);
  url.pathname = `/${name}`;
  return { name, url: url.href, drop: async () => void (await mysqlRows(adminUrl, `DROP DATABASE ${name}`)) };
}

function reason(error: unknown): string {
  const details = (error as { details?: readonly string[] }).details ?? [];
  return [error instanceof Error ? error.message : String(error), ...details].join(" ");
}
