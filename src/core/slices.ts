/**
 * What the mirror has touched since the last proof, as slices of a class's key space.
 *
 * A slice is a small aligned range of the leading key column: 32 consecutive integers, or the UUIDs that share their first
 * 48 bits. No table of bounds is needed, keys that are added later have their slices already, and both databases find the
 * rows of a slice by their index. Classes with another kind of key are one slice: they are read whole when touched.
 */
import type { ClassChanges } from "./changes.ts";
import type { ComparedClass, LeftOut, SliceKind } from "./comparison.ts";
import type { ClassBatch, TouchRecord, ValueFormat } from "./ports.ts";
import type { RecordClass } from "./words.ts";

/** Consecutive integers in a slice. */
export const SLICE_SIZE = 32n;
/** Beyond this many the class counts as touched everywhere: reading it whole is then the quicker way. */
export const MOST_SLICES = 50_000;

/** The half-open marks between two cuts. One per session: what was recorded in a transaction that failed is forgotten with it. */
export class TouchLedger {
  private readonly kinds: ReadonlyMap<string, SliceKind>;
  private readonly seen = new Map<string, Set<string> | null>();
  private fresh = new Map<string, string[] | null>();
  private watched: Map<string, Set<string> | null> | null = null;
  private readonly integer: (bytes: Buffer, at: number) => string | number;
  private readonly uuid: (bytes: Buffer, at: number) => string;
  private now: bigint;

  /** `format` is how the stream's rows are encoded. */
  constructor(kinds: ReadonlyMap<string, SliceKind>, format: ValueFormat, generation: bigint) {
    this.kinds = kinds;
    this.integer = format === "binary" ? binaryIntegerSlice : textIntegerSlice;
    this.uuid = format === "binary" ? binaryUuidSlice : textUuidSlice;
    this.now = generation;
  }

  get generation(): bigint {
    return this.now;
  }

  /** From here on marks belong to the next generation; returns the one that has ended. To be called while the pipeline is held. */
  rotate(): bigint {
    this.seen.clear();
    this.fresh = new Map();
    return this.now++;
  }

  /** From here on what is touched is kept apart as well, until `watchedSlices` takes it. To be called while the pipeline is held. */
  watch(): void {
    this.watched = new Map();
  }

  watchedSlices(): LeftOut {
    const { watched } = this;
    this.watched = null;
    return new Map([...(watched ?? [])].map(([name, slices]) => [name, slices === null ? null : [...slices]]));
  }

  note(classes: readonly ClassBatch[]): void {
    for (const { cls, changes } of classes) {
      if (this.seen.get(cls.name) === null && (this.watched === null || this.watched.get(cls.name) === null)) continue;
      const kind = this.kinds.get(cls.name);
      if (kind === "integer") this.noteKeys(cls, changes, this.integer);
      else if (kind === "uuid") this.noteKeys(cls, changes, this.uuid);
      else this.noteWhole(cls);
    }
  }

  /** Neighbours mostly share their slice: it is looked up once for all of them. */
  private noteKeys(cls: RecordClass, changes: ClassChanges, sliceOf: (bytes: Buffer, at: number) => string | number): void {
    let last: string | number | null = null;
    changes.forEachKey((bytes, at) => {
      const slice = sliceOf(bytes, at);
      if (slice === last) return;
      last = slice;
      this.add(cls, slice);
    });
  }

  noteWhole(cls: RecordClass): void {
    this.watched?.set(cls.name, null);
    this.markWhole(cls);
  }

  private markWhole(cls: RecordClass): void {
    if (this.seen.get(cls.name) === null) return;
    this.seen.set(cls.name, null);
    this.fresh.set(cls.name, null);
  }

  /** What has to be recorded in the transaction that is about to commit. */
  take(): TouchRecord | null {
    if (this.fresh.size === 0) return null;
    const touches = this.fresh;
    this.fresh = new Map();
    return { generation: this.now, touches };
  }

  private add(cls: RecordClass, slice: string | number): void {
    const name = String(slice);
    if (this.watched !== null && addTo(this.watched, cls.name, name) === "full") this.watched.set(cls.name, null);
    const added = addTo(this.seen, cls.name, name);
    if (added === "full") this.markWhole(cls);
    if (added !== "new") return;
    const fresh = this.fresh.get(cls.name);
    if (fresh === undefined) this.fresh.set(cls.name, [name]);
    else fresh?.push(name);
  }
}

function addTo(sets: Map<string, Set<string> | null>, className: string, slice: string): "new" | "known" | "full" {
  let slices = sets.get(className);
  if (slices === null) return "known";
  if (slices === undefined) sets.set(className, (slices = new Set()));
  if (slices.has(slice)) return "known";
  if (slices.size >= MOST_SLICES) return "full";
  slices.add(slice);
  return "new";
}

/** Values stand in a row as an int32 length and their bytes. */
function binaryIntegerSlice(bytes: Buffer, at: number): number | string {
  switch (bytes.readInt32BE(at)) {
    case 2: return bytes.readInt16BE(at + 4) >> 5;
    case 4: return bytes.readInt32BE(at + 4) >> 5;
    default: return (bytes.readBigInt64BE(at + 4) >> 5n).toString();
  }
}

function textIntegerSlice(bytes: Buffer, at: number): number | string {
  const text = bytes.toString("latin1", at + 4, at + 4 + bytes.readInt32BE(at));
  return text.length < 10 ? Number(text) >> 5 : (BigInt(text) >> 5n).toString();
}

function binaryUuidSlice(bytes: Buffer, at: number): string {
  return bytes.toString("hex", at + 4, at + 10);
}

function textUuidSlice(bytes: Buffer, at: number): string {
  return bytes.toString("latin1", at + 4, at + 4 + bytes.readInt32BE(at)).replaceAll("-", "").slice(0, 12).toLowerCase();
}

/** Between different engines: integers on both sides are divided alike, everything else is read whole. */
export function sliceKindAcross({ cls, source, target }: ComparedClass): "integer" | "whole" {
  const column = cls.columns.find((one) => one.target === cls.key[0]);
  const [from, to] = [source.columns.find((one) => one.name === column?.from), target.columns.find((one) => one.name === column?.target)];
  return from?.common.kind === "integer" && to?.common.kind === "integer" ? "integer" : "whole";
}
