/** Decodes a stream of binary log events, one after the other as the server sends them. */
import { crc32 } from "node:zlib";
import { malformed, ofTable } from "./faults.ts";
import { EventReader } from "./event-reader.ts";
import {
  EVENT, HEADER_BYTES, passOver, readFormatDescription, readGtid, readHeader, readHeartbeat, readHeartbeatV2, readMariadbGtid, readMariadbGtidList,
  readQuery, readRotate, readTaggedGtid, readXaPrepare, readXid, type BinlogEvent, type EventHeader, type FormatDescription,
} from "./events.ts";
import { readRows, rowsLayout, type BinlogTable, type OnRow, type RowsLayout } from "./rows.ts";
import { readTableMap, readTableMapHead } from "./table-map.ts";
import { TupleWriter } from "./tuple-writer.ts";
import { decoderOf } from "./values.ts";
import type { ColumnHints } from "./types.ts";

const CHECKSUM_BYTES = 4;
const TYPE_OFFSET = 4;
/** Stands for no table in rows events that only end a statement. */
const NO_TABLE = 0xff_ffff;
/** The packet's first byte says that an event follows. */
const PACKET_OK = 0;

export interface BinlogSink {
  /** Everything but tables and rows. */
  readonly event: (event: BinlogEvent, header: EventHeader) => void;
  readonly row: OnRow;
}

export interface DecoderOptions {
  /** Tables that are not wanted are not described and their rows not decoded. Default: all. */
  readonly wants?: (schema: string, table: string) => boolean;
  /** What only the catalogue knows of a table's columns. */
  readonly hints?: (schema: string, table: string) => ColumnHints | undefined;
  /** Events have checksums until a FORMAT_DESCRIPTION event says otherwise: what the session has asked for. */
  readonly checksum: boolean;
}

interface KnownTable {
  /** The event's bytes behind the table's number, to see whether the next one says the same. */
  readonly description: Buffer;
  /** null: not wanted. */
  readonly table: BinlogTable | null;
}

/** State of one connection: begin with a new one after a reconnect. After an error it must not be used again. */
export class BinlogDecoder {
  /** Where rows are written; the sink's owner releases or clears it between calls of `packet`. */
  readonly tuples = new TupleWriter();
  private readonly sink: BinlogSink;
  private readonly options: DecoderOptions;
  private readonly input = new EventReader();
  private readonly tables = new Map<number, KnownTable>();
  private checksum: boolean;
  private isMariaDb = false;

  constructor(options: DecoderOptions, sink: BinlogSink) {
    this.options = options;
    this.sink = sink;
    this.checksum = options.checksum;
  }

  /** Decodes the event in bytes [from, to) of `buffer`, a packet of COM_BINLOG_DUMP with its leading 0. Throws DR5005 or DR5009. */
  packet(buffer: Buffer, from: number, to: number): void {
    if (to <= from || buffer[from] !== PACKET_OK) throw malformed("a packet holds no event");
    this.event(buffer, from + 1, to);
  }

  /** Decodes the event in bytes [from, to) of `buffer`, as it stands in a file. */
  event(buffer: Buffer, from: number, to: number): void {
    const { input } = this;
    input.open(buffer, from, to);
    const type = to - from < HEADER_BYTES ? -1 : buffer[from + TYPE_OFFSET]!;
    if (type !== EVENT.formatDescription && this.checksum) this.verify(from, to);
    const how = rowsLayout(type);
    if (how !== undefined) {
      this.requireSize(from, to);
      const table = this.tableOfRows();
      if (table !== null) this.rows(how, table);
    } else if (type === EVENT.tableMap) {
      this.requireSize(from, to);
      this.tableMap();
    } else {
      this.other(from, to);
    }
  }

  private verify(from: number, to: number): void {
    const end = to - CHECKSUM_BYTES;
    if (end < from + HEADER_BYTES) throw malformed("an event is shorter than its header");
    const { input } = this;
    if (input.buffer.readUInt32LE(end) !== crc32(input.buffer.subarray(from, end))) throw malformed("an event's checksum is wrong");
    input.end = end;
  }

  private requireSize(from: number, to: number): void {
    const { input } = this;
    input.at = from + 9;
    if (input.u32() !== to - from) throw malformed("an event has another length than it says");
    input.at = from + HEADER_BYTES;
  }

  private tableOfRows(): BinlogTable | null {
    const { input } = this;
    const number = input.u48();
    input.take(2);
    if (number === NO_TABLE) return null;
    const known = this.tables.get(number);
    if (known === undefined) throw malformed("rows came for a table that was never described");
    return known.table;
  }

  private rows(how: RowsLayout, table: BinlogTable): void {
    try {
      readRows(this.input, how, table, this.tuples, this.sink.row);
    } catch (error) {
      throw ofTable(error, table.schema, table.name);
    }
  }

  private tableMap(): void {
    const { input } = this;
    const number = input.u48();
    const from = input.at;
    const known = this.tables.get(number);
    if (known !== undefined && known.description.compare(input.buffer, from, input.end) === 0) return;
    const description = Buffer.from(input.buffer.subarray(from, input.end));
    this.tables.set(number, { description, table: this.describe() });
  }

  private describe(): BinlogTable | null {
    const { input, options } = this;
    input.take(2);
    const head = readTableMapHead(input);
    if (options.wants?.(head.schema, head.name) === false) return null;
    try {
      const map = readTableMap(input, head, options.hints?.(head.schema, head.name), this.isMariaDb);
      return { ...map, decoders: map.columns.map(decoderOf) };
    } catch (error) {
      throw ofTable(error, head.schema, head.name);
    }
  }

  private other(from: number, to: number): void {
    const header = readHeader(this.input);
    if (header.size !== to - from) throw malformed("an event has another length than it says");
    const event = this.read(header);
    if (event === null) return;
    if (event.kind === "format") this.begin(event);
    this.sink.event(event, header);
  }

  private read(header: EventHeader): BinlogEvent | null {
    const { input } = this;
    switch (header.type) {
      case EVENT.formatDescription: return readFormatDescription(input);
      case EVENT.rotate: return readRotate(input);
      case EVENT.query: return readQuery(input, false);
      case EVENT.queryCompressed: return readQuery(input, true);
      case EVENT.xid: return readXid(input);
      case EVENT.gtid: return readGtid(input, false);
      case EVENT.anonymousGtid: return readGtid(input, true);
      case EVENT.taggedGtid: return readTaggedGtid(input);
      case EVENT.mariadbGtid: return readMariadbGtid(input, header.serverId);
      case EVENT.mariadbGtidList: return readMariadbGtidList(input);
      case EVENT.xaPrepare: return readXaPrepare(input);
      case EVENT.heartbeat: return readHeartbeat(input, header.nextPosition, this.isMariaDb);
      case EVENT.heartbeatV2: return readHeartbeatV2(input);
      default: passOver(header); return null;
    }
  }

  /** A server that started anew numbers its tables anew. */
  private begin(format: FormatDescription): void {
    this.checksum = format.checksum;
    this.isMariaDb = format.isMariaDb;
    this.tables.clear();
  }
}
