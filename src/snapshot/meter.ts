/** How far the copy is, and when it will be done. */
import type { ChunkMark, RowBatch, Snapshot, SnapshotProgress } from "../core/index.ts";

/** Rates are taken over this long. */
const WINDOW_MS = 10_000;

interface ClassCount {
  rows: number;
  expectedRows: number;
  bytes: number;
  expectedBytes: number;
  refused: number;
  chunksDone: number;
  chunks: number;
}

const NOTHING: Readonly<ClassCount> = { rows: 0, expectedRows: 0, bytes: 0, expectedBytes: 0, refused: 0, chunksDone: 0, chunks: 0 };

export class SnapshotMeter {
  private readonly classes = new Map<string, ClassCount>();
  private readonly samples: { readonly at: number; readonly rows: number }[] = [];
  /** The latest; it stays when it is closed, for its position. */
  private snapshot: Pick<Snapshot, "position" | "openedAt" | "holds"> | null = null;
  private isOpen = false;

  /** Starts from what the target says is done. */
  begin(marks: readonly ChunkMark[]): void {
    this.classes.clear();
    this.samples.length = 0;
    for (const mark of marks) {
      const count = this.of(mark.className);
      count.chunks += 1;
      count.expectedRows += mark.done ? mark.rows + mark.refused : mark.estimatedRows;
      count.expectedBytes += mark.done ? mark.bytes : mark.estimatedBytes;
      if (!mark.done) continue;
      count.chunksDone += 1;
      count.rows += mark.rows;
      count.bytes += mark.bytes;
      count.refused += mark.refused;
    }
  }

  opened(snapshot: Snapshot): void {
    this.snapshot = snapshot;
    this.isOpen = true;
  }

  closed(): void {
    this.isOpen = false;
  }

  received(className: string, batch: RowBatch): void {
    const count = this.of(className);
    count.rows += batch.rows;
    count.bytes += batch.bytes.length;
    const now = performance.now();
    if (now - (this.samples.at(-1)?.at ?? 0) < 200) return;
    this.samples.push({ at: now, rows: this.total("rows") });
    while (now - this.samples[0]!.at > WINDOW_MS) this.samples.shift();
  }

  /** Puts the exact figures of a finished chunk in the place of what was received for it. */
  chunkDone(className: string, received: { rows: number; bytes: number }, exact: { rows: number; bytes: number; refused: number }): void {
    const count = this.of(className);
    count.rows += exact.rows - received.rows;
    count.bytes += exact.bytes - received.bytes;
    count.refused += exact.refused;
    count.chunksDone += 1;
    if (count.chunksDone === count.chunks) {
      count.expectedRows = count.rows + count.refused;
      count.expectedBytes = count.bytes;
    }
  }

  /** Takes back what was received for a chunk that failed. */
  chunkFailed(className: string, received: { rows: number; bytes: number }): void {
    const count = this.of(className);
    count.rows -= received.rows;
    count.bytes -= received.bytes;
  }

  forClass(className: string): Readonly<ClassCount> {
    return this.classes.get(className) ?? NOTHING;
  }

  get refused(): number {
    return this.total("refused");
  }

  get rows(): number {
    return this.total("rows");
  }

  get expectedRows(): number {
    return this.total("expectedRows");
  }

  get done(): boolean {
    return [...this.classes.values()].every((count) => count.chunksDone === count.chunks);
  }

  progress(): SnapshotProgress | null {
    if (this.classes.size === 0) return null;
    const rate = this.done ? 0 : this.rowsPerSecond();
    const left = Math.max(0, this.expectedRows - this.rows);
    return {
      position: this.snapshot?.position ?? "",
      openedAt: this.snapshot?.openedAt.toISOString() ?? "",
      ageSeconds: this.snapshot === null || !this.isOpen ? 0 : (Date.now() - this.snapshot.openedAt.getTime()) / 1000,
      holds: this.isOpen ? (this.snapshot?.holds ?? "") : "",
      rows: this.rows,
      expectedRows: Math.round(this.expectedRows),
      bytes: this.total("bytes"),
      expectedBytes: Math.round(this.total("expectedBytes")),
      refused: this.refused,
      rowsPerSecond: Math.round(rate),
      etaSeconds: this.done ? 0 : rate > 0 ? left / rate : null,
      done: this.done,
    };
  }

  private rowsPerSecond(): number {
    const first = this.samples[0];
    const last = this.samples.at(-1);
    if (first === undefined || last === undefined || last.at === first.at) return 0;
    return ((last.rows - first.rows) / (last.at - first.at)) * 1000;
  }

  private of(className: string): ClassCount {
    let count = this.classes.get(className);
    if (count === undefined) {
      count = { ...NOTHING };
      this.classes.set(className, count);
    }
    return count;
  }

  private total(figure: keyof ClassCount): number {
    let sum = 0;
    for (const count of this.classes.values()) sum += count[figure];
    return sum;
  }
}
