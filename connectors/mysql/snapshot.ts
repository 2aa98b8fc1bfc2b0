/** A consistent snapshot with its place in the log, and the connections that read it. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "mariadb";
import {
  DualrunError, findTable, isDualrunError, tableKey,
  type Catalogue, type Chunk, type Endpoint, type Position, type RecordClass, type RowBatch, type Snapshot, type TableFacts, type ValueFormat,
} from "../../src/core/index.ts";
import { connect, errorNumber, query, unreachable, type Flavour, type Value } from "./connection.ts";
import { quoteIdent, quoteTable } from "./identifiers.ts";
import { canonicalPosition } from "./positions.ts";
import { beyond, chunkRange, commonText, keyColumns, selectLines, wherePredicate } from "./select.ts";

/** A lock that production would have to queue behind is given up after this many seconds. */
const LOCK_PATIENCE_S = 2;
const LOCK_TRIES = 30;
const LOCK_PAUSE_MS = 500;
export const LOCK_TIMEOUT = 1205;
const FRAME_BYTES = 256 << 10;

const BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/** Begins transactions on all connections that show the same moment, and returns its place in the log. Behind a writer that does not end it gives way, and tries again. */
async function beginTogether(endpoint: Endpoint, application: string, flavour: Flavour, connections: readonly Connection[], tables: readonly string[], signal: AbortSignal): Promise<Position> {
  if (flavour === "mariadb" && connections.length === 1) return beginAlone(connections[0]!);
  for (let attempt = 1; ; attempt++) {
    signal.throwIfAborted();
    try {
      return await beginLocked(endpoint, application, flavour, connections, tables, LOCK_PATIENCE_S);
    } catch (error) {
      if (errorNumber(error) !== LOCK_TIMEOUT || attempt === LOCK_TRIES) throw error;
      await sleep(LOCK_PAUSE_MS, undefined, { signal });
    }
  }
}

/** MariaDB knows the place of a transaction's own snapshot. */
export async function beginAlone(connection: Connection): Promise<Position> {
  await connection.query(BEGIN);
  const rows = await query(connection, "SHOW STATUS LIKE 'binlog_snapshot_%'");
  const status = new Map(rows.map((row) => [String(row["Variable_name"]).toLowerCase(), String(row["Value"])]));
  const [place] = await query(connection, "SELECT BINLOG_GTID_POS(?, ?) AS gtid", [status.get("binlog_snapshot_file")!, status.get("binlog_snapshot_position")!]);
  return canonicalPosition(String(place!["gtid"] ?? ""));
}

/**
 * While the tables are locked against writers nothing that is mirrored can commit: the place is that of all snapshots.
 * Production's writers queue behind the lock for as long as it is waited for, `patience` seconds at most.
 */
export async function beginLocked(endpoint: Endpoint, application: string, flavour: Flavour, connections: readonly Connection[], tables: readonly string[], patience: number): Promise<Position> {
  const lock = await connect(endpoint, { application: `${application} lock`, settings: { lock_wait_timeout: patience } });
  try {
    await lock.query(`LOCK TABLES ${tables.map((table) => `${table} READ`).join(", ")}`);
    await Promise.all(connections.map((connection) => connection.query(BEGIN)));
    return await executed(lock, flavour);
  } finally {
    await lock.end(); // and so the lock
  }
}

/** Everything that has been committed, as a place in the log. */
export async function executed(connection: Parameters<typeof query>[0], flavour: Flavour): Promise<Position> {
  const [row] = await query(connection, flavour === "mysql" ? "SELECT @@GLOBAL.gtid_executed AS gtid" : "SELECT @@GLOBAL.gtid_binlog_pos AS gtid");
  return canonicalPosition(String(row!["gtid"] ?? ""));
}

export async function openMysqlSnapshot(
  endpoint: Endpoint, application: string, flavour: Flavour, catalogue: Catalogue, classes: readonly RecordClass[], readers: number, signal: AbortSignal,
): Promise<MysqlSnapshot> {
  const connections: Connection[] = [];
  try {
    for (let i = 0; i < readers; i++) connections.push(await connect(endpoint, { application: `${application} copy ${i}`, readOnly: true }));
    const position = await beginTogether(endpoint, application, flavour, connections, classes.map((cls) => quoteTable(cls.source)), signal);
    return new MysqlSnapshot(endpoint, connections, catalogue, position);
  } catch (error) {
    for (const connection of connections) connection.destroy();
    throw error;
  }
}

export class MysqlSnapshot implements Snapshot {
  readonly position: Position;
  readonly openedAt = new Date();
  readonly holds = "undo log";
  private readonly endpoint: Endpoint;
  private readonly connections: readonly Connection[];
  private readonly catalogue: Catalogue;

  constructor(endpoint: Endpoint, connections: readonly Connection[], catalogue: Catalogue, position: Position) {
    this.endpoint = endpoint;
    this.connections = connections;
    this.catalogue = catalogue;
    this.position = position;
  }

  async plan(cls: RecordClass, chunkRows: number): Promise<Chunk[]> {
    const facts = this.factsOf(cls);
    const key = keyColumns(cls, facts);
    const bounds = key.length === 0 ? [] : await this.bounds(cls, facts, chunkRows);
    const count = bounds.length + 1;
    return Array.from({ length: count }, (_, ordinal) => ({
      className: cls.name, ordinal, lower: bounds[ordinal - 1] ?? null, upper: bounds[ordinal] ?? null, resumable: key.length > 0,
      estimatedRows: facts.estimatedRows / count, estimatedBytes: facts.bytes / count,
    }));
  }

  /** Rows as CopyData frames of COPY's text. */
  async *read(chunk: Chunk, cls: RecordClass, format: ValueFormat, reader: number, signal: AbortSignal): AsyncGenerator<RowBatch, void, undefined> {
    if (format !== "text") throw new TypeError("rows of MySQL and MariaDB come as text");
    const facts = this.factsOf(cls);
    const connection = this.connections[reader]!;
    if (!connection.isValid()) throw unreachable(this.endpoint, new Error("the connection was lost"));
    const lines = connection.queryStream({ sql: selectLines(cls, facts, chunkRange(chunk, keyColumns(cls, facts))), rowsAsArray: true });
    const abort = (): void => void lines.destroy();
    signal.addEventListener("abort", abort, { once: true });
    try {
      let gathered: Buffer[] = [];
      let bytes = 0;
      for await (const [line] of lines as AsyncIterable<Value[]>) {
        if (line === null || line === undefined) throw tooLarge(cls);
        const frame = Buffer.isBuffer(line) ? line : Buffer.from(line);
        gathered.push(frame);
        bytes += frame.length;
        if (bytes < FRAME_BYTES) continue;
        yield frames(gathered, bytes);
        gathered = [];
        bytes = 0;
      }
      if (bytes > 0) yield frames(gathered, bytes);
    } catch (error) {
      throw connection.isValid() || isDualrunError(error) ? error : unreachable(this.endpoint, error); // the package's stream says a TypeError
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.connections) connection.destroy(); // a reader in the middle of a copy is simply cut off
  }

  private factsOf(cls: RecordClass): TableFacts {
    const facts = findTable(this.catalogue, cls.source);
    if (facts === undefined) throw new DualrunError("DR5001", `${tableKey(cls.source)} is gone`, { where: "source" });
    return facts;
  }

  /** Walks along the key's index, `chunkRows` rows at a step. */
  private async bounds(cls: RecordClass, facts: TableFacts, chunkRows: number): Promise<string[][]> {
    const key = keyColumns(cls, facts);
    const names = key.map((column) => quoteIdent(column.name)).join(", ");
    const texts = key.map((column, i) => `${commonText(column)} AS k${i}`).join(", ");
    const filter = cls.where === null ? null : wherePredicate(cls.where, facts);
    const bounds: string[][] = [];
    for (;;) {
      const last = bounds.at(-1);
      const conditions = [filter, last === undefined ? null : beyond(key, last, ">", true)].filter((condition) => condition !== null);
      const where = conditions.length === 0 ? "" : ` WHERE ${conditions.join(" AND ")}`;
      const [row] = await query(this.connections[0]!, `SELECT ${texts} FROM ${quoteTable(cls.source)}${where} ORDER BY ${names} LIMIT 1 OFFSET ${chunkRows}`);
      if (row === undefined) return bounds;
      bounds.push(key.map((_, i) => String(row[`k${i}`])));
    }
  }
}

/** One CopyData message for many rows: the receiver splits them at their ends. */
function frames(lines: readonly Buffer[], bytes: number): RowBatch {
  const header = Buffer.allocUnsafe(5);
  header[0] = 0x64;
  header.writeInt32BE(bytes + 4, 1);
  return { bytes: Buffer.concat([header, ...lines]), rows: lines.length };
}

function tooLarge(cls: RecordClass): DualrunError {
  return new DualrunError("DR5005", "a row is larger than the source can render as one line", { where: `class ${cls.name}`, next: "Raise max_allowed_packet on the source (up to 1 GiB), then restart the copy." });
}
