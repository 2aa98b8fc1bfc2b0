/**
 * Decodes pgoutput (protocol 1) into change entries without looking at a single value.
 * A block's entries point into the received chunk, which belongs to the block alone.
 */
import {
  DualrunError, ENTRY, ENTRY_WORDS, EntryWords, tupleEnd,
  type ChangeBlock, type Position, type SchemaChange, type StreamTable, type TableLayout, type TableName,
} from "../../src/core/index.ts";
import { formatLsn } from "./lsn.ts";

const FRAME_HEADER = 5;
const XLOG_HEADER = 25;
/** Microseconds from 1970 to 2000. */
const EPOCH_2000 = 946_684_800_000_000n;

const code = (letter: string): number => letter.charCodeAt(0);
const BEGIN = code("B"), COMMIT = code("C"), RELATION = code("R"), INSERT = code("I"), UPDATE = code("U"), DELETE = code("D");
const TRUNCATE = code("T"), MESSAGE = code("M"), ORIGIN = code("O"), TYPE = code("Y");
const WAL_DATA = code("w"), KEEPALIVE = code("k");
const NEW_TUPLE = code("N");

export const MARK_PREFIX = "dualrun";
/** Prefix of the message that the optional event trigger writes. */
export const DDL_PREFIX = "dualrun.ddl";

/** Layouts that were agreed upon, by `schema.table`: one line per column as `columnLine` writes it, and the facts below among others. */
export type Layouts = ReadonlyMap<string, TableLayout>;

/** Begin of the fact that tells a table's OID: a renamed table is still the same. */
export const RELATION_FACT = "relation ";
/** Begin of the fact that tells how the log names a row: `d`, `i`, `f`, `n`. */
export const IDENTITY_FACT = "replica identity ";
/** Begin of the fact that tells by which columns, in their order in the table. */
export const KEY_FACT = "log key ";

/** How a column stands in a layout. */
export function columnLine(name: string, typeOid: number, typeModifier: number): string {
  return `${name} ${typeOid} ${typeModifier}`;
}

interface PgTable extends StreamTable {
  readonly lines: readonly string[];
}

/** Otherwise it becomes another table of the stream, since changes that were decoded before may still be waiting to be read. */
function isSameLayout(a: PgTable, b: PgTable): boolean {
  return a.fullBeforeImage === b.fullBeforeImage && a.lines.join("\n") === b.lines.join("\n");
}

class PgBlock extends EntryWords implements ChangeBlock {
  readonly buffer: Buffer;
  readonly schemaChanges = new Map<number, SchemaChange>();

  constructor(buffer: Buffer, capacity: number) {
    super(capacity);
    this.buffer = buffer;
  }

  position(entry: number): Position {
    const at = this.words[entry * ENTRY_WORDS + 2]!;
    return formatLsn(this.buffer.readUInt32BE(at), this.buffer.readUInt32BE(at + 4));
  }

  committedAt(entry: number): number {
    const at = this.words[entry * ENTRY_WORDS + 3]!;
    return Number((this.buffer.readBigInt64BE(at) + EPOCH_2000) / 1000n);
  }

  transactionNumber(entry: number): number {
    return this.buffer.readUInt32BE(this.words[entry * ENTRY_WORDS + 3]! + 8);
  }

  mark(entry: number): string {
    const at = this.words[entry * ENTRY_WORDS + 3]!;
    return this.buffer.toString("utf8", at + 4, at + 4 + this.buffer.readInt32BE(at));
  }

  schemaChange(entry: number): SchemaChange {
    return this.schemaChanges.get(entry)!;
  }
}

export class PgOutputDecoder {
  readonly tables: PgTable[] = [];
  /** Highest LSN that the server has told of. */
  headHigh = 0;
  headLow = 0;
  private readonly byOid = new Map<number, number>();
  private readonly layouts: Layouts;
  private readonly agreedNames: ReadonlyMap<number, string>;
  private readonly onReplyRequested: () => void;
  private lastOid = -1;
  private lastTable = -1;
  private inTransaction = false;

  constructor(layouts: Layouts, onReplyRequested: () => void) {
    this.layouts = layouts;
    this.agreedNames = namesByOid(layouts);
    this.onReplyRequested = onReplyRequested;
  }

  /** Decodes the whole CopyData frames in [from, to); `chunk` is not touched afterwards. */
  decode(chunk: Buffer, from: number, to: number): ChangeBlock {
    const block = new PgBlock(chunk, 16 + ((to - from) >> 6));
    for (let at = from; at < to;) {
      const end = at + 1 + chunk.readInt32BE(at + 1);
      const kind = chunk[at + FRAME_HEADER];
      if (kind === WAL_DATA) this.message(block, chunk, at + FRAME_HEADER + XLOG_HEADER, end);
      else if (kind === KEEPALIVE) this.keepalive(block, chunk, at + FRAME_HEADER + 1);
      else throw unknownMessage("replication", kind!);
      at = end;
    }
    return block;
  }

  private keepalive(block: PgBlock, chunk: Buffer, at: number): void {
    this.advanceHead(chunk.readUInt32BE(at), chunk.readUInt32BE(at + 4));
    if (!this.inTransaction) block.add(ENTRY.idle, -1, at, -1);
    if (chunk[at + 16] === 1) this.onReplyRequested();
  }

  private advanceHead(high: number, low: number): void {
    if (high < this.headHigh || (high === this.headHigh && low <= this.headLow)) return;
    this.headHigh = high;
    this.headLow = low;
  }

  private message(block: PgBlock, chunk: Buffer, at: number, end: number): void {
    switch (chunk[at]) {
      case INSERT:
        block.add(ENTRY.insert, this.tableOf(chunk.readInt32BE(at + 1)), at + 6, -1);
        return;
      case UPDATE: {
        const table = this.tableOf(chunk.readInt32BE(at + 1));
        if (chunk[at + 5] === NEW_TUPLE) block.add(ENTRY.update, table, at + 6, -1);
        else block.add(ENTRY.update, table, tupleEnd(chunk, at + 6) + 1, at + 6);
        return;
      }
      case DELETE:
        block.add(ENTRY.delete, this.tableOf(chunk.readInt32BE(at + 1)), -1, at + 6);
        return;
      case BEGIN:
        this.inTransaction = true;
        block.add(ENTRY.begin, -1, at + 1, at + 9);
        return;
      case COMMIT:
        this.inTransaction = false;
        this.advanceHead(chunk.readUInt32BE(at + 10), chunk.readUInt32BE(at + 14));
        block.add(ENTRY.commit, -1, at + 10, at + 18);
        return;
      case RELATION:
        this.relation(block, chunk, at + 1);
        return;
      case TRUNCATE:
        this.truncate(block, chunk, at + 1);
        return;
      case MESSAGE:
        this.logicalMessage(block, chunk, at + 1, end);
        return;
      case ORIGIN:
      case TYPE:
        return;
      default:
        throw unknownMessage("pgoutput", chunk[at]!);
    }
  }

  private tableOf(oid: number): number {
    if (oid === this.lastOid) return this.lastTable;
    const table = this.byOid.get(oid);
    if (table === undefined) throw new DualrunError("DR5005", `a change came for relation ${oid}, which was never described`, { where: "source" });
    this.lastOid = oid;
    this.lastTable = table;
    return table;
  }

  private relation(block: PgBlock, chunk: Buffer, start: number): void {
    const oid = chunk.readInt32BE(start);
    const reader = new TextReader(chunk, start + 4);
    const present = `${reader.text() || "pg_catalog"}.${reader.text()}`;
    const name = this.agreedNames.get(oid >>> 0) ?? present;
    const identity = String.fromCharCode(reader.byte());
    const columns: string[] = [];
    const key: string[] = [];
    const lines: string[] = [];
    for (let left = reader.int16(); left > 0; left--) {
      const isKey = (reader.byte() & 1) !== 0;
      const column = reader.text();
      columns.push(column);
      if (isKey) key.push(column);
      lines.push(columnLine(column, reader.int32() >>> 0, reader.int32()));
    }
    const table: PgTable = { table: tableName(name), columns, lines, fullBeforeImage: identity === "f" };
    const known = this.byOid.get(oid);
    const index = known !== undefined && isSameLayout(this.tables[known]!, table) ? known : this.tables.length;
    const agreed = this.layouts.get(name) ?? { columns: known === undefined ? lines : this.tables[known]!.lines, facts: [] };
    const differences = [...layoutDifferences(agreed.columns, lines), ...identityDifferences(agreed.facts, identity, key)];
    if (differences.length > 0) this.schemaEntry(block, index, { table: table.table, differences });
    this.tables[index] = table;
    this.byOid.set(oid, index);
    this.lastOid = -1;
  }

  private schemaEntry(block: PgBlock, table: number, change: SchemaChange): void {
    block.schemaChanges.set(block.count, change);
    block.add(ENTRY.schema, table, -1, -1);
  }

  /** One entry per table; all but the last carry flag 4: "more tables of the same statement follow". */
  private truncate(block: PgBlock, chunk: Buffer, at: number): void {
    const count = chunk.readInt32BE(at);
    const flags = chunk[at + 4]!;
    for (let i = 0; i < count; i++) {
      const table = this.tableOf(chunk.readInt32BE(at + 5 + 4 * i));
      block.add(ENTRY.truncate, table, flags | (i < count - 1 ? 4 : 0), -1);
    }
  }

  private logicalMessage(block: PgBlock, chunk: Buffer, at: number, end: number): void {
    const prefixEnd = chunk.indexOf(0, at + 9);
    const prefix = chunk.toString("utf8", at + 9, prefixEnd);
    if (prefix === MARK_PREFIX) block.add(ENTRY.mark, -1, at + 1, prefixEnd + 1);
    else if (prefix === DDL_PREFIX) this.schemaEntry(block, -1, announcedChange(chunk.toString("utf8", prefixEnd + 5, end)));
  }
}

class TextReader {
  private readonly bytes: Buffer;
  private at: number;

  constructor(bytes: Buffer, at: number) {
    this.bytes = bytes;
    this.at = at;
  }

  text(): string {
    const end = this.bytes.indexOf(0, this.at);
    const text = this.bytes.toString("utf8", this.at, end);
    this.at = end + 1;
    return text;
  }

  byte(): number {
    return this.bytes[this.at++]!;
  }

  int16(): number {
    this.at += 2;
    return this.bytes.readInt16BE(this.at - 2);
  }

  int32(): number {
    this.at += 4;
    return this.bytes.readInt32BE(this.at - 4);
  }
}

/** Says in words how two layouts differ; empty when they do not. */
export function layoutDifferences(agreed: readonly string[], found: readonly string[]): string[] {
  const nameOf = (line: string): string => line.slice(0, line.lastIndexOf(" ", line.lastIndexOf(" ") - 1));
  const before = new Map(agreed.map((line) => [nameOf(line), line]));
  const after = new Map(found.map((line) => [nameOf(line), line]));
  const out: string[] = [];
  for (const [name, line] of after) {
    const old = before.get(name);
    if (old === undefined) out.push(`column "${name}" was added`);
    else if (old !== line) out.push(`column "${name}" has another type`);
  }
  for (const name of before.keys()) if (!after.has(name)) out.push(`column "${name}" was dropped or renamed`);
  if (out.length === 0 && agreed.join("\n") !== found.join("\n")) out.push("the order of the columns changed");
  return out;
}

/** Another identity names rows by other columns: what was compiled for the old one would read NULL where nothing was sent. */
function identityDifferences(agreed: readonly string[], identity: string, key: readonly string[]): string[] {
  const found = [`${IDENTITY_FACT}${identity}`, ...(identity === "f" ? [] : [`${KEY_FACT}${key.join(", ")}`])];
  return agreed.filter((fact) => (fact.startsWith(IDENTITY_FACT) || fact.startsWith(KEY_FACT)) && !found.includes(fact)).map((fact) => `no longer holds: ${fact}`);
}

function namesByOid(layouts: Layouts): ReadonlyMap<number, string> {
  return new Map([...layouts].flatMap(([name, { facts }]) => facts
    .filter((fact) => fact.startsWith(RELATION_FACT))
    .map((fact): [number, string] => [Number(fact.slice(RELATION_FACT.length)), name])));
}

function tableName(key: string): TableName {
  const dot = key.indexOf(".");
  return { schema: key.slice(0, dot), name: key.slice(dot + 1) };
}

/** The event trigger writes `schema.table command`. */
function announcedChange(content: string): SchemaChange {
  const [identity = "", ...command] = content.split("\n");
  return { table: tableName(identity), differences: [command.join(" ")], announced: true };
}

function unknownMessage(what: string, letter: number): DualrunError {
  return new DualrunError("DR5005", `unknown ${what} message '${String.fromCharCode(letter)}'`, { where: "source" });
}
