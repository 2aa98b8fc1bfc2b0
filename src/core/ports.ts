/** The ports that everything hangs on. Connectors implement them; nothing here knows an engine. */
import type { ClassChanges } from "./changes.ts";
import type { Conversion } from "./common-types.ts";
import type { Catalogue, Dialect, EngineTypes, Finding } from "./catalogue.ts";
import type { Checkpoint, Position, Positions, RecordClass } from "./words.ts";
import type { Freezable, SequenceAdvance, SequenceValue } from "./freeze.ts";
import type { TableName } from "./names.ts";
import type { ComparedClass, CutReader, ReadLimits, RowRepair, Scratch, SliceKind, SourceCut } from "./comparison.ts";

export interface TlsOptions {
  readonly mode: "disable" | "require" | "verify-ca" | "verify-full";
  /** PEM text. */
  readonly ca?: string;
}

export interface Endpoint {
  /** With credentials: never to be logged. */
  readonly url: string;
  readonly tls: TlsOptions;
}

export interface Engine extends EngineTypes {
  readonly name: "postgres" | "mysql" | "mariadb";
  /** `replica` is what comparisons read instead; null: the source itself. */
  connectSource(endpoint: Endpoint, migration: string, replica: Endpoint | null): Promise<Source>;
  connectTarget(endpoint: Endpoint, migration: string): Promise<Target>;
  /** The same work can succeed later: connection lost, server restarting, deadlock, disk full. */
  isTransient(error: unknown): boolean;
}

/** What a stream and a copy hand over for a class: how values are encoded. Text is always possible. */
export type ValueFormat = "text" | "binary";

// ---------------------------------------------------------------- change stream

export const ENTRY = {
  begin: 0, commit: 1, insert: 2, update: 3, delete: 4, truncate: 5,
  /** Nothing is in flight: everything before `position` has been handed over. */
  idle: 6,
  /** A marker that `Source.mark` wrote. */
  mark: 7,
  /** The layout of a mapped table is not the one that was known: the stream must halt here. */
  schema: 8,
} as const;

/** Int32 words per entry: kind, table (index into `ChangeStream.tables`), offset of the new image, offset of the old one (-1: none). */
export const ENTRY_WORDS = 4;

/** The entries of one received chunk, in log order, over one buffer that stays untouched until the block is dropped. */
export interface ChangeBlock {
  readonly buffer: Buffer;
  readonly words: Int32Array;
  readonly count: number;
  /** For begin, commit, idle and mark. Begin: where the commit record starts, so its end is after it. */
  position(entry: number): Position;
  /** Milliseconds since 1970, for begin and commit. */
  committedAt(entry: number): number;
  /** For begin: the number by which the source's snapshots know the transaction, 32 bits; 0 where there is none. */
  transactionNumber(entry: number): number;
  /** For mark: what was written. */
  mark(entry: number): string;
  schemaChange(entry: number): SchemaChange;
}

export interface StreamTable {
  readonly table: TableName;
  readonly columns: readonly string[];
  readonly fullBeforeImage: boolean;
}

export interface SchemaChange {
  readonly table: TableName;
  /** One line per difference: `column "note" was added`. */
  readonly differences: readonly string[];
  /** It stands in the log (a trigger wrote it) or in a journal where it happened, and comes again whenever that place is read again. */
  readonly announced?: true;
}

/** Writes schema changes into the source's log, so that the stream halts exactly there. The operator's choice. */
export interface SchemaTrigger {
  readonly statements: readonly string[];
  isInstalled(): Promise<boolean>;
  install(): Promise<void>;
  remove(): Promise<void>;
}

export interface ChangeStream extends AsyncDisposable {
  /** Grows as the stream meets tables; an entry's table index points into it. */
  readonly tables: readonly StreamTable[];
  /** Back pressure: nothing is read from the network while nobody pulls. Ends on abort, throws a DualrunError on failure. */
  blocks(): AsyncIterable<ChangeBlock>;
  /** Only ever a position whose effects are durable. */
  acknowledge(durable: Position): void;
  /** The highest position that the source has told of, applied or not. */
  head(): Position;
  bytesRead(): number;
}

// ---------------------------------------------------------------- source

/** What was agreed upon when a table was copied: the mirror halts when it changes. */
export interface TableLayout {
  /** One line per column: name and type, as the engine identifies it. */
  readonly columns: readonly string[];
  /** Other facts that the mirror relies upon, one per line. */
  readonly facts: readonly string[];
  /** The table's changes are in the stream; not part of what is agreed upon. */
  readonly streamed?: boolean;
}

export interface StreamHealth {
  readonly head: Position;
  /** Bytes of log that the source keeps for us; null when unknown. */
  readonly retainedBytes: number | null;
  readonly state: "ok" | "near-limit" | "lost" | "missing";
  readonly detail: string;
}

export interface Source extends AsyncDisposable, Freezable {
  readonly positions: Positions;
  /** When the server's certificate expires; null without TLS. */
  certificateExpiry(): Promise<Date | null>;
  /** Identity of the server, with its timeline: what a position belongs to. */
  identity(): Promise<string>;
  inspect(): Promise<Catalogue>;
  preflight(classes: readonly RecordClass[], catalogue: Catalogue): Finding[];
  /** Statements that grant the least that is needed. */
  grants(classes: readonly RecordClass[], catalogue: Catalogue): string[];
  head(): Promise<Position>;
  /**
   * Returns a position at or after the end of everything committed before the call,
   * and writes `token` into the log behind it, so that every stream comes to pass that position.
   */
  mark(token: string): Promise<Position>;
  /** Makes the stream carry exactly these classes, from now on. */
  publish(classes: readonly RecordClass[]): Promise<void>;
  /** `first` makes slot and publication; `more` is a later snapshot beside a running stream. `readers` connections share it. `signal` ends the waiting. */
  openSnapshot(classes: readonly RecordClass[], purpose: "first" | "more", readers: number, signal: AbortSignal): Promise<Snapshot>;
  /** Refuses (DR4002…DR4005) a checkpoint that this source cannot continue from: DR4002 where it was told to forget more. Returns the source's present identity. */
  resumeCheck(checkpoint: Checkpoint): Promise<string>;
  openStream(after: Position, format: ValueFormat, layouts: ReadonlyMap<string, TableLayout>, signal: AbortSignal): Promise<ChangeStream>;
  /** Connects what a cut through `tables` needs, so that taking it is quick. `passed` are the transactions that the mirror has come past. */
  prepareCut(limits: ReadLimits, passed: PassedTransactions, tables: readonly TableName[]): Promise<CutMaker>;
  /** Lets go of the transactions that every snapshot from now on shows. */
  forgetVisible(passed: PassedTransactions): Promise<void>;
  /** For the self-test. */
  scratch(limits: ReadLimits): Promise<Scratch>;
  /** What the columns of the classes are numbered by, as it stands now: read it under a freeze. Throws DR6106 where a column's sequence cannot be told. */
  readSequences(classes: readonly RecordClass[]): Promise<SequenceValue[]>;
  streamHealth(): Promise<StreamHealth>;
  /** The present layouts of tables, by `schema.table`; a table that is gone is absent. */
  layouts(tables: readonly TableName[]): Promise<Map<string, TableLayout>>;
  /** One line per difference that matters to the mirror; empty: none. */
  layoutDifferences(agreed: TableLayout, found: TableLayout): string[];
  schemaTrigger(): SchemaTrigger;
  /** Removes slot, publication and what else was made on the source. */
  tearDown(): Promise<void>;
}

/** Transactions that a stream has come past and that a snapshot may not show yet, by number. What is visible once is visible for good. */
export class PassedTransactions {
  private numbers: number[] = [];

  /** 0 is no number. */
  add(number: number): void {
    if (number !== 0) this.numbers.push(number);
  }

  /** Forgets those that are visible; true when none is left. */
  keepHidden(isHidden: (number: number) => boolean): boolean {
    this.numbers = this.numbers.filter(isHidden);
    return this.numbers.length === 0;
  }
}

/** Takes one cut. Disposing it does not end a cut that was taken. */
export interface CutMaker extends AsyncDisposable {
  /** A consistent view at or after everything that was committed before the call. NotComparable after `timeout` milliseconds. */
  take(timeout: number): Promise<SourceCut>;
}

export interface Chunk {
  readonly className: string;
  /** Unique within the class, from 0. */
  readonly ordinal: number;
  /** Bounds of the key range as engine text, lower inclusive, upper exclusive; null: open. */
  readonly lower: readonly string[] | null;
  readonly upper: readonly string[] | null;
  /** False when the chunk means something in its own snapshot only (tables without a key). */
  readonly resumable: boolean;
  readonly estimatedRows: number;
  readonly estimatedBytes: number;
}

/** A piece of a copy in the target engine's own bulk encoding, as received. */
export interface RowBatch {
  readonly bytes: Buffer;
  readonly rows: number;
}

export interface Snapshot extends AsyncDisposable {
  readonly position: Position;
  readonly openedAt: Date;
  /** What it holds back on the source, as the engine says it (PostgreSQL: xmin). */
  readonly holds: string;
  plan(cls: RecordClass, chunkRows: number): Promise<Chunk[]>;
  /** Readers are independent connections; `reader` 0 … parallel-1 names one. */
  read(chunk: Chunk, cls: RecordClass, format: ValueFormat, reader: number, signal: AbortSignal): AsyncIterable<RowBatch>;
}

// ---------------------------------------------------------------- target

/** Rows of a class that go to the target together; see changes.ts for how they come to be. */
export interface ClassBatch {
  readonly cls: RecordClass;
  readonly changes: ClassChanges;
}

export interface Conflict {
  readonly className: string;
  readonly kind: "insert-found-row" | "update-found-none" | "delete-found-none";
  /** SHA-256 of the key, hex, first 16 characters. */
  readonly keyHash: string;
}

export interface WriteResult {
  readonly conflicts: readonly Conflict[];
  /** Classes whose rows were written one by one in log order. */
  readonly ordered: readonly string[];
}

/** A class whose copy is not complete lacks a row that the log does not carry whole: it has to be copied from the beginning. */
export class CopyAfresh extends Error {
  readonly className: string;

  constructor(className: string) {
    super(`class ${className} has to be copied from the beginning`);
    this.className = className;
  }
}

export interface WriteOptions {
  readonly onConflict: "source-wins" | "halt";
  /**
   * Classes whose copy is not complete: a row that is not there yet is no conflict.
   */
  readonly tolerant: ReadonlySet<string>;
}

/** What is recorded beside the rows: slices of classes that were touched, see slices.ts; null: the whole class. */
export interface TouchRecord {
  readonly generation: bigint;
  readonly touches: ReadonlyMap<string, readonly string[] | null>;
}

/** One target transaction. Rows and position stand or fall together. */
export interface TargetTransaction extends AsyncDisposable {
  write(classes: readonly ClassBatch[], options: WriteOptions): Promise<WriteResult>;
  /** All of them by one statement, and nothing else: what the source's CASCADE reached is listed. Sequences are set at the cutover. */
  truncate(classes: readonly RecordClass[]): Promise<void>;
  /** Moves the checkpoint from `from` to `position` under the fence, records what was touched, and commits; DR4001 when somebody else holds the fence. */
  commit(from: Checkpoint, position: Position, touched: TouchRecord | null): Promise<Checkpoint>;
}

export interface ChunkMark {
  readonly className: string;
  readonly ordinal: number;
  readonly lower: readonly string[] | null;
  readonly upper: readonly string[] | null;
  readonly resumable: boolean;
  readonly estimatedRows: number;
  readonly estimatedBytes: number;
  readonly rows: number;
  readonly bytes: number;
  readonly refused: number;
  readonly position: Position | null;
  readonly done: boolean;
}

export interface LoadOptions {
  /** Rows that are there already are the same row: keep them. For chunks that are copied after changes were applied. */
  readonly merge: boolean;
  /** Row by row: refused rows are set aside and counted. Needs rows as text. */
  readonly careful: boolean;
}

export interface LoadResult {
  readonly rows: number;
  readonly bytes: number;
  readonly refused: number;
}

/** Applied once, in order, in one transaction; names never change. */
export interface Migration {
  readonly name: string;
  readonly statements: readonly string[];
}

export type SqlExecutor = (text: string, values?: readonly unknown[]) => Promise<Record<string, unknown>[]>;

export interface Target extends AsyncDisposable, Freezable {
  readonly dialect: Dialect;
  /** When the server's certificate expires; null without TLS. */
  certificateExpiry(): Promise<Date | null>;
  inspect(): Promise<Catalogue>;
  preflight(classes: readonly RecordClass[], target: Catalogue, source: Catalogue): Finding[];
  grants(classes: readonly RecordClass[], catalogue: Catalogue): string[];
  /** Encodings in which this target takes rows of a class from that source; text is always among them. */
  formats(cls: RecordClass, source: Catalogue, target: Catalogue): ValueFormat;
  /** How common text becomes what the class's columns take, by target column; for sources of other engines. */
  conversions(cls: RecordClass, target: Catalogue): Readonly<Record<string, Conversion>>;
  /** Makes or migrates dualrun's own schema: what the connector needs for itself, then `migrations`. */
  prepareState(migrations: readonly Migration[]): Promise<void>;
  /** Runs one statement on dualrun's own schema, outside of apply. */
  readonly sql: SqlExecutor;
  /** Takes the fence: everybody with an older epoch is out. */
  takeOver(stream: string): Promise<Checkpoint>;
  checkpoint(stream: string): Promise<Checkpoint | null>;
  /** Where the stream begins and what is to be copied at that position, in one transaction under the fence. */
  startStream(held: Checkpoint, position: Position, sourceIdentity: string, chunks: readonly Chunk[]): Promise<Checkpoint>;
  /** Records that the same stream now comes from another server that was proven to continue it. */
  rebindSource(held: Checkpoint, sourceIdentity: string): Promise<Checkpoint>;
  begin(format: ValueFormat): Promise<TargetTransaction>;
  /** How the class's key space is divided into slices. */
  sliceKind(compared: ComparedClass): SliceKind;
  /** Connects a reader; its snapshot is taken by `snapshot`, and everything it reads afterwards is of that moment. */
  prepareCutReader(limits: ReadLimits): Promise<{ readonly reader: CutReader; snapshot(): Promise<void> }>;
  scratch(limits: ReadLimits): Promise<Scratch>;
  /** The statements that `repair` stands for, values of `masked` columns left out. */
  repairStatements(compared: ComparedClass, repairs: readonly RowRepair[], masked: ReadonlySet<string>): string[];
  /** Writes rows to be what the source's are, in one transaction under the fence; the class counts as touched everywhere. */
  repair(compared: ComparedClass, repairs: readonly RowRepair[], held: Checkpoint): Promise<void>;
  isEmpty(classes: readonly RecordClass[]): Promise<string[]>;
  truncateAll(classes: readonly RecordClass[], held: Checkpoint): Promise<void>;
  chunks(stream: string): Promise<ChunkMark[]>;
  /** Empties a class's table and replaces its chunk marks by `chunks`, under the fence. */
  resetClass(cls: RecordClass, held: Checkpoint, chunks: readonly Chunk[]): Promise<void>;
  /**
   * Sets the sequences behind the target's columns to the source's value and `margin` increments more, under the fence, never backwards:
   * doing it again changes nothing. Throws DR6106 with a line for each that does not fit, before any is set.
   */
  advanceSequences(classes: readonly RecordClass[], values: readonly SequenceValue[], margin: number, held: Checkpoint): Promise<SequenceAdvance>;
  /** Rows and "chunk done" in one transaction, under the fence. `loader` names one of the independent connections. */
  load(chunk: Chunk, cls: RecordClass, format: ValueFormat, rows: AsyncIterable<RowBatch>, held: Checkpoint, at: Position, options: LoadOptions, loader: number): Promise<LoadResult>;
}
