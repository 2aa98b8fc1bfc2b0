import { type ChildProcess, execFile, spawn, type SpawnOptions } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { chmod, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { describe, expect, onTestFinished, test, vi } from "vitest";

import { unpackedPackages } from "../../src/demo/debian.ts";
import { installedBinaries, type MysqlFlavour, unpackedBinaries } from "../../src/demo/mysql-binaries.ts";
import { type MysqlServer, startMysql } from "../../src/demo/mysql-servers.ts";
import { everyoneReaches, ignoring } from "../../src/demo/places.ts";
import { caughtUp, connectMysql, follow, mysqlRows, mysqlServer, mysqlValue, requireMysql, requireMysqls, sharedMysql, type TestMysql } from "../support/mysql.ts";
import { orSkip, ServerUnavailable } from "../support/servers.ts";

const FLAVOURS = ["mariadb-10.11", "mariadb-11.8", "mysql-9.7"] as const satisfies readonly MysqlFlavour[];
const SERVERS = new URL("../../src/demo/mysql-servers.ts", import.meta.url);

vi.setConfig({ testTimeout: 180_000 });

const run = promisify(execFile);

function ours(server: TestMysql): MysqlServer {
  if (server.process === null) throw new Error("a controllable server has a process");
  return server.process;
}

async function variables(url: string): Promise<Record<string, string>> {
  const rows = await mysqlRows(url, "SHOW GLOBAL VARIABLES");
  return Object.fromEntries(rows.map((row) => Object.values(row).map(String)));
}

for (const flavour of FLAVOURS) {
  describe(flavour, () => {
    test("writes a complete row log, durably, and takes what a test asks for", async (context) => {
      await using server = await requireMysql(context, { flavour, durable: true, controllable: true, settings: { innodb_lock_wait_timeout: "7", binlog_row_image: "FULL" } });
      const facts = await variables(server.url);
      expect(facts).toMatchObject({
        version: expect.stringMatching(new RegExp(`^${flavour.split("-")[1]?.replace(".", "\\.")}\\.`)),
        log_bin: "ON",
        binlog_format: "ROW",
        binlog_row_image: "FULL",
        binlog_row_metadata: "FULL",
        character_set_server: "utf8mb4",
        time_zone: "+00:00",
        innodb_flush_log_at_trx_commit: "1",
        sync_binlog: "1",
        innodb_lock_wait_timeout: "7",
        local_infile: "ON",
        skip_name_resolve: "ON",
        bind_address: "127.0.0.1",
        port: new URL(server.url).port,
        socket: ours(server).socket,
        datadir: `${ours(server).dataDirectory}/`,
        ...(server.engine === "mysql" ? { gtid_mode: "ON", enforce_gtid_consistency: "ON", gtid_executed: "" } : { gtid_strict_mode: "ON", gtid_binlog_pos: "", log_slave_updates: "ON" }),
      });
      expect(Number(facts["server_id"])).toBeGreaterThan(0);
      expect(addresses(ours(server).pid ?? 0)).toEqual([`127.0.0.1:${ours(server).port}`]);
    });

    test("is entered with its password only, through the socket too", async (context) => {
      const server = await orSkip(context, sharedMysql({ flavour, controllable: true }));
      for (const [user, password] of [["root", "guess"], ["root", ""], ["", ""]] as const) {
        await expect(mysqlValue(Object.assign(new URL(server.url), { username: user, password }).href, "SELECT 1")).rejects.toMatchObject({ errno: 1045 });
        const client = run(ours(server).tools.client ?? "", ["--no-defaults", `--socket=${ours(server).socket}`, `--user=${user}`, `--password=${password}`, "--execute=SELECT 1"]);
        await expect(client).rejects.toMatchObject({ stderr: expect.stringMatching(/1045/) });
      }
    });

    test("is read by the client programs of its own version", async (context) => {
      const server = await orSkip(context, sharedMysql({ flavour, controllable: true }));
      const { url, name, drop } = await server.createDatabase("Read by tools!");
      expect(name).toMatch(/^read_by_tools_[0-9a-f]{8}$/);
      await mysqlRows(url, "CREATE TABLE t (id INT PRIMARY KEY, word VARCHAR(40))");
      await mysqlRows(url, "INSERT INTO t VALUES (1, 'Zoë 🐘')");
      const { tools, socket, dataDirectory } = ours(server);
      const password = new URL(server.url).password;
      const dump = await run(tools.dump ?? "", ["--no-defaults", `--socket=${socket}`, "--user=root", `--password=${password}`, "--default-character-set=utf8mb4", name]);
      expect(dump.stdout).toContain("(1,'Zoë 🐘')");
      const log = await mysqlValue(server.url, "SHOW BINARY LOGS");
      const events = await run(tools.binlog ?? "", ["--no-defaults", "--verbose", "--base64-output=decode-rows", join(dataDirectory, String(log))], { maxBuffer: 1 << 26 });
      expect(events.stdout).toMatch(new RegExp(`### INSERT INTO \`${name}\`\\.\`t\``));
      await drop();
      expect(await mysqlRows(server.url, "SHOW DATABASES LIKE ?", [name])).toEqual([]);
    });

    test("keeps what was committed when it is stopped, and when it crashes", async (context) => {
      await using server = await requireMysql(context, { flavour, durable: true, controllable: true });
      const own = ours(server);
      const { url } = await server.createDatabase("kept");
      await mysqlRows(url, "CREATE TABLE kept (n INT PRIMARY KEY)");
      for (const [n, mode] of [[1, "clean"], [2, "immediate"], [3, "clean"]] as const) {
        await mysqlRows(url, "INSERT INTO kept VALUES (?)", [n]);
        const before = (await readFile(own.log, "utf8")).length;
        const lost = await connectMysql(url);
        lost.on("error", () => {});
        const { pid } = own;
        expect(await own.stop(mode)).toBe(mode);
        expect(own.pid).toBeNull();
        expect(existsSync(`/proc/${pid}`)).toBe(false);
        expect((await readFile(own.log, "utf8")).slice(before).includes("Shutdown complete")).toBe(mode === "clean");
        await expect(mysqlValue(url, "SELECT 1")).rejects.toMatchObject({ code: "ECONNREFUSED" });
        await own.start();
        expect(own.pid).not.toBe(pid);
        expect(await mysqlValue(url, "SELECT COUNT(*) FROM kept")).toBe(n);
      }
    });

    test("is followed by a replica, by GTID, also after both have crashed", async (context) => {
      await using servers = await requireMysqls(context, { flavour, durable: true, controllable: true }, { flavour, durable: true, controllable: true });
      const [source, replica] = servers.all as [TestMysql, TestMysql];
      expect(new URL(source.url).port).not.toBe(new URL(replica.url).port);
      expect(await mysqlValue(source.url, "SELECT @@server_id")).not.toBe(await mysqlValue(replica.url, "SELECT @@server_id"));
      const { url, name } = await source.createDatabase("followed");
      const there = new URL(`/${name}`, replica.url).href;
      await mysqlRows(url, "CREATE TABLE followed (n INT PRIMARY KEY, word VARCHAR(20))");
      await mysqlRows(url, "INSERT INTO followed VALUES (1, 'before')");
      await follow(source, replica);
      await mysqlRows(url, "INSERT INTO followed VALUES (2, 'after')");
      expect(await caughtUp(source, replica)).toBe(true);
      expect(await mysqlRows(there, "SELECT * FROM followed ORDER BY n")).toEqual([{ n: 1, word: "before" }, { n: 2, word: "after" }]);
      await Promise.all([source, replica].map((server) => ours(server).stop("immediate")));
      await Promise.all([source, replica].map((server) => ours(server).start()));
      await mysqlRows(replica.url, "STOP REPLICA");
      await mysqlRows(replica.url, "START REPLICA");
      await mysqlRows(url, "DELETE FROM followed WHERE n = 1");
      expect(await caughtUp(source, replica)).toBe(true);
      expect(await mysqlRows(there, "SELECT n FROM followed")).toEqual([{ n: 2 }]);
    });

    test("says why it does not start: a port that is taken, a setting that does not exist", async (context) => {
      const server = await orSkip(context, sharedMysql({ flavour, controllable: true }));
      await expect(startMysql({ flavour, port: ours(server).port })).rejects.toMatchObject({ code: "DR2001", details: expect.arrayContaining([expect.stringMatching(/in use/)]) });
      await expect(startMysql({ flavour, settings: { no_such_setting: "1" } })).rejects.toMatchObject({ code: "DR2001", details: expect.arrayContaining([expect.stringMatching(/no_such_setting/)]) });
    });

    for (const end of flavour === "mariadb-10.11" ? ["return", "throw", "SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"] : ["SIGINT", "SIGTERM", "SIGKILL"]) {
      test(`leaves nothing behind when its program ends by ${end}`, async (context) => {
        await orSkip(context, sharedMysql({ flavour, controllable: true }));
        const { child, ended, dataDirectory, pid } = await programWithServer(flavour, end);
        if (end.startsWith("SIG")) {
          expect(commandOf(pid)).toContain(dataDirectory);
          child.kill(end as NodeJS.Signals);
        }
        await ended;
        if (end === "SIGKILL") for (const deadline = Date.now() + 10_000; existsSync(dirname(dataDirectory)) && Date.now() < deadline; ) await sleep(50);
        else expect(child.signalCode ?? child.exitCode).toBe(end.startsWith("SIG") ? end : end === "return" ? 0 : 1);
        expect(existsSync(dirname(dataDirectory))).toBe(false);
        expect(commandOf(pid)).not.toContain(dataDirectory);
      });
    }
  });
}

/** What a process listens on, as the kernel says. */
function addresses(pid: number): string[] {
  const lines = ["tcp", "tcp6"].flatMap((name) => readFileSync(`/proc/${pid}/net/${name}`, "utf8").split("\n").slice(1));
  const sockets = socketsOf(pid);
  return lines.flatMap((line) => {
    const [, local = "", , state, , , , , , inode = ""] = line.trim().split(/\s+/);
    return state === "0A" && sockets.has(inode) ? [readable(local)] : [];
  });
}

function readable(local: string): string {
  const [address = "", port = ""] = local.split(":");
  return `${Buffer.from(address, "hex").reverse().join(".")}:${Number.parseInt(port, 16)}`;
}

function socketsOf(pid: number): Set<string> {
  const folder = `/proc/${pid}/fd`;
  return new Set(readdirSync(folder).flatMap((fd) => /^socket:\[(\d+)\]$/.exec(linkAt(join(folder, fd)))?.[1] ?? []));
}

/** Empty for a file that has been closed meanwhile. */
function linkAt(path: string): string {
  try {
    return readlinkSync(path);
  } catch (error) {
    return ignoring("ENOENT")(error) ?? "";
  }
}

function commandOf(pid: number): string {
  const file = `/proc/${pid}/cmdline`;
  return existsSync(file) ? readFileSync(file, "utf8") : "";
}

interface Program {
  readonly child: ChildProcess;
  readonly ended: Promise<unknown>;
  readonly dataDirectory: string;
  readonly server: string;
  readonly pid: number;
}

/** A program of its own that starts a server, says where, and ends as told. */
async function programWithServer(flavour: MysqlFlavour, end: string, options: SpawnOptions = {}): Promise<Program> {
  const program = `
    import { mysqlBinaries } from ${JSON.stringify(new URL("mysql-binaries.ts", SERVERS).href)};
    import { startMysql } from ${JSON.stringify(SERVERS.href)};
    const binaries = await mysqlBinaries(${JSON.stringify(flavour)});
    const server = await startMysql({ flavour: ${JSON.stringify(flavour)}, durable: false, binaries });
    console.log(JSON.stringify({ dataDirectory: server.dataDirectory, server: binaries.server, pid: server.pid }));
    if (${JSON.stringify(end)} === "throw") throw new Error("on purpose");
    if (${JSON.stringify(end)} !== "return") setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module-typescript", "--eval", program], { ...options, stdio: ["ignore", "pipe", "pipe"] });
  const ended = once(child, "exit");
  const complaints = text(child.stderr as Readable);
  const [line] = (await Promise.race([once(createInterface(child.stdout as Readable), "line"), ended.then(async () => [await complaints])])) as [string];
  if (!line.startsWith("{")) throw new Error(line);
  return { child, ended, ...(JSON.parse(line) as Pick<Program, "dataDirectory" | "server" | "pid">) };
}

describe("servers of two engines", () => {
  test("start at the same time and know nothing of each other", async (context) => {
    await using servers = await requireMysqls(context, { flavour: "mariadb-10.11" }, { flavour: "mysql-9.7" });
    const databases = await Promise.all(servers.all.map((server) => server.createDatabase("two")));
    await Promise.all(databases.map(({ url }) => mysqlRows(url, "CREATE TABLE one_side (n INT PRIMARY KEY)")));
    expect(await mysqlRows(servers.all[0]?.url ?? "", "SHOW DATABASES LIKE ?", [databases[1]?.name])).toEqual([]);
    expect(servers.all.map(({ engine }) => engine)).toEqual(["mariadb", "mysql"]);
  });
});

describe("Debian's packages", () => {
  test("are fetched once by two programs at a time, into the cache that is named, and nothing else changes", async (context) => {
    await orSkip(context, sharedMysql({ flavour: "mariadb-10.11", controllable: true }));
    if ((await installedBinaries("mariadb-10.11")) !== null) context.skip("mariadb-10.11 is on PATH");
    const cache = await mkdtemp(join(process.getuid?.() === 0 ? "/tmp" : tmpdir(), "dualrun-cache-"));
    onTestFinished(() => rm(cache, { recursive: true }));
    await chmod(cache, 0o755);
    const before = await systemFiles();
    const env = { ...process.env, XDG_CACHE_HOME: cache };
    const programs = await Promise.all([1, 2].map(() => programWithServer("mariadb-10.11", "SIGTERM", { env })));
    const root = join(cache, "dualrun", `mariadb-10.11-${process.arch}`);
    expect(programs.map(({ server }) => server)).toEqual([1, 2].map(() => join(root, "run", "mariadbd")));
    expect((await readdir(join(cache, "dualrun"))).sort()).toEqual(["lock", `mariadb-10.11-${process.arch}`]);
    expect(await systemFiles()).toEqual(before);
    for (const { child } of programs) child.kill("SIGTERM");
    await Promise.all(programs.map(({ ended }) => ended));
  });

  test("serve root, as nobody, and an ordinary user", async (context) => {
    const server = await orSkip(context, sharedMysql({ flavour: "mariadb-10.11", controllable: true }));
    expect(userOf(ours(server).pid ?? 0)).toBe(process.getuid?.() === 0 ? 65534 : process.getuid?.());
    if (process.getuid?.() !== 0) return;
    const readable = await Promise.all([process.execPath, dirname(fileURLToPath(SERVERS))].map(everyoneReaches));
    if (!readable.every(Boolean)) context.skip("another user cannot read this directory");
    const cache = join(ours(server).tools.client ?? "", "../../../..");
    const env = { ...process.env, HOME: "/nonexistent", XDG_CACHE_HOME: cache };
    const { child, ended, pid } = await programWithServer("mariadb-10.11", "SIGTERM", { uid: 1234, gid: 1234, cwd: "/", env });
    expect(userOf(pid)).toBe(1234);
    child.kill("SIGTERM");
    await ended;
  });

  test("that do not exist are named", async () => {
    await expect(unpackedPackages({ name: "none", suites: ["bookworm"], version: "1.0", packages: ["no-such-server"], alone: [], without: [], programs: [] })).rejects.toMatchObject({ code: "DR2001", details: [expect.stringMatching(/bookworm has none|not run Debian/)] });
    await expect(unpackedBinaries("mysql-8.4")).rejects.toMatchObject({ code: "DR2001", message: expect.stringMatching(/no packages of mysql-8\.4/) });
  });
});

function userOf(pid: number): number {
  return Number(/^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

/** When the machine's own package lists and states were changed last. */
function systemFiles(): Promise<(number | null)[]> {
  const paths = ["/var/lib/apt/lists", "/var/lib/dpkg/status", "/var/cache/apt", "/var/cache/apt/archives", "/var/cache/apt/pkgcache.bin", "/var/log/apt"];
  return Promise.all(paths.map((path) => stat(path).then(({ mtimeMs }) => mtimeMs, () => null)));
}

describe("what tests ask for", () => {
  for (const flavour of ["mysql-8.0", "mysql-8.4"] as const) {
    test(`${flavour} answers`, async (context) => {
      await using server = await requireMysql(context, { flavour });
      expect(await mysqlValue(server.url, "SELECT version()")).toMatch(new RegExp(`^${flavour.slice(6).replace(".", "\\.")}\\.`));
      expect(await variables(server.url)).toMatchObject({ log_bin: "ON", binlog_format: "ROW", binlog_row_image: "FULL", binlog_row_metadata: "FULL", gtid_mode: "ON" });
    });
  }

  test("is named in the skip when it cannot be had, and fails where it is required", async () => {
    onTestFinished(() => void vi.unstubAllEnvs());
    vi.stubEnv("DUALRUN_TEST_MARIADB_URL", undefined);
    const notes: (string | undefined)[] = [];
    const skip = (note?: string): never => {
      notes.push(note);
      throw new Error("skipped");
    };
    for (const [flavour, from, required, outcome] of [
      ["mysql-8.4", "packages", "", "skipped"],
      ["mysql-8.4", "packages", "all", "skipped"],
      ["mysql-8.4", "packages", "images", ServerUnavailable],
      ["mariadb-11.8", "env", "", "skipped"],
      ["mariadb-11.8", "env", "all", ServerUnavailable],
      ["mariadb-11.8", "env", "servers", ServerUnavailable],
    ] as const) {
      vi.stubEnv("DUALRUN_TEST_MYSQL", from);
      vi.stubEnv("DUALRUN_TEST_REQUIRE", required);
      await expect(orSkip({ skip }, mysqlServer({ flavour }))).rejects.toThrow(outcome);
    }
    expect(notes).toEqual([
      ...[1, 2].map(() => "mysql-8.4 cannot be had (packages: Debian has no packages of mysql-8.4)"),
      "mariadb-11.8 cannot be had (env: DUALRUN_TEST_MARIADB_URL is not set)",
    ]);
  });

  test("comes from the address in the environment, if version and settings fit", async (context) => {
    const own = await orSkip(context, sharedMysql({ flavour: "mariadb-11.8", controllable: true }));
    onTestFinished(() => void vi.unstubAllEnvs());
    vi.stubEnv("DUALRUN_TEST_MARIADB_URL", own.url);
    const server = await mysqlServer({ flavour: "mariadb-11.8" });
    expect([server.kind, server.url, server.process]).toEqual(["env", own.url, null]);
    vi.stubEnv("DUALRUN_TEST_MYSQL", "env");
    await expect(mysqlServer({ flavour: "mariadb-10.11" })).rejects.toThrow(/env: DUALRUN_TEST_MARIADB_URL is version 11\.8/);
    await expect(mysqlServer({ flavour: "mariadb-11.8", durable: true })).rejects.toThrow(/differs in innodb_flush_log_at_trx_commit, sync_binlog/);
    await expect(mysqlServer({ flavour: "mariadb-11.8", controllable: true })).rejects.toThrow(/cannot be stopped/);
    await own.process?.stop();
    await expect(mysqlServer({ flavour: "mariadb-11.8" })).rejects.toThrow(/cannot be reached/);
    await own.process?.start();
  });
});
