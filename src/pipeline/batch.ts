/** What goes to the target together: the rows of whole source transactions, or a piece of a huge one. */
import { ClassChanges, type ClassBatch, type Position } from "../core/index.ts";
import type { Mapping } from "./mapper.ts";

export class Batch {
  rows = 0;
  transactions = 0;
  /** End of the last whole transaction (or idle position) in the batch. */
  position: Position | null = null;
  /** Commit times of the first and last whole transaction, milliseconds since 1970. */
  firstCommitAt: number | null = null;
  lastCommitAt: number | null = null;
  /** When the first change came, milliseconds of the monotonic clock. */
  openedAt = 0;
  private readonly changes = new Map<Mapping, ClassChanges>();

  get bytes(): number {
    let bytes = 0;
    for (const changes of this.changes.values()) bytes += changes.bytes;
    return bytes;
  }

  get isEmpty(): boolean {
    return this.rows === 0 && this.position === null;
  }

  add(mapping: Mapping, op: number, source: Buffer, next: number, previous: number): void {
    let changes = this.changes.get(mapping);
    if (changes === undefined) {
      changes = new ClassChanges(mapping.plan);
      this.changes.set(mapping, changes);
    }
    if (this.rows++ === 0) this.openedAt = performance.now();
    changes.add(op, source, next, previous);
  }

  classes(): ClassBatch[] {
    return [...this.changes.values()].filter((changes) => changes.count > 0).map((changes) => ({ cls: changes.plan.cls, changes }));
  }

  clear(): void {
    this.rows = 0;
    this.transactions = 0;
    this.position = null;
    this.firstCommitAt = null;
    this.lastCommitAt = null;
    for (const changes of this.changes.values()) changes.clear();
  }
}
