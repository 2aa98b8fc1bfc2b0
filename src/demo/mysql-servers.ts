/**
 * MySQL and MariaDB servers of our own: for the demo and for the tests.
 *
 * A server listens on 127.0.0.1 only, writes a complete row log with GTIDs, and leaves nothing behind, however this process ends.
 */
import type { ChildProcess } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { existsSync } from "node:fs";
import { chown, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { createConnection } from "mariadb";

import { DualrunError } from "../core/errors.ts";
import { type MysqlBinaries, mysqlBinaries, type MysqlFlavour, type MysqlTools } from "./mysql-binaries.ts";
import { initialStatements } from "./mysql-initial.ts";
import { everyoneReaches, HOST, type Owner, privateDirectory, serverOwner } from "./places.ts";
import { Guard, hasExited, launch, type Launched, send, Tenant } from "./processes.ts";

export interface MysqlOptions {
  readonly flavour: MysqlFlavour;
  /** Default: a free one. */
  readonly port?: number;
  /** Passed as `--name=value`, over the defaults (binlog_format=ROW, server_id of its own, …). */
  readonly settings?: Readonly<Record<string, string>>;
  /** Default true. False, for speed: what was committed survives a crash of the server, not one of the machine. */
  readonly durable?: boolean;
  /** Default: those on PATH, otherwise Debian's packages; see {@link mysqlBinaries}. */
  readonly binaries?: MysqlBinaries;
  /** Whom the server runs as when this process is root; default nobody, or root where nobody cannot read the binaries. */
  readonly owner?: Owner;
}

/** `clean` writes everything out and says goodbye; `immediate` is a crash: SIGKILL. */
export type MysqlStopMode = "clean" | "immediate";

export interface MysqlServer extends AsyncDisposable {
  readonly flavour: MysqlFlavour;
  readonly engine: "mysql" | "mariadb";
  /** For example `9.7.4`. */
  readonly version: string;
  /** Address of a user who may do everything, without a database: `mysql://root:PASSWORD@127.0.0.1:PORT/`; stays the same across stop and start. */
  readonly url: string;
  readonly port: number;
  /** Path of the Unix socket. */
  readonly socket: string;
  readonly dataDirectory: string;
  /** What the server has printed. */
  readonly log: string;
  /** Null while stopped. */
  readonly pid: number | null;
  readonly tools: MysqlTools;
  /** Ends the server and keeps its data. A clean stop (the default) that takes more than 60 s becomes `immediate`; resolves to the mode that ended it. */
  stop(mode?: MysqlStopMode): Promise<MysqlStopMode>;
  /** Starts again on the same data and port. */
  start(): Promise<void>;
}

const USER = "root";
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 60_000;

const COMMON_SETTINGS: Readonly<Record<string, string>> = {
  log_bin: "binlog",
  binlog_format: "ROW",
  binlog_row_image: "FULL",
  binlog_row_metadata: "FULL",
  character_set_server: "utf8mb4",
  default_time_zone: "+00:00",
  local_infile: "ON",
  skip_name_resolve: "ON",
};

const ENGINE_SETTINGS: Readonly<Record<"mysql" | "mariadb", Readonly<Record<string, string>>>> = {
  mysql: { gtid_mode: "ON", enforce_gtid_consistency: "ON", mysqlx: "OFF", secure_file_priv: "NULL" },
  mariadb: { gtid_strict_mode: "ON", log_slave_updates: "ON" },
};

/** What a server of ours is set to, besides its address and `server_id`. */
export function mysqlSettings(engine: "mysql" | "mariadb", durable = true): Readonly<Record<string, string>> {
  return { ...COMMON_SETTINGS, ...ENGINE_SETTINGS[engine], ...(durable ? DURABLE : FAST) };
}

const DURABLE = { innodb_flush_log_at_trx_commit: "1", sync_binlog: "1" };
const FAST = { innodb_flush_log_at_trx_commit: "2", sync_binlog: "0" };

/** Settings that hold for the life of a data directory. */
const LASTING = ["innodb_page_size", "innodb_data_file_path", "lower_case_table_names", "innodb_checksum_algorithm"];

/**
 * Starts a server of its own and waits until it accepts connections.
 *
 * Works as root too. utf8mb4, UTC, a random password, a complete row log with GTIDs, no X protocol.
 * @throws DualrunError DR2001 when the binaries cannot be had, or with the last lines of the server's log when it does not start.
 */
export async function startMysql(options: MysqlOptions): Promise<MysqlServer> {
  const binaries = options.binaries ?? (await mysqlBinaries(options.flavour));
  const owner = (await everyoneReaches(binaries.server)) ? serverOwner(options.owner) : null;
  const directory = await privateDirectory("dualrun-mysql-");
  const guard = new Guard({ directory, quit: "SIGKILL" });
  try {
    const server = new Server({ options, binaries, owner, directory, guard, password: newPassword() });
    await server.initialise();
    await server.start();
    return server;
  } catch (error) {
    guard.endNow();
    throw error;
  }
}

/** MySQL's replicas send no more than 32 characters. */
function newPassword(): string {
  return randomBytes(16).toString("hex");
}

interface ServerParts {
  readonly options: MysqlOptions;
  readonly binaries: MysqlBinaries;
  /** Null: as we are. */
  readonly owner: Owner | null;
  readonly directory: string;
  readonly guard: Guard;
  readonly password: string;
}

class Server implements MysqlServer {
  readonly flavour: MysqlFlavour;
  readonly engine: "mysql" | "mariadb";
  readonly version: string;
  readonly socket: string;
  readonly dataDirectory: string;
  readonly log: string;
  readonly tools: MysqlTools;
  readonly #parts: ServerParts;
  readonly #serverId = String(randomInt(1, 2 ** 32 - 1));
  readonly #tenant: Tenant;
  #disposed = false;

  constructor(parts: ServerParts) {
    this.#parts = parts;
    this.#tenant = new Tenant(parts.guard, parts.options.port ?? null);
    this.flavour = parts.binaries.flavour;
    this.engine = parts.binaries.engine;
    this.version = /^[\d.]+\d/.exec(parts.binaries.version)?.[0] ?? parts.binaries.version;
    this.tools = parts.binaries.tools;
    this.dataDirectory = join(parts.directory, "data");
    this.socket = join(this.dataDirectory, "mysqld.sock");
    this.log = join(parts.directory, "server.log");
  }

  get url(): string {
    return `mysql://${USER}:${this.#parts.password}@${HOST}:${this.port}/`;
  }

  get port(): number {
    return this.#tenant.port;
  }

  get pid(): number | null {
    return this.#tenant.pid;
  }

  /** Makes the data directory, and the one user. */
  async initialise(): Promise<void> {
    const { binaries, directory, options, password } = this.#parts;
    for (const name of ["data", "tmp", "files"]) await this.#give(join(directory, name), (path) => mkdir(path, { mode: 0o700 }));
    const script = join(directory, "initial.sql");
    await this.#give(script, async (path) => writeFile(path, await initialStatements(binaries, USER, password), { mode: 0o600 }));
    const lasting = Object.fromEntries(Object.entries(options.settings ?? {}).filter(([name]) => LASTING.includes(name)));
    const how = this.engine === "mysql" ? { "initialize-insecure": null, "init-file": script } : { bootstrap: null };
    const launched = await this.#launch({ ...how, ...lasting }, this.engine === "mysql" ? undefined : script);
    const ended = await hasExited(launched.child, START_TIMEOUT_MS);
    if (!ended || launched.child.exitCode !== 0) throw await this.#failure("could not make its data directory", launched);
    await rm(script);
  }

  async start(): Promise<void> {
    if (this.#disposed) throw new Error("the server has been disposed of");
    await this.#tenant.move((port) => this.#startOn(port));
  }

  async stop(mode: MysqlStopMode = "clean"): Promise<MysqlStopMode> {
    const { child } = this.#tenant;
    if (child?.pid === undefined) return mode;
    send(child.pid, mode === "clean" ? "SIGTERM" : "SIGKILL");
    if (await hasExited(child, STOP_TIMEOUT_MS)) return mode;
    if (mode === "clean") return this.stop("immediate");
    throw new Error(`process ${child.pid} does not end`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.stop("immediate");
    this.#parts.guard.endNow();
  }

  /** Null once the server accepts connections, otherwise why it does not. */
  async #startOn(port: number): Promise<DualrunError | null> {
    const { options } = this.#parts;
    for (const left of ["mysqld.sock", "mysqld.sock.lock", "mysqld.pid"]) await rm(join(this.dataDirectory, left), { force: true });
    const launched = await this.#launch({
      server_id: this.#serverId,
      ...mysqlSettings(this.engine, options.durable),
      ...options.settings,
      bind_address: HOST,
      port: String(port),
    });
    if (await this.#becomesReady(launched.child)) return null;
    await this.stop("immediate");
    return this.#failure("did not start", launched);
  }

  /** `settings` with the value null are bare options. */
  async #launch(settings: Readonly<Record<string, string | null>>, input?: string): Promise<Launched> {
    const { binaries, owner, directory } = this.#parts;
    const all = { ...settings, ...this.#places() };
    const launched = await launch({
      file: binaries.server,
      args: ["--no-defaults", ...Object.entries(all).map(([name, value]) => (value === null ? `--${name}` : `--${name}=${value}`))],
      owner,
      cwd: this.dataDirectory,
      env: environment(directory),
      log: this.log,
      ...(input === undefined ? {} : { input }),
    });
    this.#tenant.adopt(launched.child);
    return launched;
  }

  #places(): Record<string, string> {
    const { binaries, owner, directory } = this.#parts;
    const { base, share } = binaries;
    return {
      basedir: base,
      datadir: this.dataDirectory,
      tmpdir: join(directory, "tmp"),
      socket: this.socket,
      pid_file: join(this.dataDirectory, "mysqld.pid"),
      ...(share === null ? {} : { lc_messages_dir: share, character_sets_dir: join(share, "charsets") }),
      ...(base === "/usr" ? {} : { plugin_dir: join(base, "lib", "mysql", "plugin") }),
      // MariaDB knows no NULL: an empty directory instead.
      ...(this.engine === "mariadb" ? { secure_file_priv: join(directory, "files") } : {}),
      ...(owner === null && process.getuid?.() === 0 ? { user: "root" } : {}),
    };
  }

  async #becomesReady(child: ChildProcess): Promise<boolean> {
    for (const deadline = Date.now() + START_TIMEOUT_MS; Date.now() < deadline; await sleep(25)) {
      if (child.exitCode !== null || child.signalCode !== null) return false;
      if (existsSync(this.socket) && (await this.#answers())) return true;
    }
    return false;
  }

  async #answers(): Promise<boolean> {
    try {
      const connection = await createConnection({ socketPath: this.socket, user: USER, password: this.#parts.password, connectTimeout: 2_000, allowPublicKeyRetrieval: true });
      await connection.end();
      return true;
    } catch {
      return false;
    }
  }

  async #give(path: string, make: (path: string) => Promise<unknown>): Promise<void> {
    const { owner } = this.#parts;
    await make(path);
    if (owner !== null) await chown(path, owner.uid, owner.gid);
  }

  async #failure(what: string, { lastWords }: Launched): Promise<DualrunError> {
    return new DualrunError("DR2001", `${this.flavour} ${what}`, {
      where: this.dataDirectory,
      details: await lastWords(),
      next: "The lines above are the end of the server's log.",
    });
  }
}

/** Ours without what would steer the server (MYSQL_TCP_PORT, …) or where it writes. */
function environment(directory: string): NodeJS.ProcessEnv {
  const ours = Object.entries(process.env).filter(([name]) => !/^(MYSQL|MARIADB|LC_)/.test(name));
  return { ...Object.fromEntries(ours), HOME: directory, LC_ALL: "C", TZ: "UTC" };
}
