/** Servers of our own as processes, and that none of them is left behind. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

import { freePort, ignoring, portIsFree, type Owner } from "./places.ts";

const guards = new Set<Guard>();
let hooked = false;

/** What a {@link Guard} sees to. */
export interface GuardOptions {
  /** Removed at the end, if not null. */
  readonly directory: string | null;
  /** What ends the server at once. */
  readonly quit: NodeJS.Signals;
  /** Called when the server is gone, before the directory is; synchronous. */
  readonly afterwards?: () => void;
}

/**
 * Sees to it that a directory and a server do not outlive this process: synchronously at exit and on signals,
 * and, should we be killed, by a shell that waits for the end of a pipe that only we hold.
 */
export class Guard {
  readonly #options: GuardOptions;
  readonly #watchdog: ChildProcess;
  #pid: number | null = null;

  constructor(options: GuardOptions) {
    this.#options = options;
    this.#watchdog = startWatchdog(options);
    guards.add(this);
    installHooks();
  }

  /** The server to end; null when there is none. */
  follow(pid: number | null): void {
    this.#pid = pid;
    this.#tell(`pid ${pid ?? ""}\n`);
  }

  /** Sends the signal and does not wait. */
  askToQuit(): void {
    if (this.#pid !== null) send(this.#pid, this.#options.quit);
  }

  /** Ends the server if it still runs, removes the directory, and is done. */
  endNow(): void {
    if (!guards.delete(this)) return;
    const pid = this.#pid;
    this.askToQuit();
    if (pid !== null && !untilSync(() => !isRunning(pid), 5_000)) crash(pid);
    const { directory, afterwards } = this.#options;
    afterwards?.();
    if (directory !== null) rmSync(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
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
  kill -s "$2" "$pid"
  for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$pid" || break
    sleep 0.3
  done
  kill -KILL "$pid"
fi
if [ -n "$1" ]; then rm -rf -- "$1"; fi
`;

function startWatchdog({ directory, quit }: GuardOptions): ChildProcess {
  const child = spawn("/bin/sh", ["-c", WATCHDOG, "dualrun-watchdog", directory ?? "", quit.replace("SIG", "")], { cwd: "/", detached: true, stdio: ["pipe", "ignore", "ignore"] });
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

// ---- processes ---------------------------------------------------------------------------------------------------

interface ProcessEntry {
  readonly pid: number;
  readonly parent: number;
  readonly state: string;
}

/** Stops a server in its tracks, so that it starts no more children, and kills it with all it has; resolves to the pids. */
export function crash(server: number): number[] {
  if (!send(server, "SIGSTOP")) return [];
  const children = processes().filter((entry) => entry.parent === server);
  const pids = [server, ...children.map((entry) => entry.pid)];
  for (const pid of pids) send(pid, "SIGKILL");
  return pids;
}

/** False for a zombie too: it holds nothing any more. */
export function isRunning(pid: number): boolean {
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
export function send(pid: number, signal: NodeJS.Signals): boolean {
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

/** False if the child still runs after `withinMs`; waiting keeps this process alive. */
export async function hasExited(child: ChildProcess, withinMs: number): Promise<boolean> {
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

/** Waits for a condition. @throws Error with `otherwise` after `withinMs` */
export async function until(condition: () => boolean, withinMs: number, otherwise: string): Promise<void> {
  for (const deadline = Date.now() + withinMs; !condition(); await sleep(10)) if (Date.now() > deadline) throw new Error(otherwise);
}

function untilSync(condition: () => boolean, withinMs: number): boolean {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (const deadline = Date.now() + withinMs; Date.now() < deadline; Atomics.wait(pause, 0, 0, 10)) if (condition()) return true;
  return condition();
}

/** A server to be started, with a file that takes what it prints. */
export interface Launch {
  readonly file: string;
  readonly args: readonly string[];
  /** Null: as we are. */
  readonly owner: Owner | null;
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  /** Appended to. */
  readonly log: string;
  /** A file to read from; default none. */
  readonly input?: string;
}

/** A program that was started; `lastWords` are the last lines that it has printed. */
export interface Launched {
  readonly child: ChildProcess;
  lastWords(): Promise<string[]>;
}

/** Starts a server in a session of its own. @throws when the program cannot be run */
export async function launch({ file, args, owner, cwd, env, log, input }: Launch): Promise<Launched> {
  await using output = await open(log, "a", 0o600);
  await using source = await open(input ?? "/dev/null", "r");
  const start = (await output.stat()).size;
  const child = spawn(file, args, { ...owner, cwd, env, detached: true, stdio: [source.fd, output.fd, output.fd] });
  await spawned(child);
  return { child, lastWords: async () => (await readFile(log)).subarray(start).toString("utf8").trimEnd().split("\n").slice(-8) };
}

const PORT_ATTEMPTS = 10;
const SAME_PORT_PAUSE_MS = 300;

/** The process of a server that comes and goes on one port, under a guard. */
export class Tenant {
  readonly #guard: Guard;
  #port: number | null;
  #child: ChildProcess | null = null;
  #hasRun = false;

  /** `port` null: a free one, which it keeps. */
  constructor(guard: Guard, port: number | null) {
    this.#guard = guard;
    this.#port = port;
  }

  /** @throws Error before the first start. */
  get port(): number {
    if (this.#port === null) throw new Error("the server has not been started yet");
    return this.#port;
  }

  get child(): ChildProcess | null {
    return this.#child;
  }

  get pid(): number | null {
    return this.#child?.pid ?? null;
  }

  /** Starts unless it runs. `start` says why it did not come up on a port, null when it did; what somebody else took is left to him where the port may change. */
  async move(start: (port: number) => Promise<Error | null>): Promise<void> {
    if (this.#child !== null) return;
    const known = this.#port;
    const attempts = known !== null && !this.#hasRun ? 1 : PORT_ATTEMPTS;
    for (let attempt = 1; ; attempt += 1) {
      const port = known ?? (await freePort());
      const failure = await start(port);
      if (failure === null) {
        this.#port = port;
        this.#hasRun = true;
        return;
      }
      if (attempt === attempts || (await portIsFree(port))) throw failure;
      await sleep(known === null ? 0 : SAME_PORT_PAUSE_MS);
    }
  }

  adopt(child: ChildProcess): void {
    this.#child = child;
    this.#guard.follow(child.pid ?? null);
    child.once("exit", () => {
      if (this.#child !== child) return;
      this.#child = null;
      this.#guard.follow(null);
    });
    child.unref();
  }
}
