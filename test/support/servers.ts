/**
 * Databases for tests, from whatever this machine has: an address in the environment, the npm package's binaries,
 * binaries on PATH or under /usr/lib/postgresql, Docker.
 *
 * DUALRUN_TEST_POSTGRES         env | embedded | path | docker: which to use where a test asks for no major version
 * DUALRUN_TEST_POSTGRES_URL     superuser address of a server with wal_level = logical (and …_TARGET_URL of another, for pairs)
 * DUALRUN_TEST_REQUIRE=all      a server that cannot be had fails the test; otherwise it is a skip that says why
 *                     =images   those too that only a container image brings; =servers: not programs that only an administrator can install
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe } from "vitest";

import { binaryVersion, binDirectoryOnPath, type EmbeddedServer, startEmbeddedPostgres } from "../../src/demo/servers.ts";

export interface ServerRequest {
  /** For example 15; default: whichever comes first, normally the npm package's 18. */
  readonly major?: number;
  /** With fsync and full page writes; off by default, for speed. */
  readonly durable?: boolean;
  readonly settings?: Readonly<Record<string, string>>;
  /** The test stops, starts or kills it: the server has to be ours, and `process` is there. */
  readonly controllable?: boolean;
}

export type ServerKind = "env" | "embedded" | "path" | "docker";

export interface TestDatabase {
  readonly name: string;
  readonly url: string;
  /** Ends its connections, slots and prepared transactions too. */
  drop(): Promise<void>;
}

export interface TestServer extends AsyncDisposable {
  readonly kind: ServerKind;
  /** Superuser address of an administrative database. */
  readonly url: string;
  readonly major: number;
  /** Null when the server is not ours to stop. */
  readonly process: EmbeddedServer | null;
  /** An empty database whose name begins with `label`. */
  createDatabase(label: string): Promise<TestDatabase>;
}

export interface TestPair extends AsyncDisposable {
  readonly source: TestServer;
  readonly target: TestServer;
  /** Empty databases on both, of the same name. */
  fresh(label: string): Promise<FreshPair>;
}

export interface FreshPair {
  readonly source: string;
  readonly target: string;
  drop(): Promise<void>;
}

/** No server fits the request; the message says what was tried. */
export class ServerUnavailable extends Error {
  override readonly name = "ServerUnavailable";
  readonly isProgram: boolean;
  /** Only a container image would do. */
  readonly isImage: boolean;

  constructor(message: string, options: ErrorOptions & { readonly isProgram?: boolean; readonly isImage?: boolean } = {}) {
    super(message, options);
    this.isProgram = options.isProgram === true;
    this.isImage = options.isImage === true;
  }
}

/** @throws ServerUnavailable */
export function postgresServer(request: ServerRequest = {}): Promise<TestServer> {
  return firstAvailable(request, "source");
}

/** Two servers of the same kind. @throws ServerUnavailable */
export async function postgresPair(request: ServerRequest = {}): Promise<TestPair> {
  const started = await Promise.allSettled([firstAvailable(request, "source"), firstAvailable(request, "target")]);
  const [source, target] = started.map((result) => (result.status === "fulfilled" ? result.value : null));
  if (source && target) return pairOf(source, target);
  await source?.[Symbol.asyncDispose]();
  await target?.[Symbol.asyncDispose]();
  throw started.find((result) => result.status === "rejected")?.reason;
}

const PAIRS = Symbol.for("dualrun.test.pairs");

/** A pair that lives as long as this vitest worker; every caller takes databases of its own from it with `fresh`. */
export function sharedPair(request: ServerRequest = {}): Promise<TestPair> {
  const store = globalThis as { [PAIRS]?: Map<string, Promise<TestPair>> };
  const pairs = (store[PAIRS] ??= new Map());
  const key = JSON.stringify(request);
  const existing = pairs.get(key);
  if (existing !== undefined) return existing;
  const pair = postgresPair(request);
  pairs.set(key, pair);
  return pair;
}

/** The context of a test. */
export interface Skippable {
  skip(note?: string): never;
}

/** What was asked for, or a skip of this test that says why: `const pair = await orSkip(ctx, sharedPair())`. */
export async function orSkip<T>(context: Skippable, resource: Promise<T>): Promise<T> {
  try {
    return await resource;
  } catch (error) {
    if (error instanceof ServerUnavailable && !isRequired(error)) return context.skip(error.message);
    throw error;
  }
}

/** `images`: whatever a test asks for. `all`: no images. `servers`: databases only, no programs that an administrator has to install. */
function isRequired({ isProgram, isImage }: ServerUnavailable): boolean {
  const required = process.env["DUALRUN_TEST_REQUIRE"];
  return required === "images" || (!isImage && (required === "all" || (required === "servers" && !isProgram)));
}

/** A server for this one test; the caller disposes of it (`await using`). */
export function requireServer(context: Skippable, request: ServerRequest = {}): Promise<TestServer> {
  return orSkip(context, postgresServer(request));
}

/** A suite with one server; each of its tests is skipped by name if the server cannot be had. */
export function describeWith(request: ServerRequest, title: string, body: (server: () => TestServer) => void): void {
  describe(title, () => {
    let pending: Promise<TestServer> | null = null;
    let server: TestServer | null = null;
    beforeAll(async () => {
      pending = postgresServer(request);
      server = await pending.catch(() => null);
    }, 60_000);
    beforeEach(async (context) => {
      if (pending !== null) await orSkip(context, pending);
    });
    afterAll(async () => {
      await server?.[Symbol.asyncDispose]();
    });
    body(() => {
      if (server === null) throw new Error("the server is there within a test only");
      return server;
    });
  });
}

// ---- where servers come from -------------------------------------------------------------------------------------

type Role = "source" | "target";

const providers: Record<ServerKind, (request: ServerRequest, role: Role) => Promise<TestServer>> = {
  env: fromEnvironment,
  embedded: (request) => fromBinaries("embedded", undefined, request),
  path: async (request) => fromBinaries("path", await installedBinaries(request.major), request),
  docker: fromDocker,
};

async function firstAvailable(request: ServerRequest, role: Role): Promise<TestServer> {
  const reasons: string[] = [];
  for (const kind of candidates(request)) {
    try {
      return await providers[kind](request, role);
    } catch (error) {
      if (!(error instanceof ServerUnavailable)) throw error;
      reasons.push(`${kind}: ${error.message}`);
    }
  }
  throw new ServerUnavailable(`PostgreSQL${request.major === undefined ? "" : ` ${request.major}`} cannot be had (${reasons.join("; ")})`);
}

function candidates(request: ServerRequest): ServerKind[] {
  const chosen = process.env["DUALRUN_TEST_POSTGRES"];
  if (chosen !== undefined && !(chosen in providers)) throw new Error(`DUALRUN_TEST_POSTGRES is ${chosen}; allowed: ${Object.keys(providers).join(", ")}`);
  const all: ServerKind[] = process.env["DUALRUN_TEST_POSTGRES_URL"] === undefined ? ["embedded", "path", "docker"] : ["env", "embedded", "path", "docker"];
  if (chosen === undefined) return all;
  return request.major === undefined ? [chosen as ServerKind] : [...new Set([chosen as ServerKind, ...all])];
}

function wantedSettings(request: ServerRequest): Record<string, string> {
  const fast = { fsync: "off", full_page_writes: "off" };
  return { ...(request.durable === true ? { fsync: "on", full_page_writes: "on" } : fast), ...request.settings };
}

async function fromBinaries(kind: "embedded" | "path", binDirectory: string | undefined, request: ServerRequest): Promise<TestServer> {
  const binaries = binDirectory === undefined ? {} : { binDirectory };
  const version = await binaryVersion(binaries).catch((error: unknown) => {
    throw new ServerUnavailable(error instanceof Error ? error.message : String(error), { cause: error });
  });
  demandMajor(Number.parseInt(version, 10), request);
  const server = await startEmbeddedPostgres({ ...binaries, settings: wantedSettings(request) });
  return testServer(kind, server.url, server.major, server, async () => server[Symbol.asyncDispose]());
}

/** The version that is asked for where Debian puts it, otherwise what PATH leads to. */
async function installedBinaries(major: number | undefined): Promise<string> {
  const packaged = `/usr/lib/postgresql/${major}/bin`;
  const found = existsSync(`${packaged}/postgres`) ? packaged : await binDirectoryOnPath();
  if (found === null) throw new ServerUnavailable("no postgres on PATH");
  return found;
}

async function fromEnvironment(request: ServerRequest, role: Role): Promise<TestServer> {
  const name = role === "source" ? "DUALRUN_TEST_POSTGRES_URL" : "DUALRUN_TEST_POSTGRES_TARGET_URL";
  const url = process.env[name];
  if (url === undefined) throw new ServerUnavailable(`${name} is not set`);
  if (request.controllable === true) throw new ServerUnavailable("a server that is not ours cannot be stopped");
  const facts = await settingsOf(url, name);
  const major = Math.floor(Number(facts["server_version_num"]) / 10_000);
  demandMajor(major, request);
  const demanded = { wal_level: "logical", ...(request.durable === true ? { fsync: "on" } : {}), ...request.settings };
  const differing = Object.entries(demanded).filter(([setting, value]) => facts[setting] !== value);
  if (differing.length > 0) throw new ServerUnavailable(`${name} differs in ${differing.map(([setting]) => setting).join(", ")}`);
  return testServer("env", url, major, null, async () => {});
}

async function settingsOf(url: string, name: string): Promise<Record<string, string>> {
  try {
    const { rows } = await query<{ name: string; setting: string }>(url, "select name, current_setting(name) as setting from pg_settings");
    return Object.fromEntries(rows.map((row) => [row.name, row.setting]));
  } catch (error) {
    throw new ServerUnavailable(`${name} cannot be reached (${error instanceof Error ? error.message : String(error)})`, { cause: error });
  }
}

async function fromDocker(request: ServerRequest): Promise<TestServer> {
  if (request.controllable === true) throw new ServerUnavailable("a container's port changes when it is started again");
  const { GenericContainer, getContainerRuntimeClient, ImageName, Wait } = await import("testcontainers");
  const engine = await getContainerRuntimeClient().catch((error: unknown) => {
    throw new ServerUnavailable("no Docker engine", { cause: error });
  });
  const settings = { wal_level: "logical", max_wal_senders: "20", max_replication_slots: "20", max_prepared_transactions: "20", ...wantedSettings(request) };
  const password = randomBytes(12).toString("hex");
  const major = request.major ?? 18;
  const image = `postgres:${major}`;
  await engine.image.pull(ImageName.fromString(image)).catch((error: unknown) => {
    throw new ServerUnavailable(`image ${image} cannot be pulled`, { cause: error });
  });
  const container = await new GenericContainer(image)
    .withEnvironment({ POSTGRES_PASSWORD: password })
    .withCommand(["postgres", ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])])
    .withExposedPorts(5432)
    .withWaitStrategy(Wait.forLogMessage(/database system is ready to accept connections/, 2))
    .start();
  const url = `postgres://postgres:${password}@${container.getHost()}:${container.getMappedPort(5432)}/postgres`;
  return testServer("docker", url, major, null, async () => {
    await container.stop();
  });
}

function demandMajor(major: number, request: ServerRequest): void {
  if (request.major !== undefined && request.major !== major) throw new ServerUnavailable(`is version ${major}`);
}

// ---- databases ---------------------------------------------------------------------------------------------------

function testServer(kind: ServerKind, url: string, major: number, own: EmbeddedServer | null, dispose: () => Promise<void>): TestServer {
  return { kind, url, major, process: own, createDatabase: (label) => createDatabase(url, databaseName(label)), [Symbol.asyncDispose]: dispose };
}

function pairOf(source: TestServer, target: TestServer): TestPair {
  return {
    source,
    target,
    fresh: async (label) => {
      const name = databaseName(label);
      const [left, right] = await Promise.all([createDatabase(source.url, name), createDatabase(target.url, name)]);
      return { source: left.url, target: right.url, drop: async () => void (await Promise.all([left.drop(), right.drop()])) };
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all([source[Symbol.asyncDispose](), target[Symbol.asyncDispose]()]);
    },
  };
}

/** A name for a database that nobody else takes. */
export function databaseName(label: string): string {
  return [...(label.toLowerCase().match(/[a-z0-9]+/g) ?? []), randomBytes(4).toString("hex")].join("_").slice(-60);
}

async function createDatabase(adminUrl: string, name: string): Promise<TestDatabase> {
  await query(adminUrl, `create database ${pg.escapeIdentifier(name)} template template0`);
  const url = new URL(adminUrl);
  url.pathname = `/${name}`;
  return { name, url: url.href, drop: () => dropDatabase(adminUrl, url.href, name) };
}

async function dropDatabase(adminUrl: string, url: string, name: string): Promise<void> {
  await dropSlots(adminUrl, name);
  const prepared = await query<{ gid: string }>(url, "select gid from pg_prepared_xacts where database = current_database()");
  for (const { gid } of prepared.rows) await query(url, `rollback prepared ${pg.escapeLiteral(gid)}`);
  await query(adminUrl, `drop database ${pg.escapeIdentifier(name)} with (force)`);
}

/** DROP DATABASE ends sessions by force, but not those that stream from a slot. */
async function dropSlots(adminUrl: string, database: string): Promise<void> {
  for (const deadline = Date.now() + 10_000; Date.now() < deadline; ) {
    const { rows } = await query(
      adminUrl,
      `select case when active_pid is null then pg_drop_replication_slot(slot_name)::text else pg_terminate_backend(active_pid)::text end
         from pg_replication_slots where database = $1`,
      [database],
    );
    if (rows.length === 0) return;
    await sleep(20);
  }
  throw new Error(`replication slots of ${database} are still in use`);
}

async function query<Row extends pg.QueryResultRow>(url: string, text: string, values: unknown[] = []): Promise<pg.QueryResult<Row>> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {}); // the query that is under way, or the next one, rejects with it
  await client.connect();
  try {
    return await client.query<Row>(text, values);
  } finally {
    await client.end();
  }
}
