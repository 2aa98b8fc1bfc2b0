/** The writing thread: one commit per message, so that fsync never holds up the mirror. */
import { parentPort, workerData } from "node:worker_threads";
import { DualrunError, isDualrunError, type StreamTable } from "../../src/core/index.ts";
import { Store, isOutOfRoom, storeError, type NewRecord, type StoreOptions, type StoreState } from "./store.ts";

const RETRY_MS = 500;

export type Task =
  | { readonly kind: "append"; readonly records: readonly NewRecord[]; readonly tables: readonly { readonly id: number; readonly table: StreamTable }[] }
  | { readonly kind: "trim" | "begin"; readonly seq: number; readonly position: string }
  | { readonly kind: "cut"; readonly seq: number };

/** `number` is the message's own; `close` has no answer. */
export type Work = { readonly number: number; readonly task: Task } | "close";

export type Report =
  | { readonly kind: "opened"; readonly state: StoreState }
  | { readonly kind: "done"; readonly number: number; readonly bytes: number }
  /** It is tried again until there is room. */
  | { readonly kind: "waiting"; readonly reason: string }
  | { readonly kind: "failed"; readonly code: DualrunError["code"]; readonly message: string };

const port = parentPort!;
const options = workerData as StoreOptions;
const report = (message: Report): void => port.postMessage(message);
const queue: Exclude<Work, "close">[] = [];
let retry: NodeJS.Timeout | null = null;

function fail(error: unknown): void {
  const known = storeError(error, options.path);
  report({ kind: "failed", code: isDualrunError(known) ? known.code : "DR9001", message: (known as Error).message });
  port.close();
}

function perform(store: Store, task: Task): void {
  switch (task.kind) {
    case "append": return store.append(task.records, task.tables);
    case "trim": return store.trim(task.seq, task.position);
    case "begin": return store.begin(task.seq, task.position);
    case "cut": return store.cut(task.seq);
  }
}

function goOn(store: Store): void {
  while (queue.length > 0 && retry === null) {
    const { number, task } = queue[0]!;
    try {
      perform(store, task);
      queue.shift();
      report({ kind: "done", number, bytes: store.bytes() });
    } catch (error) {
      if (!isOutOfRoom(error)) return fail(error);
      report({ kind: "waiting", reason: (error as Error).message });
      retry = setTimeout(() => again(store), RETRY_MS);
    }
  }
}

/** What makes room goes first. */
function again(store: Store): void {
  retry = null;
  queue.sort((a, b) => Number(b.task.kind === "trim") - Number(a.task.kind === "trim"));
  goOn(store);
}

function close(store: Store): void {
  if (retry !== null) clearTimeout(retry);
  store.close();
  port.close();
}

try {
  const store = new Store(options);
  report({ kind: "opened", state: store.recover() });
  port.on("message", (work: Work) => {
    if (work === "close") return close(store);
    queue.push(work);
    goOn(store);
  });
} catch (error) {
  fail(error);
}
