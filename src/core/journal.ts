/** What keeps a change stream safe outside the source. */
import type { ChangeBlock, StreamTable } from "./ports.ts";
import type { Position } from "./words.ts";

/** How full a journal is; `waiting`: what arrives waits for room, in the journal's own bound or on its disk. */
export type JournalLevel = "ok" | "near-limit" | "waiting";

export interface JournalFacts {
  readonly kind: "sqlite" | "kafka";
  /** What it takes on disk now, and may take at most. */
  readonly bytes: number;
  readonly maxBytes: number;
  /** Everything at or before the first is gone; everything up to the last is durable. null: it has not begun. */
  readonly first: Position | null;
  readonly last: Position | null;
  /** Commit time of the oldest transaction in it, milliseconds since 1970; null: it is empty. */
  readonly oldestCommitAt: number | null;
  readonly level: JournalLevel;
  /** Seconds for which what arrived has waited for room. */
  readonly waitedSeconds: number;
}

/** What `dualrun journal inspect` tells. */
export interface JournalInspection {
  readonly kind: JournalFacts["kind"];
  readonly path: string;
  /** Of the files, as they lie on the disk. */
  readonly bytes: number;
  readonly maxBytes: number;
  readonly owner: string;
  readonly encrypted: boolean;
  /** Everything at or before the first is gone; everything up to the last can be read. */
  readonly first: string | null;
  readonly last: string | null;
  readonly records: number;
  /** Whole ones. */
  readonly transactions: number;
  /** Records of a transaction that is not received to its end. */
  readonly uncommittedRecords: number;
  /** ISO time. */
  readonly oldestCommitAt: string | null;
  readonly intact: boolean;
  readonly fault: string | null;
}

/**
 * Keeps the change stream outside the source. It knows the source's positions and nothing else of it: the checkpoint in the target
 * stays the truth, so that the kind of journal can be changed.
 */
export interface Journal extends AsyncDisposable {
  /** What the table indexes of blocks that are read point into. Grows. */
  readonly tables: readonly StreamTable[];
  /** Empties it; the stream goes on behind `position`. */
  begin(position: Position): Promise<void>;
  /**
   * Resolves when the block is durable. The block's bytes are taken before the first await. What the journal has already is left out.
   * Rejects with DR5105 when one transaction is larger than the journal may be.
   */
  append(block: ChangeBlock, tables: readonly StreamTable[]): Promise<void>;
  /** Whole transactions behind `after`, in order, without holes: first those that stand there, then what comes. Ends on abort; DR5101 when a record is damaged. */
  read(after: Position, signal: AbortSignal): AsyncIterable<ChangeBlock>;
  /** Everything at or before it may be gone; null: it has not begun. */
  start(): Position | null;
  /** End of the last whole transaction that is durable: what the source may forget. */
  durable(): Position | null;
  /** Transactions up to there are not needed any more; they go when it suits. */
  trim(upTo: Position): Promise<void>;
  /** Forgets the transaction that was not appended to its end: to be called before a stream is opened behind `durable()`. */
  cutOff(): Promise<void>;
  facts(): JournalFacts;
}
