/** MySQL and MariaDB as the source of a mirror. */
import { randomUUID } from "node:crypto";
import type { Pool } from "mariadb";
import {
  DualrunError, NotComparable,
  type Catalogue, type ChangeStream, type Checkpoint, type CutMaker, type Endpoint, type Finding, type Freeze, type PassedTransactions, type Position, type Positions, type ReadLimits, type RecordClass,
  type SchemaTrigger, type Scratch, type SequenceValue, type Snapshot, type Source, type StreamHealth, type TableLayout, type TableName, type ValueFormat,
} from "../../src/core/index.ts";
import { certificateExpiry, connect, connectPool, flavourOf, query, type Flavour } from "./connection.ts";
import { MysqlCut } from "./cut.ts";
import { lost } from "./faults.ts";
import { sourceGrants } from "./grants.ts";
import { quoteTable } from "./identifiers.ts";
import { inspectEndpoint, readIdentity } from "./inspect.ts";
import { MARKS, hintsOf, layoutDifferences, layoutsOf, readColumns, tableNamed } from "./layout.ts";
import { canonicalPosition, isWithin, mysqlPositions } from "./positions.ts";
import { preflightSource } from "./preflight.ts";
import { executed, openMysqlSnapshot } from "./snapshot.ts";
import { openMysqlStream } from "./stream.ts";
import { MARKS_COLUMNS, lastMark, standsInLog, writeMark, type Witness } from "./witness.ts";

/** The mark by which a log is recognised must not be older than what the server keeps of it. */
const WITNESS_EVERY_MS = 600_000;

export async function connectMysqlSource(endpoint: Endpoint, migration: string, replica: Endpoint | null): Promise<MysqlSource> {
  const application = `dualrun ${migration}`;
  const probe = await connect(endpoint, { application });
  const flavour = flavourOf(probe);
  await probe.end();
  return new MysqlSource(endpoint, migration, replica, await connectPool(endpoint, { application }), flavour);
}

export class MysqlSource implements Source {
  readonly positions: Positions = mysqlPositions;
  private readonly endpoint: Endpoint;
  private readonly migration: string;
  private readonly application: string;
  private readonly replica: Endpoint | null;
  private readonly pool: Pool;
  private readonly flavour: Flavour;
  private markedAt = Number.NEGATIVE_INFINITY;

  constructor(endpoint: Endpoint, migration: string, replica: Endpoint | null, pool: Pool, flavour: Flavour) {
    this.endpoint = endpoint;
    this.migration = migration;
    this.application = `dualrun ${migration}`;
    this.replica = replica;
    this.pool = pool;
    this.flavour = flavour;
  }

  identity(): Promise<string> {
    return readIdentity(this.pool, this.flavour);
  }

  certificateExpiry(): Promise<Date | null> {
    return certificateExpiry(this.endpoint, { application: `${this.application} certificate` });
  }

  inspect(): Promise<Catalogue> {
    return inspectEndpoint(this.endpoint, `${this.application} inspect`);
  }

  preflight(classes: readonly RecordClass[], catalogue: Catalogue): Finding[] {
    return preflightSource(classes, catalogue);
  }

  grants(classes: readonly RecordClass[], catalogue: Catalogue): string[] {
    return sourceGrants(classes, catalogue);
  }

  head(): Promise<Position> {
    return executed(this.pool, this.flavour);
  }

  async mark(token: string): Promise<Position> {
    const after = await this.head();
    await writeMark(this.pool, this.migration, { after, token });
    this.markedAt = performance.now();
    return after;
  }

  /** The log holds every table; what is ours is the place for markers. */
  async publish(): Promise<void> {
    await this.pool.query(`CREATE DATABASE IF NOT EXISTS ${MARKS.schema}`);
    await this.pool.query(`CREATE TABLE IF NOT EXISTS ${quoteTable(MARKS)} (${MARKS_COLUMNS}) ENGINE = InnoDB CHARACTER SET utf8mb4`);
  }

  async openSnapshot(classes: readonly RecordClass[], purpose: "first" | "more", readers: number, signal: AbortSignal): Promise<Snapshot> {
    if (purpose === "first") await this.publish();
    return openMysqlSnapshot(this.endpoint, this.application, this.flavour, await this.inspect(), classes, readers, signal);
  }

  /** Another server may go on where this one ended: it has to hold all that the target has, and still have the log of what came then. */
  async resumeCheck(checkpoint: Checkpoint): Promise<string> {
    const position = checkpoint.position!;
    const identity = await this.identity();
    const witness = await lastMark(this.pool, this.migration);
    const head = await this.head();
    if (!isWithin(position, head)) {
      throw identity === checkpoint.sourceIdentity
        ? lost(`the target stands at ${position}, which the source's log does not hold: it is at ${head}`)
        : new DualrunError("DR4003", `this server does not hold all that the target has: ${position}`, { where: "source" });
    }
    const purged = await this.purged();
    if (!isWithin(purged, position)) throw lost(`the source has thrown away its log up to ${purged}, the target stands at ${position}`);
    if (witness !== null && isWithin(purged, witness.after)) await this.refuseNewLog(witness, head);
    return identity;
  }

  private async refuseNewLog(witness: Witness, head: Position): Promise<void> {
    if (isWithin(witness.after, head) && (await standsInLog(witness, head, this.endpoint, this.flavour, this.migration))) return;
    throw lost("the source's log was begun anew (RESET): what it holds under the same numbers are other transactions");
  }

  async openStream(after: Position, format: ValueFormat, layouts: ReadonlyMap<string, TableLayout>, signal: AbortSignal): Promise<ChangeStream> {
    if (format !== "text") throw new TypeError("rows of MySQL and MariaDB come as text");
    await this.mark(`open ${randomUUID()}`);
    const hints = hintsOf(await readColumns(this.pool, [...layouts.keys()].map(tableNamed)));
    return openMysqlStream(this.endpoint, { flavour: this.flavour, migration: this.migration, after, layouts, hints, signal });
  }

  async prepareCut(limits: ReadLimits, _passed: PassedTransactions, tables: readonly TableName[]): Promise<CutMaker> {
    if (this.replica !== null) throw new NotComparable("source.readReplica is not supported on MySQL and MariaDB yet");
    return MysqlCut.prepare(this.endpoint, this.application, this.flavour, tables.map(quoteTable), limits);
  }

  forgetVisible(): Promise<void> {
    return Promise.resolve();
  }

  scratch(_limits: ReadLimits): Promise<Scratch> {
    return Promise.reject(unavailable("the self-test"));
  }

  async streamHealth(): Promise<StreamHealth> {
    if (performance.now() - this.markedAt > WITNESS_EVERY_MS) await this.mark(`witness ${randomUUID()}`);
    return { head: await this.head(), retainedBytes: null, state: "ok", detail: "the source keeps its log by time, whoever reads it" };
  }

  async layouts(tables: readonly TableName[]): Promise<Map<string, TableLayout>> {
    return layoutsOf(await readColumns(this.pool, tables));
  }

  layoutDifferences(agreed: TableLayout, found: TableLayout): string[] {
    return layoutDifferences(agreed, found);
  }

  /** The log tells of every schema change where it happened: nothing has to be installed. */
  schemaTrigger(): SchemaTrigger {
    const nothing = (): Promise<void> => Promise.resolve();
    return { statements: [], isInstalled: () => Promise.resolve(true), install: nothing, remove: nothing };
  }

  freezer(): Freeze {
    throw unavailable("the freeze");
  }

  readSequences(): Promise<SequenceValue[]> {
    return Promise.reject(unavailable("reading auto-increments"));
  }

  async tearDown(): Promise<void> {
    await this.pool.query(`DELETE FROM ${quoteTable(MARKS)} WHERE migration = ?`, [this.migration]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.end().catch(() => undefined); // it may be broken already
  }

  /** Up to where the log is gone. */
  private async purged(): Promise<Position> {
    if (this.flavour === "mysql") return canonicalPosition(String((await query(this.pool, "SELECT @@GLOBAL.gtid_purged AS gtid"))[0]!["gtid"] ?? ""));
    const [oldest] = await query(this.pool, "SHOW BINARY LOGS");
    const [row] = await query(this.pool, "SELECT BINLOG_GTID_POS(?, 4) AS gtid", [String(oldest!["Log_name"])]);
    return canonicalPosition(String(row!["gtid"] ?? ""));
  }
}

function unavailable(what: string): DualrunError {
  return new DualrunError("DR1005", `${what} is not available on MySQL and MariaDB yet`, { where: "source" });
}
