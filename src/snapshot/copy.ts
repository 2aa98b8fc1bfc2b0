/** Copies the chunks of an open snapshot, several at a time. */
import { setTimeout as sleep } from "node:timers/promises";
import {
  DualrunError, isDualrunError,
  type Checkpoint, type ChunkMark, type LoadResult, type RecordClass, type RowBatch, type Snapshot, type Target, type ValueFormat,
} from "../core/index.ts";
import type { SnapshotMeter } from "./meter.ts";

export interface CopyOptions {
  readonly snapshot: Snapshot;
  readonly target: Target;
  readonly held: Checkpoint;
  readonly classes: ReadonlyMap<string, RecordClass>;
  readonly formats: ReadonlyMap<string, ValueFormat>;
  readonly parallel: number;
  /** 0: as fast as it goes. */
  readonly maxRowsPerSecond: number;
  /** 0 … 1 */
  readonly maxRefusedShare: number;
  /** Milliseconds; 0: no bound. After it no further chunk is begun, except of a class without a key that is under way. */
  readonly maxAge: number;
  /** Rows that the stream has brought already may be there. */
  readonly merge: boolean;
  readonly meter: SnapshotMeter;
  readonly signal: AbortSignal;
}

/** Returns true when all chunks are done, false when the snapshot grew too old before. */
export async function copyChunks(chunks: readonly ChunkMark[], options: CopyOptions): Promise<boolean> {
  const queue = chunks.filter((chunk) => !chunk.done);
  const cancel = new AbortController();
  const signal = AbortSignal.any([options.signal, cancel.signal]);
  const throttle = new Throttle(options.maxRowsPerSecond);
  const isTooOld = (): boolean => options.maxAge > 0 && Date.now() - options.snapshot.openedAt.getTime() > options.maxAge;
  const begun = new Set<string>();
  // A class without a key means something in one snapshot only: once begun it is finished, or it would begin for ever.
  const next = (): ChunkMark | undefined => {
    const place = isTooOld() ? queue.findIndex(({ resumable, className }) => !resumable && begun.has(className)) : 0;
    return place < 0 ? undefined : queue.splice(place, 1)[0];
  };
  const worker = async (number: number): Promise<void> => {
    for (let chunk = next(); chunk !== undefined && !signal.aborted; chunk = next()) {
      begun.add(chunk.className);
      await copyChunk(chunk, number, throttle, { ...options, signal });
      refuseTooManyRefusals(options);
    }
  };
  const workers = Array.from({ length: Math.max(1, Math.min(options.parallel, queue.length)) }, (_, number) =>
    worker(number).catch((error: unknown) => {
      cancel.abort(error);
      throw error;
    }));
  const failed = (await Promise.allSettled(workers)).find((result) => result.status === "rejected");
  options.signal.throwIfAborted();
  if (cancel.signal.aborted) throw cancel.signal.reason;
  if (failed !== undefined) throw failed.reason;
  return queue.length === 0;
}

async function copyChunk(chunk: ChunkMark, worker: number, throttle: Throttle, options: CopyOptions): Promise<void> {
  try {
    await load(chunk, worker, throttle, options, false);
  } catch (error) {
    if (options.maxRefusedShare <= 0 || !isDualrunError(error) || error.code !== "DR5002") throw error;
    await load(chunk, worker, throttle, options, true);
  }
}

async function load(chunk: ChunkMark, worker: number, throttle: Throttle, options: CopyOptions, careful: boolean): Promise<void> {
  const { snapshot, target, held, meter, merge, signal } = options;
  const cls = options.classes.get(chunk.className)!;
  const format = careful ? "text" : options.formats.get(cls.name)!;
  const received = { rows: 0, bytes: 0 };
  const metered = async function* (): AsyncGenerator<RowBatch> {
    for await (const batch of snapshot.read(chunk, cls, format, worker, signal)) {
      received.rows += batch.rows;
      received.bytes += batch.bytes.length;
      meter.received(cls.name, batch);
      yield batch;
      await throttle.pass(batch.rows, signal);
    }
  };
  let result: LoadResult;
  try {
    result = await target.load(chunk, cls, format, metered(), held, snapshot.position, { merge, careful }, worker);
  } catch (error) {
    meter.chunkFailed(cls.name, received);
    throw error;
  }
  meter.chunkDone(cls.name, received, result);
}

function refuseTooManyRefusals({ meter, maxRefusedShare }: CopyOptions): void {
  if (meter.refused <= maxRefusedShare * Math.max(meter.rows + meter.refused, meter.expectedRows / 10)) return;
  throw new DualrunError("DR6001", `${meter.refused} of ${meter.rows + meter.refused} rows were refused by the target`, { where: "snapshot" });
}

/** Lets so many rows pass in a second, all workers together. */
class Throttle {
  private readonly rowsPerSecond: number;
  private free = performance.now();

  constructor(rowsPerSecond: number) {
    this.rowsPerSecond = rowsPerSecond;
  }

  async pass(rows: number, signal: AbortSignal): Promise<void> {
    if (this.rowsPerSecond <= 0) return;
    const now = performance.now();
    this.free = Math.max(this.free, now) + (rows * 1000) / this.rowsPerSecond;
    if (this.free > now) await sleep(this.free - now, undefined, { signal });
  }
}
