/** The change stream: @vlasky/zongji holds the connection, events are decoded as they come. */
import { randomInt } from "node:crypto";
import ZongJi from "@vlasky/zongji";
import {
  BlockQueue, DualrunError, ENTRY, ENTRY_WORDS, EntryWords, readTuple, tableKey,
  type ChangeBlock, type ChangeStream, type Endpoint, type Position, type SchemaChange, type StreamTable, type TableLayout, type TableName,
} from "../../src/core/index.ts";
import { address, isTransient, tlsConfig, unreachable, type Flavour } from "./connection.ts";
import { BinlogDecoder } from "./decoder.ts";
import type { BinlogEvent, EventHeader } from "./events.ts";
import { lost, refused } from "./faults.ts";
import { MARKS, columnNames, tableNamed } from "./layout.ts";
import { takePackets } from "./packets.ts";
import { accumulator, type GrowingPosition } from "./positions.ts";
import { ROW, type BinlogTable, type RowKind } from "./rows.ts";
import { concerns, meaningOf } from "./statements.ts";
import type { ColumnHints } from "./types.ts";

/** Decoded bytes that may wait for the pipeline before the socket is paused. */
const QUEUE_HIGH_WATER = 4 << 20;
/** A block is handed over when it has become this large, or when nothing more has come in the same turn. */
const BLOCK_BYTES = 256 << 10;
const BLOCK_ENTRIES = 64;
const HEARTBEAT_NS = 1_000_000_000;
/** Without even a heartbeat for so long, the server or the way to it is gone: nobody else would tell. */
const SILENCE_MS = 30_000;
const WRITE_TIMEOUT_S = 600;
const KIND_OF_ROW: Readonly<Record<RowKind, number>> = { [ROW.insert]: ENTRY.insert, [ROW.update]: ENTRY.update, [ROW.delete]: ENTRY.delete };

export interface MysqlStreamOptions {
  readonly flavour: Flavour;
  readonly migration: string;
  readonly after: Position;
  readonly layouts: ReadonlyMap<string, TableLayout>;
  /** What only the catalogue knows of a table's columns, by `schema.table`. */
  readonly hints: ReadonlyMap<string, ColumnHints>;
  readonly signal: AbortSignal;
}

/** The entries of some events. Places are sets of transactions: they are worked out where somebody asks for one. */
class MysqlBlock extends EntryWords implements ChangeBlock {
  buffer: Buffer = Buffer.alloc(0);
  bytes = 0;
  readonly marks = new Map<number, string>();
  readonly schemaChanges = new Map<number, SchemaChange>();
  private readonly base: Position;
  private readonly flavour: Flavour;
  private readonly passed: string[] = [];
  private readonly times: number[] = [];
  private cursor: { readonly set: GrowingPosition; upTo: number };

  constructor(base: Position, flavour: Flavour) {
    super(BLOCK_ENTRIES);
    this.base = base;
    this.flavour = flavour;
    this.cursor = { set: this.begin(), upTo: 0 };
  }

  private begin(): GrowingPosition {
    const set = accumulator(this.flavour === "mysql" ? "gtid-set" : "domains");
    set.addAll(this.base);
    return set;
  }

  /** An entry that stands behind everything that was passed so far. */
  addPlace(kind: number, milliseconds: number): void {
    this.times.push(milliseconds);
    this.add(kind, -1, this.passed.length, this.times.length - 1);
  }

  pass(gtid: string): void {
    this.passed.push(gtid);
  }

  /** The set behind this block. */
  end(): Position {
    return this.placeBehind(this.passed.length);
  }

  position(entry: number): Position {
    return this.placeBehind(this.words[entry * ENTRY_WORDS + 2]!);
  }

  private placeBehind(wanted: number): Position {
    if (wanted < this.cursor.upTo) this.cursor = { set: this.begin(), upTo: 0 };
    while (this.cursor.upTo < wanted) this.cursor.set.addAll(this.passed[this.cursor.upTo++]!);
    return this.cursor.set.toPosition();
  }

  committedAt(entry: number): number {
    return this.times[this.words[entry * ENTRY_WORDS + 3]!]!;
  }

  transactionNumber(): number {
    return 0;
  }

  mark(entry: number): string {
    return this.marks.get(entry)!;
  }

  schemaChange(entry: number): SchemaChange {
    return this.schemaChanges.get(entry)!;
  }
}

/** Starts the dump and returns its stream. */
export async function openMysqlStream(endpoint: Endpoint, options: MysqlStreamOptions): Promise<MysqlStream> {
  const stream = new MysqlStream(endpoint, options);
  try {
    await stream.started;
    return stream;
  } catch (error) {
    await stream[Symbol.asyncDispose]();
    throw streamError(endpoint, options, error);
  }
}

export class MysqlStream implements ChangeStream {
  readonly started: Promise<void>;
  readonly tables: StreamTable[] = [];
  private readonly refuseStart: (error: unknown) => void;
  private readonly options: MysqlStreamOptions;
  private readonly endpoint: Endpoint;
  private readonly zongji: ZongJi;
  private readonly byTable = new Map<BinlogTable, number>();
  private readonly wanted: ReadonlySet<string>;
  private readonly queue = new BlockQueue(QUEUE_HIGH_WATER, () => this.resumeReading());
  private paused = false;
  private read = 0;
  private decoder: BinlogDecoder | null = null;
  private block: MysqlBlock;
  private flushing: NodeJS.Immediate | null = null;
  private transaction: { readonly gtid: string; readonly milliseconds: number } | null = null;
  private lastEventAt = 0;
  private lastPacketAt = performance.now();
  private readonly listening: NodeJS.Timeout;
  private ended = false;
  private failure: unknown = null;

  constructor(endpoint: Endpoint, options: MysqlStreamOptions) {
    this.endpoint = endpoint;
    this.options = options;
    this.wanted = new Set([...options.layouts.keys(), tableKey(MARKS)]);
    this.block = new MysqlBlock(options.after, options.flavour);
    this.zongji = new ZongJi(driverConfig(endpoint));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.started = promise;
    this.refuseStart = reject;
    this.zongji.on("error", (error: unknown) => this.end(error));
    this.zongji.on("ready", () => {
      this.attach();
      resolve();
    });
    options.signal.addEventListener("abort", this.onAbort, { once: true });
    this.listening = setInterval(() => this.listen(), SILENCE_MS / 6);
    this.zongji.start({ serverId: randomInt(1 << 30, 2 ** 31), gtidSet: options.after });
  }

  head(): Position {
    return this.block.end();
  }

  bytesRead(): number {
    return this.read;
  }

  async *blocks(): AsyncGenerator<ChangeBlock, void, undefined> {
    yield* this.queue.blocks();
    if (!this.options.signal.aborted) throw streamError(this.endpoint, this.options, this.failure);
  }

  /** The server keeps its log by time and not by what was read: there is nothing to confirm. */
  acknowledge(): void {}

  async [Symbol.asyncDispose](): Promise<void> {
    this.options.signal.removeEventListener("abort", this.onAbort);
    this.end(new Error("closed"));
  }

  private readonly onAbort = (): void => this.end(this.options.signal.reason);

  // ------------------------------------------------------------ packets

  /** Takes the packets away from the package's own decoder, and sets what the dump needs before it begins. */
  private attach(): void {
    const driver = this.driver();
    const ignore = (): void => undefined; // a server that does not know the variable says so at the dump, if it matters
    driver.connection.query(`SET @master_heartbeat_period = ${HEARTBEAT_NS}, @source_heartbeat_period = ${HEARTBEAT_NS}, SESSION net_write_timeout = ${WRITE_TIMEOUT_S}`, ignore);
    this.decoder = new BinlogDecoder({
      checksum: driver.useChecksum,
      wants: (schema, table) => this.wanted.has(`${schema}.${table}`),
      hints: (schema, table) => this.options.hints.get(`${schema}.${table}`),
    }, { event: (event, header) => this.event(event, header), row: (kind, table, before, after) => this.row(kind, table, before, after) });
    takePackets(this.zongji, {
      onEvent: (buffer, from, to) => this.packet(buffer, from, to),
      onEnd: (error) => this.end(error ?? new Error("the server ended the replication stream")),
    });
  }

  private driver(): { readonly useChecksum: boolean; readonly connection: Driver } {
    return this.zongji as never;
  }

  private listen(): void {
    const silence = performance.now() - this.lastPacketAt;
    if (!this.paused && silence > SILENCE_MS) this.end(new Error(`nothing has come from the server for ${Math.round(silence / 1000)} s, not even a heartbeat`));
  }

  private packet(buffer: Buffer, from: number, to: number): void {
    if (this.ended) return;
    this.lastPacketAt = performance.now();
    this.read += to - from;
    try {
      this.decoder!.packet(buffer, from, to);
    } catch (error) {
      this.flush(); // what came before it is sound
      throw error;
    }
    if (this.decoder!.tuples.at >= BLOCK_BYTES) this.flush();
    else this.flushing ??= setImmediate(() => this.flush());
  }

  private flush(): void {
    if (this.flushing !== null) clearImmediate(this.flushing);
    this.flushing = null;
    const { block } = this;
    if (block.count === 0) return;
    block.buffer = this.decoder!.tuples.release();
    block.bytes = block.buffer.length + block.count * ENTRY_WORDS * 4;
    this.block = new MysqlBlock(block.end(), this.options.flavour);
    this.queue.push(block, block.bytes);
    if (!this.queue.isFull || this.paused) return;
    this.paused = true;
    this.driver().connection.pause();
  }

  private resumeReading(): void {
    if (!this.paused) return;
    this.paused = false;
    this.lastPacketAt = performance.now();
    this.lastPacketAt = performance.now();
    this.driver().connection.resume();
  }

  // ------------------------------------------------------------ events

  private event(event: BinlogEvent, header: EventHeader): void {
    if (header.timestamp > 0) this.lastEventAt = header.timestamp * 1000;
    switch (event.kind) {
      case "gtid":
        this.begin(event.gtid, event.committedAt === null ? header.timestamp * 1000 : event.committedAt / 1000);
        return;
      case "mariadb-gtid":
        if (event.xa !== null) throw xaRefused();
        this.begin(event.gtid, header.timestamp * 1000);
        return;
      case "xid":
        this.commit();
        return;
      case "query":
        this.statement(event.schema, event.text);
        return;
      case "xa-prepare":
        throw xaRefused();
      case "heartbeat":
        this.idle();
        return;
      case "format": case "rotate": case "mariadb-gtid-list":
        return;
    }
  }

  private begin(gtid: string | null, milliseconds: number): void {
    if (gtid === null) throw refused("a transaction without a GTID stands in the log", "Set gtid_mode = ON on the source, and begin again.");
    if (this.transaction !== null) this.commit(); // a group that nothing closes: a statement of its own
    this.transaction = { gtid, milliseconds };
    this.block.addPlace(ENTRY.begin, milliseconds);
  }

  private commit(): void {
    if (this.transaction === null) return;
    this.block.pass(this.transaction.gtid);
    this.block.addPlace(ENTRY.commit, this.transaction.milliseconds);
    this.transaction = null;
  }

  private idle(): void {
    if (this.transaction === null) this.block.addPlace(ENTRY.idle, this.lastEventAt);
  }

  private statement(database: string, text: string): void {
    const meaning = meaningOf(text);
    switch (meaning.kind) {
      case "begin": return;
      case "commit": return this.commit();
      case "rollback": throw refused("a transaction that was rolled back stands in the log: it changed a table that cannot roll back", "Convert the tables that are not transactional to InnoDB.");
      case "rows as statement": throw refused("rows stand in the log as a statement", "Set binlog_format = ROW for every session on the source, then copy the classes again: `dualrun resnapshot`.");
      case "xa": throw xaRefused();
      case "unknown": throw refused(`the log holds a statement that dualrun does not know: ${meaning.command}`, "See what the source's log says there; when no mapped table is concerned, this is a defect to report.");
      case "truncate": this.truncate(database, meaning.table); break;
      case "schema": for (const named of meaning.tables) this.schemaChanges((table) => concerns(named, database, table), meaning.command); break;
      case "harmless": break;
    }
    if (!["harmless"].includes(meaning.kind) || this.isStandalone(text)) this.commit();
  }

  /** A statement that is a transaction of its own: whatever is not inside one. */
  private isStandalone(text: string): boolean {
    return !/^\s*(SAVEPOINT|ROLLBACK|RELEASE)\b/i.test(text);
  }

  private truncate(database: string, named: Parameters<typeof concerns>[0]): void {
    for (const name of this.options.layouts.keys()) {
      const table = tableNamed(name);
      if (concerns(named, database, table)) this.block.add(ENTRY.truncate, this.indexOf(table), 0, -1);
    }
  }

  private schemaChanges(isConcerned: (table: TableName) => boolean, command: string): void {
    for (const name of this.options.layouts.keys()) {
      const table = tableNamed(name);
      if (isConcerned(table)) this.schemaEntry(-1, { table, differences: [command], announced: true });
    }
  }

  private schemaEntry(index: number, change: SchemaChange): void {
    this.block.schemaChanges.set(this.block.count, change);
    this.block.add(ENTRY.schema, index, -1, -1);
  }

  // ------------------------------------------------------------ rows

  private row(kind: RowKind, table: BinlogTable, before: number, after: number): void {
    if (table.schema === MARKS.schema && table.name === MARKS.name) this.mark(after);
    else this.block.add(KIND_OF_ROW[kind], this.byTable.get(table) ?? this.learn(table), after, before);
  }

  private mark(after: number): void {
    if (after < 0) return;
    const [migration, token] = readTuple(this.decoder!.tuples.bytes, after);
    if (migration?.toString() !== this.options.migration) return;
    this.block.marks.set(this.block.count, token?.toString() ?? "");
    this.block.addPlace(ENTRY.mark, this.lastEventAt);
  }

  private learn(table: BinlogTable): number {
    const name = { schema: table.schema, name: table.name };
    const columns = table.columns.map((column) => column.name);
    const index = this.tables.push({ table: name, columns, fullBeforeImage: true }) - 1;
    this.byTable.set(table, index);
    const agreed = this.options.layouts.get(tableKey(name));
    const known = agreed === undefined ? columns : columnNames(agreed);
    if (known.join("\n") !== columns.join("\n")) this.schemaEntry(index, { table: name, differences: ["its columns are not those that were agreed upon"] });
    return index;
  }

  /** For entries that name a table without a row. */
  private indexOf(table: TableName): number {
    const known = this.tables.findIndex((one) => one.table.schema === table.schema && one.table.name === table.name);
    if (known >= 0) return known;
    return this.tables.push({ table, columns: columnNames(this.options.layouts.get(tableKey(table))!), fullBeforeImage: true }) - 1;
  }

  private end(error: unknown): void {
    if (this.ended) return;
    this.ended = true;
    this.failure = error;
    this.refuseStart(error); // without effect once it has started
    clearInterval(this.listening);
    if (this.flushing !== null) clearImmediate(this.flushing);
    this.zongji.stop();
    this.queue.end();
  }
}

/** What the package's own driver takes. */
function driverConfig(endpoint: Endpoint): Record<string, unknown> {
  const { host, port, user, password } = address(endpoint);
  const tls = tlsConfig(endpoint);
  return { host, port, user, password, ...(tls === false ? {} : { ssl: tls }) };
}

interface Driver {
  query(text: string, done: () => void): void;
  pause(): void;
  resume(): void;
}

function xaRefused(): DualrunError {
  return refused("the log holds an XA transaction: its rows stand there before it is decided", "End XA transactions on the mapped tables for the time of the mirror.");
}

/** The server has thrown away what we would need, or never had it. */
const LOG_LOST: ReadonlySet<number> = new Set([1236, 1373]);

function streamError(endpoint: Endpoint, { after }: MysqlStreamOptions, error: unknown): unknown {
  if (error instanceof DualrunError || isDefect(error)) return error;
  const { errno, message = "" } = (error ?? {}) as { errno?: number; message?: string };
  if (errno !== undefined && LOG_LOST.has(errno)) return lost(`the source's log cannot be read from ${after}: ${message}`, error);
  if (errno === undefined || isTransient(error)) return unreachable(endpoint, error);
  return error;
}

/** Of ours: to try once more would lead to the same place. */
function isDefect(error: unknown): boolean {
  return error instanceof TypeError || error instanceof RangeError || error instanceof ReferenceError || error instanceof SyntaxError;
}
