/** The writing thread as the mirror's thread sees it: tasks in, promises out. */
import { Worker } from "node:worker_threads";
import { DualrunError } from "../../src/core/index.ts";
import type { StoreOptions, StoreState } from "./store.ts";
import type { Report, Task, Work } from "./worker.ts";

export class Writer {
  readonly opened: Promise<StoreState>;
  /** What the file takes, as of the last task that was done. */
  bytes = 0;
  /** Why nothing can be written at the moment; null: it can. */
  waiting: string | null = null;
  failure: unknown = null;
  private readonly worker: Worker;
  private readonly exited: Promise<void>;
  private readonly asked = new Map<number, PromiseWithResolvers<void>>();
  private readonly onFailure: () => void;
  private number = 0;

  constructor({ path, maxBytes, owner, key }: StoreOptions, onFailure: () => void) {
    this.onFailure = onFailure;
    this.worker = new Worker(new URL("./worker.ts", import.meta.url), { workerData: { path, maxBytes, owner, key } satisfies StoreOptions });
    const { promise, resolve, reject } = Promise.withResolvers<StoreState>();
    this.opened = promise;
    this.worker.on("message", (report: Report) => this.told(report, resolve, reject));
    this.worker.on("error", (error) => this.fail(error, reject));
    this.exited = new Promise((done) => this.worker.once("exit", () => done()));
  }

  /** Resolves when it is durable. */
  async perform(task: Task): Promise<void> {
    if (this.failure !== null) throw this.failure;
    const asked = Promise.withResolvers<void>();
    this.asked.set(++this.number, asked);
    const bodies = task.kind === "append" ? task.records.map(({ body }) => body.buffer) : [];
    this.worker.postMessage({ number: this.number, task } satisfies Work, bodies);
    return asked.promise;
  }

  async close(): Promise<void> {
    this.worker.postMessage("close" satisfies Work);
    await this.exited;
    this.fail(new Error("the journal was closed"));
  }

  private told(report: Report, opened: (state: StoreState) => void, refused: (error: unknown) => void): void {
    switch (report.kind) {
      case "opened":
        this.bytes = report.state.bytes;
        opened(report.state);
        return;
      case "waiting":
        this.waiting = report.reason;
        return;
      case "done":
        this.waiting = null;
        this.bytes = report.bytes;
        this.asked.get(report.number)?.resolve();
        this.asked.delete(report.number);
        return;
      case "failed":
        this.fail(new DualrunError(report.code, report.message, { where: "journal" }), refused);
    }
  }

  private fail(error: unknown, refused?: (error: unknown) => void): void {
    this.failure ??= error;
    refused?.(error);
    for (const asked of this.asked.values()) asked.reject(error);
    this.asked.clear();
    this.onFailure();
  }
}
