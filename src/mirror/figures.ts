/** What a mirror has done and where it stands, in memory: the source of status and metrics. */
import type { Conflict, Position, StreamHealth } from "../core/index.ts";
import type { AppliedBatch } from "../pipeline/index.ts";

/** Rates are taken over this long. */
const WINDOW_MS = 5_000;

interface ClassFigures {
  inserts: number;
  updates: number;
  deletes: number;
  truncates: number;
  conflicts: number;
}

export class MirrorFigures {
  changes = 0;
  transactions = 0;
  bytesRead = 0;
  position: Position | null = null;
  lastEventAt: number | null = null;
  lastCommitAt: number | null = null;
  health: StreamHealth | null = null;
  /** When the source's head was first seen beyond what has arrived; null when everything seen has arrived. */
  private unreached: { readonly head: Position; readonly since: number } | null = null;
  private readonly classes = new Map<string, ClassFigures>();
  private readonly samples: { readonly at: number; readonly changes: number; readonly transactions: number }[] = [];

  forClass(name: string): ClassFigures {
    let figures = this.classes.get(name);
    if (figures === undefined) {
      figures = { inserts: 0, updates: 0, deletes: 0, truncates: 0, conflicts: 0 };
      this.classes.set(name, figures);
    }
    return figures;
  }

  applied(batch: AppliedBatch): void {
    this.changes += batch.rows;
    this.transactions += batch.transactions;
    this.position = batch.position;
    this.lastEventAt = Date.now();
    this.lastCommitAt = batch.lastCommitAt ?? this.lastCommitAt;
    for (const [name, operations] of batch.operations) {
      const figures = this.forClass(name);
      figures.inserts += operations.insert;
      figures.updates += operations.update;
      figures.deletes += operations.delete;
    }
    for (const name of batch.truncates) this.forClass(name).truncates += 1;
    for (const { className } of batch.result.conflicts as readonly Conflict[]) this.forClass(className).conflicts += 1;
  }

  /** To be called regularly: keeps what the rates are taken from. */
  tick(): void {
    const now = performance.now();
    this.samples.push({ at: now, changes: this.changes, transactions: this.transactions });
    while (now - this.samples[0]!.at > WINDOW_MS) this.samples.shift();
  }

  rate(figure: "changes" | "transactions"): number {
    const first = this.samples[0];
    const last = this.samples.at(-1);
    if (first === undefined || last === undefined || last.at - first.at < 100) return 0;
    return ((last[figure] - first[figure]) / (last.at - first.at)) * 1000;
  }

  /** Notes where the source's log ends; `arrived` tells whether the stream has brought a position. */
  headSeen(head: Position, arrived: (position: Position) => boolean): void {
    if (this.unreached !== null && arrived(this.unreached.head)) this.unreached = null;
    if (!arrived(head)) this.unreached ??= { head, since: Date.now() };
  }

  /** Seconds that the target is behind: since the oldest commit that was not applied, or since the source was seen ahead of the stream. */
  lagSeconds(pendingSince: number | null, arrived: (position: Position) => boolean): number | null {
    if (this.position === null) return null;
    if (this.unreached !== null && arrived(this.unreached.head)) this.unreached = null;
    const since = Math.min(pendingSince ?? Infinity, this.unreached?.since ?? Infinity);
    return since === Infinity ? 0 : Math.max(0, (Date.now() - since) / 1000);
  }
}
