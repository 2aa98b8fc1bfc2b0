/** The events of a binary log other than tables and rows: header, codes, and what each of them says. */
import { inflateSync } from "node:zlib";
import { charsetOfCollation, textCopyOf } from "./charsets.ts";
import { malformed, refused } from "./faults.ts";
import { TupleWriter } from "./tuple-writer.ts";
import { inflated } from "./values.ts";
import type { EventReader } from "./event-reader.ts";

/** Event types; from 160 on MariaDB's. */
export const EVENT = {
  query: 2, stop: 3, rotate: 4, intvar: 5, appendBlock: 9, deleteFile: 11, rand: 13, userVar: 14, formatDescription: 15, xid: 16, beginLoadQuery: 17,
  executeLoadQuery: 18, tableMap: 19, writeRowsV1: 23, updateRowsV1: 24, deleteRowsV1: 25, incident: 26, heartbeat: 27, ignorable: 28, rowsQuery: 29,
  writeRowsV2: 30, updateRowsV2: 31, deleteRowsV2: 32, gtid: 33, anonymousGtid: 34, previousGtids: 35, transactionContext: 36, viewChange: 37,
  xaPrepare: 38, partialUpdateRows: 39, transactionPayload: 40, heartbeatV2: 41, taggedGtid: 42,
  annotateRows: 160, binlogCheckpoint: 161, mariadbGtid: 162, mariadbGtidList: 163, startEncryption: 164, queryCompressed: 165,
  writeRowsCompressedV1: 166, updateRowsCompressedV1: 167, deleteRowsCompressedV1: 168, writeRowsCompressed: 169, updateRowsCompressed: 170,
  deleteRowsCompressed: 171,
} as const;

/** The common header of 19 bytes. */
export const HEADER_BYTES = 19;

export interface EventHeader {
  /** Seconds since 1970. */
  readonly timestamp: number;
  readonly type: number;
  readonly serverId: number;
  /** Of the whole event with header and checksum, in bytes. */
  readonly size: number;
  /** Where the next event begins in the file, modulo 2^32; 0 in events that stand in no file. */
  readonly nextPosition: number;
  readonly flags: number;
}

/** The event is not in the file: the server made it up for the reader. */
export const FLAG_ARTIFICIAL = 0x20;
/** Whoever does not know this event may pass it over. */
export const FLAG_IGNORABLE = 0x80;

export interface FormatDescription {
  readonly kind: "format";
  readonly serverVersion: string;
  readonly isMariaDb: boolean;
  /** Every event has a CRC32 behind it. */
  readonly checksum: boolean;
}

export interface Rotate {
  readonly kind: "rotate";
  readonly file: string;
  readonly position: bigint;
}

export interface Query {
  readonly kind: "query";
  /** The session's database; empty when it had none. */
  readonly schema: string;
  readonly text: string;
  /** MySQL's error number with which the statement ended, 0 for success. */
  readonly errorCode: number;
}

/** A transaction's end. */
export interface Xid {
  readonly kind: "xid";
  readonly xid: bigint;
}

/** A transaction's begin on MySQL. */
export interface Gtid {
  readonly kind: "gtid";
  /** `uuid:number` or `uuid:tag:number`; null for an anonymous transaction. */
  readonly gtid: string | null;
  /** Microseconds since 1970 when this server committed it, null if it does not say. */
  readonly committedAt: number | null;
}

/** A transaction's begin on MariaDB. */
export interface MariadbGtid {
  readonly kind: "mariadb-gtid";
  /** `domain-server-sequence`. */
  readonly gtid: string;
  /** A single statement (DDL) follows, and no event that commits it. */
  readonly standalone: boolean;
  readonly ddl: boolean;
  readonly transactional: boolean;
  /** The transaction is an XA PREPARE, or the COMMIT or ROLLBACK of one. */
  readonly xa: "prepare" | "complete" | null;
}

/** At a file's begin: the last transaction of each domain and server. */
export interface MariadbGtidList {
  readonly kind: "mariadb-gtid-list";
  readonly gtids: readonly string[];
}

export interface XaPrepare {
  readonly kind: "xa-prepare";
  /** It is committed at once: XA COMMIT … ONE PHASE. */
  readonly onePhase: boolean;
  /** The transaction's name as XA statements write it: X'…',X'…',number. */
  readonly xid: string;
}

export interface Heartbeat {
  readonly kind: "heartbeat";
  readonly file: string;
  readonly position: bigint;
}

export type BinlogEvent = FormatDescription | Rotate | Query | Xid | Gtid | MariadbGtid | MariadbGtidList | XaPrepare | Heartbeat;

/** Leaves `input` behind the header. */
export function readHeader(input: EventReader): EventHeader {
  const timestamp = input.u32();
  const type = input.u8();
  const serverId = input.u32();
  const size = input.u32();
  const nextPosition = input.u32();
  return { timestamp, type, serverId, size, nextPosition, flags: input.u16() };
}

const VERSION_BYTES = 50;
const CHECKSUM_BYTES = 4;
const ALGORITHM = { off: 0, crc32: 1 } as const;

/** Reads a FORMAT_DESCRIPTION event; `input` ends behind its checksum, which it always has. */
export function readFormatDescription(input: EventReader): FormatDescription {
  const version = input.u16();
  if (version !== 4) throw malformed(`it is of version ${version}`);
  const serverVersion = input.utf8(VERSION_BYTES).replace(/\0.*$/s, "");
  input.take(4);
  if (input.u8() !== HEADER_BYTES) throw malformed("its events have headers of another length");
  input.take(Math.max(0, input.left - CHECKSUM_BYTES - 1));
  const algorithm = input.u8();
  if (algorithm !== ALGORITHM.off && algorithm !== ALGORITHM.crc32) throw malformed(`its checksums are of the unknown kind ${algorithm}`);
  return { kind: "format", serverVersion, isMariaDb: /mariadb/i.test(serverVersion), checksum: algorithm === ALGORITHM.crc32 };
}

export function readRotate(input: EventReader): Rotate {
  const position = input.u64();
  return { kind: "rotate", position, file: input.utf8(input.left) };
}

/** `compressed`: MariaDB's log_bin_compress. */
export function readQuery(input: EventReader, compressed: boolean): Query {
  input.take(8);
  const schemaLength = input.u8();
  const errorCode = input.u16();
  const variablesLength = input.u16();
  const variables = input.take(variablesLength);
  const charset = clientCharset(input.buffer, variables, variables + variablesLength);
  const schema = input.utf8(schemaLength);
  input.take(1);
  const bytes = compressed ? inflatePayload(input) : input.buffer.subarray(input.take(input.left), input.end);
  return { kind: "query", schema, errorCode, text: textOf(bytes, charset) };
}

/** Bytes behind the code of those status variables that can stand before the client's character set; -1: a length byte. */
const VARIABLE_BYTES: Readonly<Record<number, number>> = { 0: 4, 1: 8, 3: 4, 5: -1, 6: -1 };
const CLIENT_CHARSET = 4;

/** The character set in which the statement was sent; utf8mb4 when the event does not say. */
function clientCharset(bytes: Buffer, from: number, to: number): string {
  for (let at = from; at < to;) {
    const code = bytes[at]!;
    if (code === CLIENT_CHARSET) return charsetOfCollation(bytes[at + 1]! | (bytes[at + 2]! << 8)) ?? "utf8mb4";
    const length = VARIABLE_BYTES[code];
    if (length === undefined) break;
    at += length >= 0 ? 1 + length : 2 + bytes[at + 1]!;
  }
  return "utf8mb4";
}

/** A statement in a character set that cannot be decoded exactly is still shown: nothing but words of SQL is read in it. */
function textOf(bytes: Buffer, charset: string): string {
  const copy = charset.startsWith("utf8") || charset === "binary" ? undefined : textCopyOf(charset);
  if (copy === undefined) return bytes.toString("utf8");
  const out = new TupleWriter();
  copy(bytes, 0, bytes.length, out);
  return out.bytes.toString("utf8", 0, out.at);
}

export function readXid(input: EventReader): Xid {
  return { kind: "xid", xid: input.u64() };
}

/** Classic GTID and ANONYMOUS_GTID events. */
export function readGtid(input: EventReader, anonymous: boolean): Gtid {
  input.take(1);
  const uuid = readUuid(input);
  const number = input.u64();
  const committedAt = readCommitTime(input);
  return { kind: "gtid", gtid: anonymous ? null : `${uuid}:${number}`, committedAt };
}

function readUuid(input: EventReader): string {
  const at = input.take(16);
  return formatUuid(input.buffer.subarray(at, at + 16));
}

function formatUuid(bytes: Buffer): string {
  return `${bytes.toString("hex", 0, 4)}-${bytes.toString("hex", 4, 6)}-${bytes.toString("hex", 6, 8)}-${bytes.toString("hex", 8, 10)}-${bytes.toString("hex", 10, 16)}`;
}

const LOGICAL_CLOCK = 2;
const MICROSECONDS_MASK = 2 ** 55;

/** Behind the logical clock, seven bytes of microseconds whose highest bit says that another time follows. */
function readCommitTime(input: EventReader): number | null {
  if (input.left < 24 || input.u8() !== LOGICAL_CLOCK) return null;
  input.take(16);
  return input.u56() % MICROSECONDS_MASK;
}

const TAGGED_FIELD = { flags: 0n, uuid: 1n, number: 2n, tag: 3n, lastCommitted: 4n, sequence: 5n, committedAt: 6n } as const;
const LAST_KNOWN_FIELD = 11n;
const LONGEST_TAG = 32;

/** A GTID with a tag (MySQL 8.3+): numbered fields in ascending order, each of them a number of variable length. */
export function readTaggedGtid(input: EventReader): Gtid {
  const start = input.at;
  const version = readVariable(input);
  if (version !== 1n) throw malformed(`a tagged GTID is written in the unknown version ${version}`);
  const size = Number(readVariable(input));
  if (start + size > input.end || start + size < input.at) throw malformed("a tagged GTID is longer than its event");
  input.end = start + size;
  const needed = readVariable(input);
  if (needed > LAST_KNOWN_FIELD + 1n) throw malformed("a tagged GTID has a field that has to be understood and is not");
  return readTaggedFields(input);
}

function readTaggedFields(input: EventReader): Gtid {
  const fields = { uuid: "", number: null as bigint | null, tag: "", committedAt: null as number | null };
  while (input.left > 0) {
    const id = readVariable(input);
    if (id === TAGGED_FIELD.uuid) fields.uuid = formatUuid(Buffer.from(Array.from({ length: 16 }, () => Number(readVariable(input)))));
    else if (id === TAGGED_FIELD.number) fields.number = unfold(readVariable(input));
    else if (id === TAGGED_FIELD.tag) fields.tag = readTag(input);
    else if (id === TAGGED_FIELD.committedAt) fields.committedAt = Number(readVariable(input));
    else if (id > LAST_KNOWN_FIELD) break;
    else readVariable(input);
  }
  if (fields.uuid === "" || fields.number === null) throw malformed("a tagged GTID lacks its source or its number");
  return { kind: "gtid", gtid: `${fields.uuid}:${fields.tag === "" ? "" : `${fields.tag}:`}${fields.number}`, committedAt: fields.committedAt };
}

function readTag(input: EventReader): string {
  const length = Number(readVariable(input));
  if (length > LONGEST_TAG) throw malformed("a GTID's tag is too long");
  return input.utf8(length);
}

/** Signed numbers alternate: 0, -1, 1, -2, … */
const unfold = (value: bigint): bigint => ((value & 1n) === 0n ? value >> 1n : -(value >> 1n) - 1n);

/** The ones at the low end of the first byte tell how many bytes follow. */
function readVariable(input: EventReader): bigint {
  const first = input.u8();
  let more = 0;
  while (more < 8 && (first & (1 << more)) !== 0) more += 1;
  if (more === 8) return input.u64();
  let rest = 0n;
  for (let i = 0; i < more; i++) rest |= BigInt(input.u8()) << BigInt(8 * i);
  return BigInt(first >> (more + 1)) | (rest << BigInt(7 - more));
}

const MARIADB_FLAG = { standalone: 1, transactional: 4, ddl: 32, preparedXa: 64, completedXa: 128 } as const;

export function readMariadbGtid(input: EventReader, serverId: number): MariadbGtid {
  const sequence = input.u64();
  const domain = input.u32();
  const flags = input.u8();
  const has = (flag: number): boolean => (flags & flag) !== 0;
  return {
    kind: "mariadb-gtid", gtid: `${domain}-${serverId}-${sequence}`,
    standalone: has(MARIADB_FLAG.standalone), ddl: has(MARIADB_FLAG.ddl), transactional: has(MARIADB_FLAG.transactional),
    xa: has(MARIADB_FLAG.preparedXa) ? "prepare" : has(MARIADB_FLAG.completedXa) ? "complete" : null,
  };
}

const LIST_ENTRY_BYTES = 16;

/** The high four bits of the count are flags. */
export function readMariadbGtidList(input: EventReader): MariadbGtidList {
  const count = input.u32() & 0x0fff_ffff;
  if (count * LIST_ENTRY_BYTES > input.left) throw malformed("a list of GTIDs is longer than its event");
  return { kind: "mariadb-gtid-list", gtids: Array.from({ length: count }, () => `${input.u32()}-${input.u32()}-${input.u64()}`) };
}

export function readXaPrepare(input: EventReader): XaPrepare {
  const onePhase = input.u8() !== 0;
  const format = input.u32() | 0;
  const globalLength = input.u32();
  const branchLength = input.u32();
  const hex = (length: number): string => {
    const at = input.take(length);
    return `X'${input.buffer.toString("hex", at, at + length)}'`;
  };
  return { kind: "xa-prepare", onePhase, xid: `${hex(globalLength)},${hex(branchLength)},${format}` };
}

/** MariaDB writes positions beyond 4 GiB before the file's name. */
export function readHeartbeat(input: EventReader, nextPosition: number, isMariaDb: boolean): Heartbeat {
  const position = isMariaDb && nextPosition === 0 && input.left >= 8 ? input.u64() : BigInt(nextPosition);
  return { kind: "heartbeat", position, file: input.utf8(input.left) };
}

const HEARTBEAT_FIELD = { end: 0, file: 1, position: 2 } as const;

export function readHeartbeatV2(input: EventReader): Heartbeat {
  let file = "";
  let position = 0n;
  while (input.left > 0) {
    const field = input.u8();
    if (field === HEARTBEAT_FIELD.end) break;
    const length = input.packed();
    const end = input.take(length) + length;
    input.at = end - length;
    if (field === HEARTBEAT_FIELD.file) file = input.utf8(length);
    else if (field === HEARTBEAT_FIELD.position) position = BigInt(input.packed());
    input.at = end;
  }
  return { kind: "heartbeat", file, position };
}

const COMPRESSED = 0x80;
const ALGORITHM_BITS = 0x70;

/** MariaDB's log_bin_compress: a byte that tells how many bytes of length follow, the length, and zlib's bytes. */
export function inflatePayload(input: EventReader): Buffer {
  const header = input.u8();
  if ((header & COMPRESSED) === 0 || (header & ALGORITHM_BITS) !== 0) throw malformed("an event is compressed in an unknown way");
  const length = input.bigEndian(header & 7);
  const packed = input.buffer.subarray(input.take(input.left), input.end);
  const bytes = inflated(() => inflateSync(packed, { maxOutputLength: Math.max(1, length) }));
  if (bytes.length !== length) throw malformed("a compressed event has another length than it says");
  return bytes;
}

const STATEMENT_FORMAT = "SET GLOBAL binlog_format = ROW on the source, and let sessions reconnect; the tables that were written have to be copied anew.";

/** Events that are understood and must not be passed over: what to do about them. */
const REFUSALS: ReadonlyMap<number, readonly [what: string, next: string]> = new Map([
  [EVENT.transactionPayload, ["a transaction is compressed", "SET GLOBAL binlog_transaction_compression = OFF on the source, and let sessions reconnect."]],
  [EVENT.partialUpdateRows, ["an update of JSON is logged in part", "SET GLOBAL binlog_row_value_options = '' on the source, and let sessions reconnect; the table has to be copied anew."]],
  [EVENT.incident, ["the source reports that its log may lack changes (INCIDENT)", "Look into the source's error log; the tables have to be copied anew."]],
  [EVENT.beginLoadQuery, ["LOAD DATA is logged as a statement", STATEMENT_FORMAT]],
  [EVENT.executeLoadQuery, ["LOAD DATA is logged as a statement", STATEMENT_FORMAT]],
  [EVENT.appendBlock, ["LOAD DATA is logged as a statement", STATEMENT_FORMAT]],
  [EVENT.deleteFile, ["LOAD DATA is logged as a statement", STATEMENT_FORMAT]],
]);

/** Events that say nothing about rows. */
const SILENT: ReadonlySet<number> = new Set([
  EVENT.stop, EVENT.intvar, EVENT.rand, EVENT.userVar, EVENT.ignorable, EVENT.rowsQuery, EVENT.previousGtids, EVENT.transactionContext, EVENT.viewChange,
  EVENT.annotateRows, EVENT.binlogCheckpoint, EVENT.startEncryption,
]);

/** Nothing for events that may be passed over; throws DR5009 for what is refused by name, DR5005 for what nobody knows. */
export function passOver(header: EventHeader): void {
  const refusal = REFUSALS.get(header.type);
  if (refusal !== undefined) throw refused(...refusal);
  if (SILENT.has(header.type) || (header.flags & FLAG_IGNORABLE) !== 0) return;
  throw malformed(`an event of the unknown type ${header.type}`);
}
