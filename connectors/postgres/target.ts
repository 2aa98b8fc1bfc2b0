/** PostgreSQL as the target of a mirror. */
import type pg from "pg";
import {
  DualrunError, findTable,
  type Catalogue, type Checkpoint, type Chunk, type ChunkMark, type ClassBatch, type ComparedClass, type Conversion, type CutReader, type Endpoint, type Finding, type Freeze, type FreezeHolder, type LoadOptions, type LoadResult, type Migration,
  type Position, type ReadLimits, type RecordClass, type RowBatch, type RowRepair, type Scratch, type SequenceAdvance, type SequenceValue, type SliceKind, type SqlExecutor, type Target, type TargetTransaction, type TouchRecord, type ValueFormat, type WriteOptions, type WriteResult,
} from "../../src/core/index.ts";
import { certificateExpiry, connect, connectPool, describe, sqlState, withClient } from "./connection.ts";
import { conversionInto } from "./common-types.ts";
import { sliceKindOf } from "./canonical.ts";
import { prepareTargetReader } from "./cut.ts";
import { dialect } from "./ddl.ts";
import { formatFor } from "./formats.ts";
import { carryPass } from "./freeze-sql.ts";
import { PostgresFreeze } from "./freeze.ts";
import { targetGrants } from "./grants.ts";
import { quoteLiteral, quoteTable } from "./identifiers.ts";
import { inspectEndpoint } from "./inspect.ts";
import { loadChunk } from "./load.ts";
import { preflightTarget } from "./preflight.ts";
import { executeRepairs, repairStatements } from "./repair.ts";
import { openScratch } from "./scratch.ts";
import { advanceSequences } from "./sequences.ts";
import { advance, holdFence, insertChunks, migrateState, recordTouched, readCheckpoint, readChunks, takeOver } from "./state.ts";
import { WriterSession, refusal, writeBatch } from "./writer.ts";

/** Nothing that has been confirmed may be lost; plans are fixed to key look-ups; a lock that is never let go is an error. */
const APPLY_SETTINGS: Readonly<Record<string, string>> = {
  synchronous_commit: "on", enable_hashjoin: "off", enable_mergejoin: "off", max_parallel_workers_per_gather: "0", jit: "off",
  lock_timeout: "60s", default_transaction_isolation: "read committed",
};

export async function connectPostgresTarget(endpoint: Endpoint, migration: string): Promise<PostgresTarget> {
  const control = await connectPool(endpoint, { application: `dualrun ${migration}` });
  const target = new PostgresTarget(endpoint, migration, control);
  try {
    await target.refuseForgetful();
    return target;
  } catch (error) {
    await target[Symbol.asyncDispose]();
    throw error;
  }
}

export class PostgresTarget implements Target {
  readonly dialect = dialect;
  private readonly endpoint: Endpoint;
  private readonly migration: string;
  private readonly control: pg.Pool;
  private writer: WriterSession | null = null;
  private readonly loaders = new Map<number, pg.Client>();

  constructor(endpoint: Endpoint, migration: string, control: pg.Pool) {
    this.endpoint = endpoint;
    this.migration = migration;
    this.control = control;
  }

  readonly sql: SqlExecutor = async (text, values = []) => (await this.control.query(text, [...values])).rows;

  certificateExpiry(): Promise<Date | null> {
    return certificateExpiry(this.endpoint, { application: `dualrun ${this.migration} certificate` });
  }

  inspect(): Promise<Catalogue> {
    return inspectEndpoint(this.endpoint, `dualrun ${this.migration} inspect`);
  }

  preflight(classes: readonly RecordClass[], target: Catalogue, source: Catalogue): Finding[] {
    return preflightTarget(classes, target, source);
  }

  grants(classes: readonly RecordClass[], catalogue: Catalogue): string[] {
    return targetGrants(classes, catalogue);
  }

  formats(cls: RecordClass, source: Catalogue, target: Catalogue): ValueFormat {
    return formatFor(cls, source, target);
  }

  conversions(cls: RecordClass, target: Catalogue): Readonly<Record<string, Conversion>> {
    const columns = findTable(target, cls.target)?.columns ?? [];
    return Object.fromEntries(columns.flatMap((column) => {
      const conversion = conversionInto(column.common);
      return conversion === null ? [] : [[column.name, conversion] as const];
    }));
  }

  async refuseForgetful(): Promise<void> {
    const { rows } = await this.control.query<{ fsync: string }>("SELECT current_setting('fsync') AS fsync");
    if (rows[0]!.fsync === "on" || process.env["DUALRUN_ALLOW_UNSAFE_TARGET"] === "1") return;
    throw new DualrunError("DR3003", `${describe(this.endpoint)} runs with fsync = off`, { where: "target" });
  }

  prepareState(migrations: readonly Migration[]): Promise<void> {
    return withClient(this.control, (client) => migrateState(client, migrations));
  }

  takeOver(stream: string): Promise<Checkpoint> {
    return takeOver(this.control, stream);
  }

  checkpoint(stream: string): Promise<Checkpoint | null> {
    return readCheckpoint(this.control, stream);
  }

  startStream(held: Checkpoint, position: Position, sourceIdentity: string, chunks: readonly Chunk[]): Promise<Checkpoint> {
    return this.fenced(held, async (client) => {
      await client.query("DELETE FROM dualrun.chunks WHERE stream = $1", [held.stream]);
      await client.query("DELETE FROM dualrun.refused_rows WHERE stream = $1", [held.stream]);
      await insertChunks(client, held.stream, chunks);
      return advance(client, held, position, sourceIdentity);
    });
  }

  rebindSource(held: Checkpoint, sourceIdentity: string): Promise<Checkpoint> {
    return advance(this.control, held, held.position!, sourceIdentity);
  }

  async begin(format: ValueFormat): Promise<TargetTransaction> {
    this.writer ??= new WriterSession(await this.openWriter("apply"));
    await this.writer.client.query("BEGIN");
    return new PostgresTransaction(this.writer, format);
  }

  sliceKind(compared: ComparedClass): SliceKind {
    return sliceKindOf(compared);
  }

  prepareCutReader(limits: ReadLimits): Promise<{ readonly reader: CutReader; snapshot(): Promise<void> }> {
    return prepareTargetReader(this.endpoint, `dualrun ${this.migration}`, limits);
  }

  scratch(limits: ReadLimits): Promise<Scratch> {
    return openScratch(this.endpoint, "target", `dualrun ${this.migration}`, limits);
  }

  repairStatements(compared: ComparedClass, repairs: readonly RowRepair[], masked: ReadonlySet<string>): string[] {
    return repairStatements(compared, repairs, masked);
  }

  repair(compared: ComparedClass, repairs: readonly RowRepair[], held: Checkpoint): Promise<void> {
    return this.fenced(held, async (client) => {
      await executeRepairs(client, compared, repairs).catch((error: unknown) => {
        throw refusal(error, compared.cls);
      });
      await recordTouched(client, held.stream, held.position!, { generation: 0n, touches: new Map([[compared.cls.name, null]]) });
    });
  }

  freezer(holder: FreezeHolder): Freeze {
    return new PostgresFreeze(this.endpoint, this.migration, "target", holder, this.control);
  }

  advanceSequences(classes: readonly RecordClass[], values: readonly SequenceValue[], margin: number, held: Checkpoint): Promise<SequenceAdvance> {
    return this.fenced(held, (client) => advanceSequences(client, classes, values, margin));
  }

  async isEmpty(classes: readonly RecordClass[]): Promise<string[]> {
    const filled: string[] = [];
    for (const cls of classes) {
      const { rows } = await this.control.query(`SELECT 1 FROM ${quoteTable(cls.target)} LIMIT 1`);
      if (rows.length > 0) filled.push(cls.name);
    }
    return filled;
  }

  truncateAll(classes: readonly RecordClass[], held: Checkpoint): Promise<void> {
    return this.fenced(held, async (client) => {
      await client.query(`TRUNCATE ${classes.map((cls) => quoteTable(cls.target)).join(", ")}`);
      await client.query("DELETE FROM dualrun.chunks WHERE stream = $1", [held.stream]);
    });
  }

  chunks(stream: string): Promise<ChunkMark[]> {
    return readChunks(this.control, stream);
  }

  resetClass(cls: RecordClass, held: Checkpoint, chunks: readonly Chunk[]): Promise<void> {
    return this.fenced(held, async (client) => {
      await client.query(`DELETE FROM ${quoteTable(cls.target)}`);
      await client.query("DELETE FROM dualrun.chunks WHERE stream = $1 AND class = $2", [held.stream, cls.name]);
      await client.query("DELETE FROM dualrun.refused_rows WHERE stream = $1 AND class = $2", [held.stream, cls.name]);
      await recordTouched(client, held.stream, held.position ?? ("" as Position), { generation: 0n, touches: new Map([[cls.name, null]]) });
      await insertChunks(client, held.stream, chunks);
    });
  }

  async load(
    chunk: Chunk, cls: RecordClass, format: ValueFormat, rows: AsyncIterable<RowBatch>, held: Checkpoint, at: Position, options: LoadOptions, loader: number,
  ): Promise<LoadResult> {
    let client = this.loaders.get(loader);
    if (client === undefined) {
      client = await this.openWriter(`load ${loader}`);
      this.loaders.set(loader, client);
    }
    try {
      return await loadChunk(client, chunk, cls, format, rows, held, at, options);
    } catch (error) {
      this.loaders.delete(loader);
      await client.end().catch(() => undefined); // in the middle of a copy there is nothing to save
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const open: { end(): Promise<void> }[] = [...this.loaders.values(), this.control];
    if (this.writer !== null) open.push(this.writer.client);
    this.writer = null;
    this.loaders.clear();
    await Promise.allSettled(open.map((client) => client.end()));
  }

  private async fenced<T>(held: Checkpoint, work: (client: pg.Client) => Promise<T>): Promise<T> {
    const client = await this.openWriter("control");
    try {
      await client.query("BEGIN");
      await holdFence(client, held);
      const result = await work(client);
      await client.query("COMMIT");
      return result;
    } finally {
      await client.end().catch(() => undefined); // uncommitted work is rolled back by the server
    }
  }

  /** A session that fires no triggers and whose writes carry dualrun's origin, as far as the role may. */
  private async openWriter(purpose: string): Promise<pg.Client> {
    const client = await connect(this.endpoint, { application: `dualrun ${this.migration} ${purpose}`, settings: APPLY_SETTINGS });
    try {
      await ifPermitted(client, "SET session_replication_role = replica");
      await carryPass(client, this.migration);
      await this.useOrigin(client, `dualrun_${this.migration.replaceAll("-", "_")}_${purpose.replaceAll(" ", "_")}`);
      return client;
    } catch (error) {
      await client.end().catch(() => undefined);
      throw error;
    }
  }

  private async useOrigin(client: pg.Client, origin: string): Promise<void> {
    const name = quoteLiteral(origin);
    const created = await ifPermitted(client, `SELECT pg_replication_origin_create(${name}) WHERE pg_replication_origin_oid(${name}) IS NULL`, ["42710", "23505"]);
    if (created) await ifPermitted(client, `SELECT pg_replication_origin_session_setup(${name})`);
  }
}

/** Runs a statement that preflight has spoken about already; false when the role may not. */
async function ifPermitted(client: pg.Client, statement: string, harmless: readonly string[] = []): Promise<boolean> {
  try {
    await client.query(statement);
    return true;
  } catch (error) {
    const state = sqlState(error) ?? "";
    if (state === "42501") return false;
    if (harmless.includes(state)) return true;
    throw error;
  }
}

class PostgresTransaction implements TargetTransaction {
  private readonly session: WriterSession;
  private readonly format: ValueFormat;
  private open = true;

  constructor(session: WriterSession, format: ValueFormat) {
    this.session = session;
    this.format = format;
  }

  write(classes: readonly ClassBatch[], options: WriteOptions): Promise<WriteResult> {
    return writeBatch(this.session, classes, this.format, options);
  }

  async truncate(classes: readonly RecordClass[]): Promise<void> {
    await this.session.client.query(`TRUNCATE ${classes.map((cls) => quoteTable(cls.target)).join(", ")}`);
  }

  async commit(from: Checkpoint, position: Position, touched: TouchRecord | null): Promise<Checkpoint> {
    if (touched !== null) await recordTouched(this.session.client, from.stream, position, touched);
    const moved = await advance(this.session.client, from, position);
    await this.session.client.query("COMMIT");
    this.open = false;
    this.session.transactionEnded(true);
    return moved;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.open) return;
    this.open = false;
    this.session.transactionEnded(false);
    await this.session.client.query("ROLLBACK").catch(() => undefined); // a lost connection has rolled back already
  }
}

