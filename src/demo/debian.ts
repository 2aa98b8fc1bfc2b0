/**
 * Debian's packages, unpacked into a cache directory: no administrator is needed, and nothing else on the machine changes.
 *
 * The cache is $XDG_CACHE_HOME/dualrun, otherwise ~/.cache/dualrun, or /var/cache/dualrun for a root whose home others cannot read.
 * Remove it to have newer packages fetched.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { promisify } from "node:util";

import { DualrunError } from "../core/errors.ts";
import { everyoneReaches, ignoring } from "./places.ts";
import { Guard } from "./processes.ts";

/** What to fetch, and how to know that it is the right thing. */
export interface PackageRequest {
  /** The directory's name in the cache. */
  readonly name: string;
  /** Debian's releases, tried in this order. */
  readonly suites: readonly string[];
  /** The first one's version has to begin with this, for example `11.8`. */
  readonly version: string;
  /** With all that they depend on. */
  readonly packages: readonly string[];
  /** Without what they depend on. */
  readonly alone: readonly string[];
  /** Left out, though packages depend on it. */
  readonly without: readonly string[];
  /** Programs of these packages that get a launcher `run/NAME`. */
  readonly programs: readonly string[];
}

/**
 * The directory into which the packages are unpacked; they are fetched if it is not there yet, by one process at a time.
 * `run/NAME` in it starts a program with the C library and all others of that directory.
 * @throws DualrunError DR2001 when they cannot be had on this machine.
 */
export async function unpackedPackages(request: PackageRequest): Promise<string> {
  const cache = await cacheDirectory();
  const root = join(cache, `${request.name}-${process.arch}`);
  if (existsSync(root)) return root;
  try {
    const repository = await ownRepository();
    await mkdir(cache, { recursive: true });
    await chmod(cache, 0o755);
    await using _lock = await exclusive(join(cache, "lock"));
    if (!existsSync(root)) await fetchInto(root, request, repository);
    return root;
  } catch (error) {
    throw new DualrunError("DR2001", `${request.packages.join(", ")} ${request.version} cannot be had from Debian`, {
      where: root,
      details: reasons(error),
      next: "Install the server so that it is on PATH, or make Debian's packages available to apt-get.",
      cause: error,
    });
  }
}

async function cacheDirectory(): Promise<string> {
  const chosen = process.env["XDG_CACHE_HOME"] ?? "";
  if (isAbsolute(chosen)) return join(chosen, "dualrun");
  const hidden = process.getuid?.() === 0 && !(await everyoneReaches(homedir()));
  return join(hidden ? "/var/cache" : join(homedir(), ".cache"), "dualrun");
}

/** Waits for a lock that ends with this process at the latest. */
async function exclusive(file: string): Promise<AsyncDisposable> {
  const holder = spawn("flock", [file, "sh", "-c", "echo locked; cat"], { cwd: "/", stdio: ["pipe", "pipe", "ignore"] });
  const ended = once(holder, "exit").then(() => Promise.reject(new Error(`${file} cannot be locked`)));
  await Promise.race([once(holder.stdout, "data"), ended]);
  ended.catch(() => {});
  return {
    async [Symbol.asyncDispose]() {
      holder.stdin.end();
      await ended.catch(() => {});
    },
  };
}

async function fetchInto(root: string, request: PackageRequest, repository: string): Promise<void> {
  const partial = `${root}.partial`;
  await rm(partial, { recursive: true, force: true });
  const guard = new Guard({ directory: partial, quit: "SIGTERM" });
  try {
    await download(join(partial, "apt"), repository, request, guard);
    await unpack(join(partial, "apt"), join(partial, "root"), guard);
    await prune(join(partial, "root"), request.programs);
    await writeLaunchers(join(partial, "root"), request.programs);
    await rename(join(partial, "root"), root);
  } finally {
    guard.endNow();
  }
}

function reasons(error: unknown): string[] {
  const output = (error as { stderr?: string }).stderr?.trim() ?? "";
  return output === "" ? [error instanceof Error ? error.message : String(error)] : output.split("\n").slice(-8);
}

// ---- apt ---------------------------------------------------------------------------------------------------------

async function download(apt: string, repository: string, request: PackageRequest, guard: Guard): Promise<void> {
  const seen: string[] = [];
  for (const suite of request.suites) {
    await configure(apt, `${repository} ${suite} main`, request.without);
    await run("apt-get", ["update", "-q"], apt, guard);
    const version = await candidate(request.packages[0] ?? "", apt, guard);
    if (version.startsWith(`${request.version}.`)) return downloadFrom(apt, request, guard);
    seen.push(`${suite} has ${version === "" ? "none" : version}`);
  }
  throw new Error(seen.join(", "));
}

async function downloadFrom(apt: string, { packages, alone }: PackageRequest, guard: Guard): Promise<void> {
  await run("apt-get", ["install", "-q", "-y", "--download-only", "--no-install-recommends", ...packages], apt, guard);
  if (alone.length > 0) await run("apt-get", ["download", "-q", ...alone], apt, guard);
}

/** The version that would be installed, without its epoch; empty if there is none. */
async function candidate(name: string, apt: string, guard: Guard): Promise<string> {
  const policy = await run("apt-cache", ["policy", name], apt, guard);
  const version = /^ *Candidate: (?:\d+:)?(\S+)$/m.exec(policy)?.[1] ?? "";
  return version === "(none)" ? "" : version;
}

/** A place of apt's own: its lists, archives and the packages that it believes to be installed. */
async function configure(apt: string, repository: string, installed: readonly string[]): Promise<void> {
  await rm(apt, { recursive: true, force: true });
  for (const directory of ["lists/partial", "archives/partial", "sources", "preferences"]) await mkdir(join(apt, directory), { recursive: true });
  await writeFile(join(apt, "sources", "debian.list"), `deb ${repository}\n`);
  await writeFile(join(apt, "status"), installed.map(pretended).join("\n"));
  await writeFile(join(apt, "apt.conf"), aptConfiguration(apt));
}

function pretended(name: string): string {
  return `Package: ${name}\nStatus: install ok installed\nArchitecture: all\nMulti-Arch: allowed\nVersion: 999\nMaintainer: nobody\nDescription: left out\n`;
}

/** The machine's own settings, such as a proxy, stay in force: apt reads this last. Its hooks do not. */
function aptConfiguration(apt: string): string {
  const settings = {
    "Dir::State": apt,
    "Dir::State::lists": join(apt, "lists"),
    "Dir::State::status": join(apt, "status"),
    "Dir::Cache": apt,
    "Dir::Cache::archives": join(apt, "archives"),
    "Dir::Etc::sourcelist": "/dev/null",
    "Dir::Etc::sourceparts": join(apt, "sources"),
    "Dir::Etc::preferences": "/dev/null",
    "Dir::Etc::preferencesparts": join(apt, "preferences"),
    "Dir::Log": apt,
    "Debug::NoLocking": "true",
    "APT::Sandbox::User": process.getuid?.() === 0 ? "root" : "",
    "APT::Get::AllowUnauthenticated": "false",
    "APT::Update::Error-Mode": "any",
    "Acquire::Languages": "none",
    "Acquire::Retries": "2",
    "Acquire::http::Timeout": "20",
    "Acquire::https::Timeout": "20",
    ...Object.fromEntries(["DEP-11", "DEP-11-icons-small", "DEP-11-icons", "DEP-11-icons-hidpi", "CNF"].map((name) => [`Acquire::IndexTargets::deb::${name}::DefaultEnabled`, "false"])),
  };
  const hooks = ["APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success", "DPkg::Pre-Invoke", "DPkg::Pre-Install-Pkgs", "DPkg::Post-Invoke"];
  return [...hooks.map((name) => `#clear ${name};`), ...Object.entries(settings).map(([name, value]) => `${name} "${value}";`), ""].join("\n");
}

/** The part of a line of sources.list before the release: the repository that this machine takes Debian from, and whose signature it must bear. */
async function ownRepository(): Promise<string> {
  const release = Object.fromEntries((await readFile("/etc/os-release", "utf8")).split("\n").map((line) => line.replaceAll('"', "").split("=")));
  if (release["ID"] !== "debian") throw new Error("this machine does not run Debian");
  const { stdout } = await execute("apt-get", ["indextargets", "--no-release-info", "--format", "$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)"], { env: environment() });
  const names = [release["VERSION_CODENAME"], "stable", "testing", "unstable", "sid"];
  const targets = stdout.split("\n").map((line) => line.split(" "));
  const uris = targets.flatMap(([kind, component, suite, uri]) => (kind === "Packages" && component === "main" && names.includes(suite) && uri !== undefined ? [uri] : []));
  const uri = uris.find((one) => /^\w+:\/\/[^/]+\/debian\/?$/.test(one)) ?? uris[0];
  if (uri === undefined) throw new Error("apt knows no repository of Debian");
  const keyring = KEYRINGS.find((file) => existsSync(file));
  return keyring === undefined ? uri : `[signed-by=${keyring}] ${uri}`;
}

const KEYRINGS = ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];
const TIMEOUT_MS = 300_000;
const execute = promisify(execFile);

/** Runs a program in apt's archives, by its configuration, and returns what it prints. */
async function run(program: string, args: readonly string[], apt: string, guard: Guard): Promise<string> {
  const running = execute(program, args, { cwd: join(apt, "archives"), env: { ...environment(), APT_CONFIG: join(apt, "apt.conf") }, timeout: TIMEOUT_MS, maxBuffer: 1 << 26 });
  guard.follow(running.child.pid ?? null);
  try {
    return (await running).stdout;
  } finally {
    guard.follow(null);
  }
}

function environment(): NodeJS.ProcessEnv {
  return { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" };
}

// ---- unpacked ----------------------------------------------------------------------------------------------------

async function unpack(apt: string, root: string, guard: Guard): Promise<void> {
  await mkdir(root);
  await chmod(root, 0o755);
  const archives = await readdir(join(apt, "archives"));
  for (const name of archives.filter((file) => file.endsWith(".deb"))) await run("dpkg-deb", ["--extract", name, root], apt, guard);
}

const UNUSED = ["doc", "gdb", "lintian", "locale", "man"].map((name) => `usr/share/${name}`);

/** Half of it are programs and texts that nobody asked for. */
async function prune(root: string, programs: readonly string[]): Promise<void> {
  const folders = await Promise.all(["usr/bin", "usr/sbin"].map(async (folder) => (await entriesOf(root, folder)).map((name) => ({ name, path: `${folder}/${name}` }))));
  const others = folders.flat().filter(({ name }) => !programs.includes(name));
  for (const path of [...UNUSED, ...others.map((other) => other.path)]) await rm(join(root, path), { recursive: true, force: true });
}

async function entriesOf(root: string, folder: string): Promise<string[]> {
  return (await readdir(join(root, folder)).catch(ignoring("ENOENT"))) ?? [];
}

/** The programs are told where their libraries are by that root's own loader, since those of the machine may be older. */
async function writeLaunchers(root: string, programs: readonly string[]): Promise<void> {
  const libraries = await libraryDirectories(root);
  const loader = (await Promise.all(libraries.map((path) => loaderIn(root, path)))).find((path) => path !== null);
  if (loader === undefined || loader === null) throw new Error("the packages bring no loader");
  await mkdir(join(root, "run"));
  await chmod(join(root, "run"), 0o755);
  for (const name of programs) {
    const program = ["usr/sbin", "usr/bin"].map((folder) => `${folder}/${name}`).find((path) => existsSync(join(root, path)));
    if (program === undefined) throw new Error(`the packages bring no ${name}`);
    const path = libraries.map((library) => `$root/${library}`).join(":");
    await writeFile(join(root, "run", name), `#!/bin/sh\nroot=\${0%/run/*}\nexec "$root/${loader}" --library-path "${path}" "$root/${program}" "$@"\n`);
    await chmod(join(root, "run", name), 0o755);
  }
}

async function libraryDirectories(root: string): Promise<string[]> {
  const found = await Promise.all(["usr/lib", "lib"].map(async (folder) => (await entriesOf(root, folder)).map((name) => `${folder}/${name}`)));
  return found.flat().filter((path) => /-linux-gnu\w*$/.test(path));
}

async function loaderIn(root: string, folder: string): Promise<string | null> {
  const entries = await readdir(join(root, folder), { withFileTypes: true });
  const loader = entries.find((entry) => entry.isFile() && /^ld-linux.*\.so\.\d+$/.test(entry.name));
  return loader === undefined ? null : `${folder}/${loader.name}`;
}
