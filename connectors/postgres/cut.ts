/** One logical moment on a source: by the snapshot that a temporary slot exports, on a standby whose replay is paused, or by a plain snapshot beside writers that do not end. */
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { NotComparable, type CutMaker, type CutReader, type Endpoint, type PassedTransactions, type Position, type ReadLimits, type SourceCut } from "../../src/core/index.ts";
import { connect, sqlState } from "./connection.ts";
import { PostgresCutReader } from "./digest.ts";
import { lsnToBigInt } from "./lsn.ts";

/** A decoded commit may be in the log a moment before it is visible to a snapshot that was made at its place. */
const VISIBILITY_DELAY_MS = 100;
/** A reader that waits for a lock may be holding the applier meanwhile. */
const LOCK_PATIENCE = "3s";
const BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

function readerSettings(limits: ReadLimits): Readonly<Record<string, string>> {
  return { statement_timeout: String(limits.statementTimeout), jit: "off", default_transaction_read_only: "on", lock_timeout: LOCK_PATIENCE };
}

async function versionOf(client: pg.Client): Promise<number> {
  return Number((await client.query<{ v: string }>("SELECT current_setting('server_version_num') AS v")).rows[0]!.v);
}

/** Two connections that stand ready: one makes the slot, the other reads. */
export class SlotCut implements CutMaker {
  private readonly replication: pg.Client;
  private readonly reader: pg.Client;
  private readonly control: Pick<pg.ClientBase, "query">;
  private readonly limits: ReadLimits;
  private readonly name: string;
  private readonly version: number;
  private taken = false;

  private constructor(replication: pg.Client, reader: pg.Client, control: Pick<pg.ClientBase, "query">, name: string, version: number, limits: ReadLimits) {
    this.replication = replication;
    this.reader = reader;
    this.control = control;
    this.name = name;
    this.version = version;
    this.limits = limits;
  }

  static async prepare(endpoint: Endpoint, control: Pick<pg.ClientBase, "query">, name: string, limits: ReadLimits): Promise<SlotCut> {
    const replication = await connect(endpoint, { application: `${name} cut`, replication: true });
    try {
      const reader = await connect(endpoint, { application: `${name} compare`, settings: readerSettings(limits) });
      return new SlotCut(replication, reader, control, name, await versionOf(reader), limits);
    } catch (error) {
      await replication.end().catch(() => undefined); // the first error is the one to report
      throw error;
    }
  }

  async take(timeout: number): Promise<SourceCut> {
    const slot = `"${this.name}_cut_${process.pid}_${Date.now() % 1_000_000_000}" TEMPORARY`;
    const options = this.version >= 150_000 ? "LOGICAL pgoutput (SNAPSHOT 'export')" : "LOGICAL pgoutput EXPORT_SNAPSHOT";
    const exported = await this.within(timeout, `CREATE_REPLICATION_SLOT ${slot} ${options}`);
    await this.reader.query(`${BEGIN}; SET TRANSACTION SNAPSHOT '${exported.snapshot_name}'`);
    await this.replication.end(); // the slot goes with it, and so does the log that it held
    this.taken = true;
    return { position: exported.consistent_point as Position, by: "slot", reader: new DelayedReader("source", this.reader, this.version, this.limits) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.taken) return;
    await Promise.allSettled([this.replication.end(), this.reader.end()]);
  }

  /** Making a slot waits for every transaction that is writing: not longer than we may hold the applier. */
  private async within(timeout: number, statement: string): Promise<{ consistent_point: string; snapshot_name: string }> {
    const pid = (this.replication as unknown as { processID: number }).processID;
    const timer = setTimeout(() => void this.control.query("SELECT pg_cancel_backend($1)", [pid]).catch(() => undefined), timeout); // when it is gone there is nothing to cancel
    try {
      const result = (await this.replication.query(statement)) as unknown as { rows: { consistent_point: string; snapshot_name: string }[] };
      return result.rows[0]!;
    } catch (error) {
      if (sqlState(error) !== "57014") throw error;
      throw new NotComparable(`a transaction that was writing on the source did not end within ${timeout} ms`, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }
}

/** A standby replays commits in log order: with its replay paused, what it shows is everything up to the place it has replayed. */
export class StandbyCut implements CutMaker {
  private readonly reader: pg.Client;
  private readonly limits: ReadLimits;
  private readonly version: number;
  private readonly floor: () => Promise<Position>;
  private taken = false;

  private constructor(reader: pg.Client, version: number, limits: ReadLimits, floor: () => Promise<Position>) {
    this.reader = reader;
    this.version = version;
    this.limits = limits;
    this.floor = floor;
  }

  static async prepare(endpoint: Endpoint, name: string, limits: ReadLimits, floor: () => Promise<Position>): Promise<StandbyCut> {
    const reader = await connect(endpoint, { application: `${name} compare`, settings: readerSettings(limits) });
    const { rows } = await reader.query<{ standby: boolean }>("SELECT pg_is_in_recovery() AS standby");
    if (rows[0]!.standby) return new StandbyCut(reader, await versionOf(reader), limits, floor);
    await reader.end();
    throw new NotComparable("source.readReplica is not a standby: it is not in recovery");
  }

  async take(timeout: number): Promise<SourceCut> {
    const deadline = Date.now() + timeout;
    await this.reach(await this.floor(), deadline);
    await this.reader.query("SELECT pg_wal_replay_pause()");
    try {
      await this.paused(deadline);
      await this.reader.query(BEGIN);
      const { rows } = await this.reader.query<{ lsn: string }>("SELECT pg_last_wal_replay_lsn()::text AS lsn");
      this.taken = true;
      return { position: rows[0]!.lsn as Position, by: "standby", reader: new PostgresCutReader("source", this.reader, this.version, this.limits) };
    } finally {
      await this.reader.query("SELECT pg_wal_replay_resume()");
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.taken) await this.reader.end().catch(() => undefined); // it was never read from
  }

  private async reach(floor: Position, deadline: number): Promise<void> {
    while (true) {
      const { rows } = await this.reader.query<{ lsn: string }>("SELECT pg_last_wal_replay_lsn()::text AS lsn");
      if (lsnToBigInt(rows[0]!.lsn) >= lsnToBigInt(floor)) return;
      if (Date.now() > deadline) throw new NotComparable("the standby did not replay up to the present within the time allowed");
      await sleep(5);
    }
  }

  private async paused(deadline: number): Promise<void> {
    while (true) {
      const { rows } = await this.reader.query<{ state: string }>("SELECT pg_get_wal_replay_pause_state() AS state");
      if (rows[0]!.state === "paused") return;
      if (Date.now() > deadline) throw new NotComparable("the standby did not pause its replay within the time allowed");
      await sleep(2);
    }
  }
}

/** What a snapshot does not show, as PostgreSQL writes it: `next:…`. 64-bit transaction numbers. */
export interface RunningSnapshot {
  /** No transaction from this one on is shown. */
  readonly next: bigint;
  /** Earlier ones that are not shown. */
  readonly running: readonly bigint[];
}

/** Reads `pg_current_snapshot()`: `xmin:xmax:xip,xip`. */
export function runningSnapshot(text: string): RunningSnapshot {
  const [, next, running] = text.split(":");
  return { next: BigInt(next!), running: running === "" ? [] : running!.split(",").map(BigInt) };
}

/** What the mirror knows of transactions: those it has come past, and which cannot have ended before it was connected. */
export interface KnownTransactions {
  readonly passed: PassedTransactions;
  readonly since: bigint;
}

/**
 * A snapshot that waits for nobody. It shows everything that the mirror has come past, and nothing of what ends behind it;
 * what lies between is left out by whoever compares.
 */
export class SlotFreeCut implements CutMaker {
  private readonly reader: pg.Client;
  private readonly limits: ReadLimits;
  private readonly version: number;
  private readonly known: KnownTransactions;
  private taken = false;

  private constructor(reader: pg.Client, version: number, limits: ReadLimits, known: KnownTransactions) {
    this.reader = reader;
    this.version = version;
    this.limits = limits;
    this.known = known;
  }

  static async prepare(endpoint: Endpoint, name: string, limits: ReadLimits, known: KnownTransactions): Promise<SlotFreeCut> {
    const reader = await connect(endpoint, { application: `${name} compare`, settings: readerSettings(limits) });
    return new SlotFreeCut(reader, await versionOf(reader), limits, known);
  }

  async take(timeout: number): Promise<SourceCut> {
    await this.snapshotBehindThePassed(Date.now() + timeout);
    const { rows } = await this.reader.query<{ lsn: string }>("SELECT pg_current_wal_insert_lsn()::text AS lsn");
    this.taken = true;
    return { position: rows[0]!.lsn as Position, by: "slot-free", reader: new PostgresCutReader("source", this.reader, this.version, this.limits) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.taken) await this.reader.end().catch(() => undefined); // it was never read from
  }

  /** A commit is in the log, and may have been mirrored, a moment before snapshots show it; behind a synchronous standby a long moment. */
  private async snapshotBehindThePassed(deadline: number): Promise<void> {
    while (true) {
      await this.reader.query(BEGIN);
      const { rows } = await this.reader.query<{ s: string }>("SELECT pg_current_snapshot()::text AS s");
      const snapshot = runningSnapshot(rows[0]!.s);
      if (snapshot.running.some((number) => number < this.known.since)) {
        throw new NotComparable("a transaction that was writing on the source before the mirror was connected has not ended");
      }
      if (this.known.passed.keepHidden(hiddenBy(snapshot))) return;
      await this.reader.query("ROLLBACK");
      if (Date.now() > deadline) throw new NotComparable("a transaction that the mirror has applied is not visible on the source yet: does it wait for a synchronous standby?");
      await sleep(2);
    }
  }
}

/** Whether a snapshot hides a transaction, by the low 32 bits of its number: those of the one that is nearest to the snapshot. */
export function hiddenBy({ next, running }: RunningSnapshot): (number: number) => boolean {
  const low = Number(next & 0xffff_ffffn);
  const hidden = new Set(running.map((number) => Number(number & 0xffff_ffffn)));
  return (number) => ((number - low) | 0) >= 0 || hidden.has(number);
}

/** The first read comes late enough for everything that was decoded to be visible. */
class DelayedReader extends PostgresCutReader {
  private readonly ready = sleep(VISIBILITY_DELAY_MS);

  protected override async query(text: string, values: readonly unknown[] = []): Promise<Record<string, unknown>[]> {
    await this.ready;
    return super.query(text, values);
  }
}

/** A reader of the target; the snapshot is taken, and made real by a statement, when the applier is held. */
export async function prepareTargetReader(endpoint: Endpoint, name: string, limits: ReadLimits): Promise<{ readonly reader: CutReader; snapshot(): Promise<void> }> {
  const client = await connect(endpoint, { application: `${name} compare`, settings: readerSettings(limits) });
  const reader = new PostgresCutReader("target", client, await versionOf(client), limits);
  return {
    reader,
    async snapshot() {
      await client.query(`${BEGIN}; SELECT 1`);
    },
  };
}
