/** Where the programs of MySQL and MariaDB come from: PATH, or Debian's packages in a cache directory. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { realpath } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";

import { DualrunError } from "../core/errors.ts";
import { type PackageRequest, unpackedPackages } from "./debian.ts";
import { ignoring } from "./places.ts";

/** Engine and release series. */
export type MysqlFlavour = "mariadb-10.11" | "mariadb-11.8" | "mysql-8.0" | "mysql-8.4" | "mysql-9.7";

/** What one flavour is started and looked into with. */
export interface MysqlBinaries {
  readonly flavour: MysqlFlavour;
  readonly engine: "mysql" | "mariadb";
  /** For example `10.11.14`. */
  readonly version: string;
  /** The server's program, which can be executed as it stands. */
  readonly server: string;
  /** What `basedir` has to be. */
  readonly base: string;
  /** Where messages, character sets and MariaDB's system tables are; null if not known. */
  readonly share: string | null;
  readonly tools: MysqlTools;
}

/** Client programs of the same version, which can be executed as they stand; null for those that are not there. */
export interface MysqlTools {
  readonly client: string | null;
  readonly binlog: string | null;
  readonly dump: string | null;
}

const SERVERS = { mariadb: ["mariadbd", "mysqld"], mysql: ["mysqld"] } as const;
const TOOLS = {
  mariadb: { client: "mariadb", binlog: "mariadb-binlog", dump: "mariadb-dump" },
  mysql: { client: "mysql", binlog: "mysqlbinlog", dump: "mysqldump" },
} as const;

/** Where Debian puts servers, which is not on everyone's PATH. */
const SYSTEM_DIRECTORIES = ["/usr/sbin", "/usr/local/sbin"];

const PACKAGES: Readonly<Partial<Record<MysqlFlavour, PackageRequest>>> = {
  "mariadb-10.11": mariadb("10.11", ["bookworm"]),
  "mariadb-11.8": mariadb("11.8", ["sid", "trixie"]),
  "mysql-9.7": {
    name: "mysql-9.7",
    suites: ["sid"],
    version: "9.7",
    packages: ["mysql-server-core", "mysql-client-core"],
    alone: [],
    without: ["perl"],
    programs: ["mysqld", ...Object.values(TOOLS.mysql)],
  },
};

/** The client programs that are wanted stand in a package that depends on many others. */
function mariadb(version: string, suites: readonly string[]): PackageRequest {
  const packages = ["mariadb-server-core", "mariadb-client-core"];
  return { name: `mariadb-${version}`, suites, version, packages, alone: ["mariadb-client"], without: ["perl"], programs: ["mariadbd", ...Object.values(TOOLS.mariadb)] };
}

/**
 * The programs of a flavour: those on PATH if their version fits, otherwise Debian's.
 * @throws DualrunError DR2001 when this machine can have neither.
 */
export async function mysqlBinaries(flavour: MysqlFlavour): Promise<MysqlBinaries> {
  return (await installedBinaries(flavour)) ?? unpackedBinaries(flavour);
}

/** The programs of a flavour that stand on PATH, or where Debian installs them; null if there are none of its version. */
export async function installedBinaries(flavour: MysqlFlavour): Promise<MysqlBinaries | null> {
  const directories = [...(process.env["PATH"] ?? "").split(delimiter).filter(Boolean), ...SYSTEM_DIRECTORIES];
  for (const candidate of directories.flatMap((directory) => SERVERS[engineOf(flavour)].map((name) => join(directory, name)))) {
    const server = await realpath(candidate).catch(ignoring("ENOENT", "ENOTDIR", "EACCES"));
    const found = server === null ? null : await binariesAt(flavour, server);
    if (found !== null) return found;
  }
  return null;
}

/**
 * The programs of a flavour from Debian's packages, which are fetched if they are not there yet.
 * @throws DualrunError DR2001 when they cannot be had.
 */
export async function unpackedBinaries(flavour: MysqlFlavour): Promise<MysqlBinaries> {
  const request = PACKAGES[flavour];
  if (request === undefined) throw new DualrunError("DR2001", `Debian has no packages of ${flavour}`, { next: "Install the server so that it is on PATH." });
  const root = await unpackedPackages(request);
  const engine = engineOf(flavour);
  const run = join(root, "run");
  const server = join(run, SERVERS[engine][0]);
  const version = await versionOf(server);
  if (version === null) throw new DualrunError("DR2001", `The unpacked ${flavour} cannot be run`, { where: server, next: "Remove that directory, so that it is fetched anew." });
  return { flavour, engine, version, server, base: join(root, "usr"), share: shareIn(join(root, "usr")), tools: toolsIn(engine, run) };
}

/** The engine of a flavour. */
export function engineOf(flavour: MysqlFlavour): "mysql" | "mariadb" {
  return flavour.startsWith("mariadb") ? "mariadb" : "mysql";
}

/** Whether a server of this version, as in `9.7.4-log` or `10.11.14-MariaDB`, is of the flavour. */
export function fits(flavour: MysqlFlavour, version: string): boolean {
  const [engine = "", series = ""] = flavour.split("-");
  return version.startsWith(`${series}.`) && version.includes("MariaDB") === (engine === "mariadb");
}

async function binariesAt(flavour: MysqlFlavour, server: string): Promise<MysqlBinaries | null> {
  const version = await versionOf(server);
  if (version === null || !fits(flavour, version)) return null;
  const base = dirname(dirname(server));
  const engine = engineOf(flavour);
  return { flavour, engine, version, server, base, share: shareIn(base), tools: toolsIn(engine, join(base, "bin")) };
}

/** Null if it cannot be run. */
async function versionOf(server: string): Promise<string | null> {
  const printed = await execute(server, ["--no-defaults", "--version"], { timeout: 20_000 }).catch(() => null);
  return /Ver (\S+)/.exec(printed?.stdout ?? "")?.[1] ?? null;
}

const execute = promisify(execFile);

function shareIn(base: string): string | null {
  return ["share/mariadb", "share/mysql", "share"].map((folder) => join(base, folder)).find((folder) => existsSync(join(folder, "charsets"))) ?? null;
}

function toolsIn(engine: "mysql" | "mariadb", directory: string): MysqlTools {
  const at = (name: string): string | null => (existsSync(join(directory, name)) ? join(directory, name) : null);
  return { client: at(TOOLS[engine].client), binlog: at(TOOLS[engine].binlog), dump: at(TOOLS[engine].dump) };
}
