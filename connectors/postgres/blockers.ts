/** Who is in the way of a lock, and when to stop waiting for it. */
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import type { LockHolder } from "../../src/core/index.ts";

/** Well within the second after which an application's own look for deadlocks would make it fail. */
const WATCH_MS = 150;

/**
 * Looks who is in the way of a lock while it is waited for: afterwards nobody can say. Whoever is in the way and waits for us too
 * would be made to fail by the server after a second; so the waiting ends before, and can be begun again.
 */
export class BlockerWatch {
  /** The latest that were found. */
  seen: readonly LockHolder[] = [];
  yielded = false;
  private readonly pool: pg.Pool;
  private readonly waiting: number;
  private readonly holders: (tables: readonly string[]) => Promise<LockHolder[]>;

  constructor(pool: pg.Pool, waiting: pg.Client, holders: (tables: readonly string[]) => Promise<LockHolder[]>) {
    this.pool = pool;
    this.waiting = (waiting as unknown as { processID: number }).processID;
    this.holders = holders;
  }

  async during(tables: readonly string[], patience: number, wait: () => Promise<unknown>): Promise<void> {
    const over = new AbortController();
    const watching = this.watch(tables, Math.min(WATCH_MS, Math.max(10, patience / 4)), over.signal).catch(() => undefined); // the lock's own error is the one to report
    try {
      await wait();
    } finally {
      over.abort();
      await watching;
    }
  }

  private async watch(tables: readonly string[], pause: number, signal: AbortSignal): Promise<void> {
    while (true) {
      await sleep(pause, undefined, { signal });
      const blockers = await this.blockersOf([this.waiting]);
      const found = (await this.holders(tables)).filter(({ pid }) => blockers.has(pid ?? 0));
      if (found.length > 0) this.seen = found;
      if (!signal.aborted && (await this.waitForUs(blockers))) return this.yield();
    }
  }

  private async waitForUs(blockers: ReadonlySet<number>): Promise<boolean> {
    const known = new Set(blockers);
    for (let next = blockers; next.size > 0;) {
      const behind = await this.blockersOf([...next]);
      if (behind.has(this.waiting)) return true;
      next = new Set([...behind].filter((pid) => !known.has(pid)));
      for (const pid of next) known.add(pid);
    }
    return false;
  }

  private async yield(): Promise<void> {
    this.yielded = true;
    await this.pool.query("SELECT pg_cancel_backend($1)", [this.waiting]);
  }

  private async blockersOf(pids: readonly number[]): Promise<Set<number>> {
    const { rows } = await this.pool.query<{ pid: number }>("SELECT DISTINCT b AS pid FROM unnest($1::int[]) AS w (pid), unnest(pg_blocking_pids(w.pid)) AS b", [pids]);
    return new Set(rows.map(({ pid }) => pid));
  }
}
