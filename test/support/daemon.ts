/** The daemon as a process of its own, to be killed, stopped and asked. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { StatusDocument } from "../../src/core/index.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

export interface DaemonSetup {
  readonly migration: string;
  readonly source: string;
  readonly target: string;
  /** Further sections of the configuration. */
  readonly config: Readonly<Record<string, unknown>>;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A configuration on disk, from which daemons are started one after the other. */
export class DaemonHome implements AsyncDisposable {
  private readonly directory: string;
  private readonly setup: DaemonSetup;
  private readonly running = new Set<DaemonProcess>();

  private constructor(directory: string, setup: DaemonSetup) {
    this.directory = directory;
    this.setup = setup;
  }

  static async make(setup: DaemonSetup): Promise<DaemonHome> {
    const home = new DaemonHome(await mkdtemp(join(tmpdir(), "dualrun-test-")), setup);
    await writeFile(home.file, JSON.stringify({
      migration: setup.migration, timeZone: "UTC",
      source: { engine: "postgres", url: "env:TEST_SOURCE" }, target: { engine: "postgres", url: "env:TEST_TARGET" },
      http: { listen: "127.0.0.1:0" }, log: { level: "info" }, ...setup.config,
    }));
    return home;
  }

  get file(): string {
    return join(this.directory, "dualrun.yaml");
  }

  start(env: Readonly<Record<string, string>> = {}, more: readonly string[] = []): DaemonProcess {
    const child = spawn(process.execPath, [MAIN, "run", "-c", this.file, ...more], {
      env: { ...process.env, TEST_SOURCE: this.setup.source, TEST_TARGET: this.setup.target, DUALRUN_ALLOW_UNSAFE_TARGET: "1", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const daemon = new DaemonProcess(child);
    this.running.add(daemon);
    return daemon;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const daemon of this.running) await daemon.kill();
    await rm(this.directory, { recursive: true, force: true });
  }
}

export class DaemonProcess {
  readonly exited: Promise<Exit>;
  private readonly child: ChildProcess;
  private text = "";
  private ended = false;

  constructor(child: ChildProcess) {
    this.child = child;
    for (const stream of [child.stdout!, child.stderr!]) stream.on("data", (chunk: Buffer) => (this.text += chunk.toString()));
    this.exited = new Promise((resolve) => child.once("exit", (code, signal) => {
      this.ended = true;
      resolve({ code, signal });
    }));
  }

  get pid(): number {
    return this.child.pid!;
  }

  get output(): string {
    return this.text;
  }

  /** `http://host:port`, once it listens. */
  async address(): Promise<string> {
    await waitFor(() => Promise.resolve(this.ended || /listens on http:\S+/.test(this.text)), "the daemon to listen");
    const found = /listens on (http:\S+)/.exec(this.text)?.[1];
    if (found === undefined) throw new Error(`the daemon ended before it listened:\n${this.text}`);
    return found;
  }

  async status(): Promise<StatusDocument> {
    return (await (await fetch(`${await this.address()}/api/v1/status`)).json()) as StatusDocument;
  }

  async post(path: string, body?: unknown): Promise<void> {
    const response = await fetch(`${await this.address()}/api/v1${path}`, {
      method: "POST", ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  }

  /** Until the status fulfils a condition; throws with the last status when that takes too long. */
  async until(condition: (status: StatusDocument) => boolean, what: string, timeoutMs = 60_000): Promise<StatusDocument> {
    let last: StatusDocument | null = null;
    await waitFor(async () => condition((last = await this.status())), () => `${what}; last status ${JSON.stringify(last?.halt ?? last?.state)}\n${this.text.slice(-2000)}`, timeoutMs);
    return last!;
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  async kill(): Promise<Exit> {
    if (!this.ended) this.child.kill("SIGKILL");
    return this.exited;
  }

  async stop(): Promise<Exit> {
    if (!this.ended) this.child.kill("SIGTERM");
    return this.exited;
  }
}

export async function waitFor(condition: () => Promise<boolean>, what: string | (() => string), timeoutMs = 60_000): Promise<void> {
  for (const end = Date.now() + timeoutMs; Date.now() < end; await sleep(25)) if (await condition()) return;
  throw new Error(`waited ${timeoutMs} ms in vain for ${typeof what === "string" ? what : what()}`);
}

/** A port that nobody listens on at this moment. */
export async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
