/** How a live business is paced, counted and ended, whichever engine it writes to: see workload.ts and mysql-workload.ts. */
import { setTimeout as sleep } from "node:timers/promises";

export const WORKLOAD_KINDS = [
  "invoice",
  "payment",
  "refund",
  "creditNote",
  "stateUpdate",
  "deleteDraft",
  "keyChange",
  "keySwap",
  "profileUpdate",
  "rolledBack",
  "savepoint",
  "large",
] as const;

export type WorkloadKind = (typeof WORKLOAD_KINDS)[number];

export interface WorkloadOptions {
  /** The rate is approached and never exceeded; default 200. */
  readonly transactionsPerSecond?: number;
  /** The same seed gives the same choices per client; how the clients interleave is up to the server. Default 1. */
  readonly seed?: number;
  /** Connections that work at the same time; default 4. */
  readonly clients?: number;
  /** How often each kind is chosen, relative to the others; overrides the defaults kind by kind. */
  readonly mix?: Partial<Record<WorkloadKind, number>>;
  /** Rows of a large transaction; default 20,000. */
  readonly largeRows?: number;
}

export interface WorkloadTotals {
  readonly committed: number;
  readonly rolledBack: number;
  /** Deadlocks and serialization failures, each of which was tried again. */
  readonly retried: number;
  /** Rows written by committed transactions, without those that foreign keys cascaded to. */
  readonly rows: number;
  readonly seconds: number;
  /** Finished transactions of each kind; one that found nothing to work on is in none. */
  readonly kinds: Readonly<Record<WorkloadKind, number>>;
}

export interface Workload {
  totals(): WorkloadTotals;
  /** Lets the running transactions end, and disconnects. Rejects with the error that stopped the workload before, if one did. */
  stop(): Promise<WorkloadTotals>;
  /** Settles when the workload has ended, whether by `stop` or by an error. */
  readonly ended: Promise<WorkloadTotals>;
}

const DEFAULT_MIX: Readonly<Record<WorkloadKind, number>> = {
  invoice: 2800,
  payment: 2800,
  refund: 400,
  creditNote: 500,
  stateUpdate: 1500,
  deleteDraft: 500,
  keyChange: 300,
  keySwap: 150,
  profileUpdate: 500,
  rolledBack: 250,
  savepoint: 300,
  large: 2,
};

/** How one engine is written to. */
export interface WorkloadDialect<Client> {
  connect(url: string): Promise<Client>;
  /** Never rejects. */
  disconnect(client: Client): Promise<unknown>;
  run(client: Client, statement: "begin" | "commit" | "rollback"): Promise<unknown>;
  /** A deadlock or the like: the transaction can be tried again. */
  isRetriable(error: unknown): boolean;
  /** Each resolves to the number of rows it wrote, 0 if it found nothing to work on. */
  readonly transactions: Readonly<Record<WorkloadKind, (worker: Worker<Client>) => Promise<number>>>;
}

/** One connection at work. */
export interface Worker<Client> {
  readonly client: Client;
  readonly random: Random;
  readonly counts: Counts;
  readonly largeRows: number;
}

/** Starts writing to a seeded demo schema until `stop` is called or an error other than a deadlock or serialization failure occurs. */
export async function runWorkload<Client>(dialect: WorkloadDialect<Client>, url: string, options: WorkloadOptions): Promise<Workload> {
  const counts = new Counts();
  const pace = new Pace(options.transactionsPerSecond ?? 200);
  const mix = { ...DEFAULT_MIX, ...options.mix };
  const clients = await connectAll(dialect, url, options.clients ?? 4);
  const workers = clients.map((client, index) => {
    const random = new Random((options.seed ?? 1) * 7919 + index);
    return work(dialect, { client, random, counts, largeRows: options.largeRows ?? 20_000 }, mix, pace);
  });
  const ended = finish(dialect, clients, workers, pace, counts);
  ended.catch(() => undefined); // stop() rejects with it
  return {
    ended,
    totals: () => counts.totals(),
    stop: () => {
      pace.stop();
      return ended;
    },
  };
}

async function connectAll<Client>(dialect: WorkloadDialect<Client>, url: string, count: number): Promise<Client[]> {
  const connected = await Promise.allSettled(Array.from({ length: count }, () => dialect.connect(url)));
  const clients = connected.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
  const failure = connected.find((result) => result.status === "rejected");
  if (failure === undefined) return clients;
  await Promise.all(clients.map((client) => dialect.disconnect(client)));
  throw failure.reason;
}

/** One failing worker ends them all. */
async function finish<Client>(dialect: WorkloadDialect<Client>, clients: readonly Client[], workers: readonly Promise<void>[], pace: Pace, counts: Counts): Promise<WorkloadTotals> {
  try {
    await Promise.all(workers);
    return counts.totals();
  } finally {
    pace.stop();
    await Promise.allSettled(workers);
    counts.end();
    await Promise.all(clients.map((client) => dialect.disconnect(client)));
  }
}

async function work<Client>(dialect: WorkloadDialect<Client>, worker: Worker<Client>, mix: Readonly<Record<WorkloadKind, number>>, pace: Pace): Promise<void> {
  while (await pace.turn()) {
    const kind = worker.random.weighted(mix);
    while (!(await attempt(dialect, worker, kind))) {
      worker.counts.retry();
      if (!(await pace.turn())) return;
    }
  }
}

/** False if the transaction has to be tried again. */
async function attempt<Client>(dialect: WorkloadDialect<Client>, worker: Worker<Client>, kind: WorkloadKind): Promise<boolean> {
  const { client, counts } = worker;
  try {
    await dialect.run(client, "begin");
    const rows = await dialect.transactions[kind](worker);
    await dialect.run(client, rows === 0 || kind === "rolledBack" ? "rollback" : "commit");
    if (rows > 0) counts.done(kind, rows);
    return true;
  } catch (error) {
    if (!dialect.isRetriable(error)) throw error;
    await dialect.run(client, "rollback");
    return false;
  }
}

// ---- pace and counts ---------------------------------------------------------------------------------------------

/** How far behind the clock the workload may be and still catch up. */
const CATCH_UP_MS = 50;

/** Hands out moments at the given rate; what was missed because the server was slow stays missed. */
class Pace {
  readonly #interval: number;
  readonly #stopping = new AbortController();
  #next = performance.now();

  constructor(perSecond: number) {
    if (!(perSecond > 0)) throw new RangeError(`transactionsPerSecond is ${perSecond}; it has to be positive`);
    this.#interval = 1000 / perSecond;
  }

  stop(): void {
    this.#stopping.abort();
  }

  /** Resolves at the next free moment to true, or to false once stopped. */
  async turn(): Promise<boolean> {
    this.#next = Math.max(this.#next + this.#interval, performance.now() - CATCH_UP_MS);
    const wait = this.#next - performance.now();
    if (wait > 0) await sleep(wait, undefined, { signal: this.#stopping.signal }).catch(unlessAborted);
    return !this.#stopping.signal.aborted;
  }
}

function unlessAborted(error: unknown): void {
  if (!(error instanceof Error) || error.name !== "AbortError") throw error;
}

/** What has been done so far. */
export class Counts {
  readonly #kinds = Object.fromEntries(WORKLOAD_KINDS.map((kind) => [kind, 0])) as Record<WorkloadKind, number>;
  readonly #startedAt = performance.now();
  #endedAt: number | null = null;
  #retried = 0;
  #rows = 0;

  done(kind: WorkloadKind, rows: number): void {
    this.#kinds[kind] += 1;
    if (kind !== "rolledBack") this.#rows += rows;
  }

  retry(): void {
    this.#retried += 1;
  }

  end(): void {
    this.#endedAt ??= performance.now();
  }

  totals(): WorkloadTotals {
    const finished = Object.values(this.#kinds).reduce((sum, count) => sum + count, 0);
    return {
      committed: finished - this.#kinds.rolledBack,
      rolledBack: this.#kinds.rolledBack,
      retried: this.#retried,
      rows: this.#rows,
      seconds: ((this.#endedAt ?? performance.now()) - this.#startedAt) / 1000,
      kinds: { ...this.#kinds },
    };
  }
}

/** mulberry32: small, seeded, good enough to choose by. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** From 1 to `highest`. */
  upTo(highest: number): number {
    return 1 + Math.floor(this.next() * highest);
  }

  oneOf<T>(choices: readonly T[]): T {
    return choices[Math.floor(this.next() * choices.length)] as T;
  }

  weighted(weights: Readonly<Record<WorkloadKind, number>>): WorkloadKind {
    let left = this.next() * WORKLOAD_KINDS.reduce((sum, kind) => sum + weights[kind], 0);
    return WORKLOAD_KINDS.find((kind) => (left -= weights[kind]) < 0) ?? "invoice";
  }
}
