/**
 * Freezes the mapped tables of a database.
 *
 * Triggers on every table and partition, switched off until they are needed, refuse writes while a deadline lies ahead. Switching them on
 * waits for every transaction that has written to one of the tables, and whoever comes later meets them: what `SHARE ROW EXCLUSIVE` has
 * let pass is complete. When nobody renews the deadline, the tables thaw by themselves.
 *
 * They are `ENABLE ALWAYS`, for sessions in replica role and for subscriptions, which fire row triggers only; statement triggers refuse
 * before a number is taken from a sequence, and TRUNCATE. The tables' owner can switch them off: that is seen, not prevented.
 */
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import {
  DualrunError, failpoint,
  type Catalogue, type Endpoint, type Freeze, type FreezeHolder, type FreezeOptions, type FreezeState, type LockHolder, type ProofOptions, type QuietProof, type RecordClass, type Side,
} from "../../src/core/index.ts";
import { BlockerWatch } from "./blockers.ts";
import { connect, sqlState, withClient } from "./connection.ts";
import {
  CONFLICTING_MODES, DROP_SCHEMA, GUARDED_ON, GUARDED_ROOTS, GUARDS, GUARD_KINDS, GUARD_SOURCE, GUARD_TYPES, LOCK_HOLDERS, OWN_DDL, PERMANENT, WRITE_MODES,
  dropObjects, freezeNames, guardSource, holdFreeze, makeExtend, makeGuard, makeObjects, makeTrigger, readRecord, setDeadline, switchTriggers, withdraw, writeRecord,
  type FreezeNames, type FreezeRecord, type GuardKind,
} from "./freeze-sql.ts";
import { cutoverGrants } from "./grants.ts";
import { quoteIdent, quoteLiteral, quoteTable } from "./identifiers.ts";

const POLL_MS = 20;
const PREPARE_LOCK_TIMEOUT_MS = 2_000;
/** Writers wait that long at most while a guard is switched off that lets them through anyway. */
const THAW_LOCK_TIMEOUT_MS = 500;
const THAW_ROUNDS = 3;
/** A client that vanishes in the middle of a freeze holds the tables no longer than this. */
const IDLE_LIMIT = "5s";
/** A vacuum that the server runs by itself gives way once the waiter has looked for a deadlock: by default after a second. */
const DEADLOCK_TIMEOUT = "SET deadlock_timeout = '100ms'";

/** Waiting for a lock took too long, or ended in a deadlock. */
const NOT_IN_TIME: ReadonlySet<string> = new Set(["55P03", "57014", "40P01"]);

interface RecordRow {
  readonly record: FreezeRecord | null;
  readonly me: string;
  readonly passHash: string | null;
  readonly deadline: string;
  readonly now: string;
}

/** After the first `prepare`. */
interface KnownRow extends RecordRow {
  readonly record: FreezeRecord;
}

interface GuardRow {
  readonly table: string;
  readonly gone: boolean;
  readonly kind: GuardKind;
  /** How the trigger fires: `A` always, `D` never, `O` and `R` not for everybody; null: it is missing. */
  readonly mode: "A" | "D" | "O" | "R" | "altered" | null;
  readonly inherited: boolean;
}

type HolderRow = Omit<LockHolder, "since"> & { readonly since: string | null };

/** The freeze of one side's tables. Times are microseconds of the database's clock; what it needs to know stands on the server, so that any process can go on with it. */
export class PostgresFreeze implements Freeze {
  private readonly endpoint: Endpoint;
  private readonly side: Side;
  private readonly holder: FreezeHolder;
  private readonly pool: pg.Pool;
  private readonly names: FreezeNames;

  constructor(endpoint: Endpoint, migration: string, side: Side, holder: FreezeHolder, pool: pg.Pool) {
    this.endpoint = endpoint;
    this.side = side;
    this.holder = holder;
    this.pool = pool;
    this.names = freezeNames(migration);
  }

  grants(classes: readonly RecordClass[], catalogue: Catalogue): string[] {
    return cutoverGrants(classes, catalogue, this.side);
  }

  // ------------------------------------------------------------ guards

  async prepare(classes: readonly RecordClass[], lockTimeout = PREPARE_LOCK_TIMEOUT_MS): Promise<FreezeState> {
    const tables = [...new Set(classes.map((cls) => quoteTable(cls[this.side])))].sort();
    if (tables.length === 0) throw this.noGuards("no table is mapped", []);
    await this.inSession(async (client) => {
      await this.inTransaction(client, () => this.makeObjects(client, tables));
      for (const table of tables) await this.prepareTable(client, table, lockTimeout);
    });
    return this.state();
  }

  private async makeObjects(client: pg.Client, tables: readonly string[]): Promise<void> {
    const { names } = this;
    await client.query(`${holdFreeze(names)}; SELECT pg_advisory_xact_lock(hashtext('dualrun migrations'))`);
    await client.query(makeObjects(names));
    const { record, me, passHash } = (await client.query<RecordRow>(readRecord(names))).rows[0]!;
    this.refuseFencedOut(record);
    await client.query(writeRecord(names, this.recordOf(tables, me)));
    await client.query(`${makeExtend(names)}; ${makeGuard(names, guardSource(names, me, passHash!))}`);
  }

  private recordOf(tables: readonly string[], writer: string): FreezeRecord {
    return { migration: this.names.migration, holder: this.holder.name, epoch: this.holder.epoch.toString(), tables, writer };
  }

  private async prepareTable(client: pg.Client, table: string, lockTimeout: number): Promise<void> {
    await this.inTransaction(client, async () => {
      await client.query(`SET LOCAL lock_timeout = ${Math.ceil(lockTimeout)}`);
      await this.setGuards(client, [table], isInForce(await this.hold(client)) ? "A" : "D");
    }).catch(async (error: unknown) => {
      if (!NOT_IN_TIME.has(sqlState(error) ?? "")) throw error;
      throw this.notInTime(`${table} could not be locked within ${lockTimeout} ms to make its guards`, await this.lockHolders([table], CONFLICTING_MODES), error);
    });
  }

  /** Makes what is missing, and switches every guard to the mode that is wanted. */
  private async setGuards(client: pg.Client, tables: readonly string[], mode: "A" | "D"): Promise<void> {
    const found = await this.guards(client, tables);
    const altered = found.filter((guard) => guard.mode === "altered").map(({ kind, table }) => `DROP TRIGGER ${quoteIdent(this.names.triggers[kind])} ON ${table}; somebody has altered it`);
    if (altered.length > 0) throw this.noGuards("guards are not as they were made", altered);
    const missing = found.filter((guard) => guard.mode === null);
    const gone = missing.filter(({ gone, kind }) => gone && kind === "row").map(({ table }) => `${table} does not exist`);
    if (gone.length > 0) throw this.noGuards("mapped tables are gone", gone);
    const made = missing.filter((guard) => !guard.inherited).map(({ kind, table }) => makeTrigger(this.names, kind, table));
    if (made.length > 0) await client.query(made.join("; "));
    const wrong = (await this.guards(client, tables)).filter((guard) => guard.mode !== mode);
    const switches = [...Map.groupBy(wrong, ({ table }) => table)].map(([table, guards]) =>
      switchTriggers(table, guards.map(({ kind }) => this.names.triggers[kind]), mode === "A" ? "ENABLE ALWAYS" : "DISABLE"));
    if (switches.length > 0) await client.query(switches.join("; "));
  }

  private async guards(client: Pick<pg.ClientBase, "query">, tables: readonly string[]): Promise<GuardRow[]> {
    const triggers = GUARD_KINDS.map((kind) => this.names.triggers[kind]);
    return (await client.query<GuardRow>(GUARDS, [tables, this.names.guard, GUARD_KINDS, triggers, GUARD_KINDS.map((kind) => GUARD_TYPES[kind])])).rows;
  }

  // ------------------------------------------------------------ the freeze

  async freeze(options: FreezeOptions): Promise<Date> {
    await this.demandPrepared();
    const end = performance.now() + options.lockTimeout;
    return this.inSession(async (client) => {
      await ifPermitted(client, DEADLOCK_TIMEOUT);
      while (true) {
        const until = await this.attempt(client, options, Math.ceil(end - performance.now()));
        if (until !== "deadlock") {
          failpoint("freeze.after-commit");
          return until;
        }
        if (performance.now() >= end) throw this.notInTime(`the tables could not be locked within ${options.lockTimeout} ms: deadlocks with other transactions`, [], null);
      }
    });
  }

  private async attempt(client: pg.Client, options: FreezeOptions, patience: number): Promise<Date | "deadlock"> {
    const watch = new BlockerWatch(this.pool, client, (tables) => this.lockHolders(tables, CONFLICTING_MODES));
    let tables: readonly string[] = [];
    let isSet = false;
    try {
      return await this.inTransaction(client, async () => {
        await client.query(`SET LOCAL lock_timeout = ${Math.max(1, patience)}; SET LOCAL statement_timeout = ${Math.max(1, patience)}`);
        const { record } = await this.hold(client);
        tables = record.tables;
        await watch.during(tables, patience, () => client.query(`LOCK TABLE ${tables.join(", ")} IN SHARE ROW EXCLUSIVE MODE`));
        await client.query("SET LOCAL statement_timeout = 0");
        await this.setGuards(client, tables, "A");
        await client.query(writeRecord(this.names, this.recordOf(tables, record.writer)));
        isSet = true;
        const { rows } = await client.query<{ deadline: string }>(setDeadline(this.names, { fromNow: micros(options.lease) }));
        failpoint("freeze.before-commit");
        return dateOf(rows[0]!.deadline);
      });
    } catch (error) {
      if (isSet) await this.pool.query(withdraw(this.names), [this.holder.epoch.toString()]).catch(() => undefined); // no transaction takes it back; it would run out anyway
      const state = sqlState(error) ?? "";
      if (watch.yielded || state === "40P01") return "deadlock";
      if (state === "42P01") throw this.noGuards("mapped tables are gone", [(error as Error).message], error);
      if (!NOT_IN_TIME.has(state)) throw error;
      const blockers = watch.seen.length > 0 ? watch.seen : await this.lockHolders(tables, CONFLICTING_MODES);
      throw this.notInTime(`the tables could not be locked within ${options.lockTimeout} ms`, blockers, error);
    }
  }

  async renew(lease: number): Promise<Date | "permanent"> {
    const deadline = await this.extend(micros(lease));
    return deadline === PERMANENT ? "permanent" : dateOf(deadline);
  }

  async makePermanent(): Promise<void> {
    await this.extend(null);
  }

  private async extend(lease: bigint | null): Promise<bigint> {
    await this.demandPrepared();
    const { epoch, name } = this.holder;
    const deadline = await withClient(this.pool, async (client) => {
      await client.query("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on"); // whatever the role's defaults are
      const { rows } = await client.query<{ deadline: string }>(`SELECT ${this.names.extend}($1, $2, $3) AS deadline`, [epoch.toString(), name, lease?.toString() ?? null]);
      await client.query("COMMIT");
      return BigInt(rows[0]!.deadline);
    });
    if (deadline < 0n) throw this.fencedOut((await this.readRecord()).record.epoch);
    if (deadline === 0n) throw this.notInForce("the lease had run out before it was renewed");
    return deadline;
  }

  async thaw(): Promise<number> {
    if (!(await this.isPrepared())) return 0;
    return this.inSession(async (client) => {
      await this.inTransaction(client, async () => {
        const { record } = await this.hold(client);
        await client.query(writeRecord(this.names, this.recordOf(record.tables, record.writer)));
        await client.query(setDeadline(this.names, 0n));
      });
      await client.query(`SET lock_timeout = ${THAW_LOCK_TIMEOUT_MS}`);
      let left = 0;
      for (let round = 0; round < THAW_ROUNDS; round++) if ((left = await this.switchOff(client)) === 0) break;
      return left;
    });
  }

  /** Table by table, so that none is locked while another is waited for; returns how many tables were not to be had. */
  private async switchOff(client: pg.Client): Promise<number> {
    const { rows } = await client.query<{ table: string; triggers: string[] }>(GUARDED_ON, [this.names.guard]);
    let left = 0;
    for (const { table, triggers } of rows) {
      await this.heldTransaction(client, switchTriggers(table, triggers, "DISABLE")).catch((error: unknown) => {
        if (!NOT_IN_TIME.has(sqlState(error) ?? "")) throw error;
        left++;
      });
    }
    return left;
  }

  /** For what would let writes through a freeze that somebody has begun meanwhile. */
  private async heldTransaction(client: pg.Client, statements: string): Promise<void> {
    await this.inTransaction(client, async () => {
      if (isInForce(await this.hold(client))) throw new DualrunError("DR4001", "the tables were frozen again meanwhile", { where: this.side });
      await client.query(statements);
    });
  }

  async tearDown(): Promise<void> {
    if (!(await this.isPrepared())) return;
    await this.thaw();
    await this.inSession(async (client) => {
      await client.query(`SET lock_timeout = ${PREPARE_LOCK_TIMEOUT_MS}`);
      const { rows } = await client.query<{ table: string; triggers: string[] }>(GUARDED_ROOTS, [this.names.guard]);
      for (const { table, triggers } of rows) await this.dropTriggers(client, table, triggers);
      await this.heldTransaction(client, `SELECT pg_advisory_xact_lock(hashtext('dualrun migrations')); ${dropObjects(this.names)}; ${DROP_SCHEMA}`);
    });
  }

  private async dropTriggers(client: pg.Client, table: string, triggers: readonly string[]): Promise<void> {
    const statements = triggers.map((trigger) => `DROP TRIGGER IF EXISTS ${quoteIdent(trigger)} ON ${table}`);
    await this.heldTransaction(client, statements.join("; ")).catch(async (error: unknown) => {
      if (!NOT_IN_TIME.has(sqlState(error) ?? "")) throw error;
      throw this.notInTime(`${table} could not be locked to drop its guards`, await this.lockHolders([table], [...CONFLICTING_MODES, "AccessShareLock", "RowShareLock"]), error);
    });
  }

  // ------------------------------------------------------------ the proof

  async proveQuiet({ timeout, terminate }: ProofOptions): Promise<QuietProof> {
    const lookedAt = (await this.demandFrozen()).now;
    const { tables } = (await this.readRecord()).record;
    const found = await this.lockHolders(tables, WRITE_MODES);
    this.refusePrepared(found);
    const writers = found.filter(({ kind }) => kind === "session");
    const terminated = await this.outlast(writers, tables, timeout, terminate);
    const { now, until, ...after } = await this.demandFrozen();
    return {
      lookedAt, provenAt: now, tables: after.tables, guards: after.guards, writers, terminated, passedOver: found.length - writers.length, preparedTransactions: 0, until: until!,
    };
  }

  private async demandFrozen(): Promise<FreezeState> {
    await this.demandPrepared();
    const state = await this.state();
    if (state.holder!.epoch > this.holder.epoch) throw this.fencedOut(state.holder!.epoch.toString());
    if (state.state !== "frozen" && state.state !== "permanent") throw this.notInForce(`the freeze is ${state.state}`);
    if (!state.holds) throw new DualrunError("DR6103", "the freeze has gaps: writes can come through", { where: this.side, details: state.faults });
    return state;
  }

  private refusePrepared(found: readonly LockHolder[]): void {
    const prepared = found.filter(({ kind }) => kind === "prepared");
    if (prepared.length === 0) return;
    throw new DualrunError("DR6105", `${prepared.length} prepared transactions hold mapped tables`, { where: this.side, details: prepared.map(describeHolder) });
  }

  /** Those that come later meet the guards: it is these transactions that have to end. Half of the time they may do so by themselves. */
  private async outlast(writers: readonly LockHolder[], tables: readonly string[], timeout: number, terminate: boolean): Promise<number> {
    const begun = performance.now();
    const refused: string[] = [];
    let terminated = terminate ? null : 0;
    for (let left = writers; left.length > 0; left = await this.stillThere(left, tables)) {
      const waited = performance.now() - begun;
      if (terminated === null && waited >= timeout / 2) terminated = await this.terminate(left, refused);
      if (waited >= timeout) throw new DualrunError("DR6103", `${left.length} transactions that may write have not ended within ${timeout} ms`, { where: this.side, details: [...left.map(describeHolder), ...refused] });
      await sleep(Math.min(POLL_MS, timeout / 4));
    }
    return terminated ?? 0;
  }

  private async stillThere(writers: readonly LockHolder[], tables: readonly string[]): Promise<LockHolder[]> {
    const holding = new Set((await this.lockHolders(tables, WRITE_MODES)).map(({ transaction }) => transaction));
    return writers.filter(({ transaction }) => holding.has(transaction));
  }

  private async terminate(writers: readonly LockHolder[], refused: string[]): Promise<number> {
    let ended = 0;
    for (const { pid, transaction } of writers) {
      try {
        const { rowCount } = await this.pool.query(
          "SELECT pg_terminate_backend(l.pid) FROM (SELECT DISTINCT pid FROM pg_locks WHERE pid = $1 AND virtualtransaction = $2) AS l", [pid, transaction]);
        ended += rowCount ?? 0;
      } catch (error) {
        if (sqlState(error) !== "42501") throw error;
        refused.push(`session ${pid} may not be ended by this role: GRANT pg_signal_backend, or for a superuser's session end it as one`);
      }
    }
    return ended;
  }

  private async lockHolders(tables: readonly string[], modes: readonly string[]): Promise<LockHolder[]> {
    const { rows } = await this.pool.query<HolderRow>(LOCK_HOLDERS, [tables, modes, `dualrun[ _]${this.names.migration.replaceAll("-", "[-_]")}( |$)`]);
    return rows.map((row) => ({ ...row, since: row.since === null ? null : new Date(Math.round(Number(row.since))) }));
  }

  // ------------------------------------------------------------ the state

  async state(): Promise<FreezeState> {
    if (!(await this.isPrepared())) {
      const { rows } = await this.pool.query<{ now: Date }>("SELECT clock_timestamp() AS now");
      return { state: "absent", holds: false, holder: null, until: null, now: rows[0]!.now, tables: 0, guards: 0, faults: [] };
    }
    const known = await this.readRecord();
    const guards = await this.guards(this.pool, known.record.tables);
    const faults = [...guards.flatMap((guard) => this.guardFaults(guard, isInForce(known))), ...(await this.functionFaults(known))];
    return {
      state: stateOf(known), holds: isInForce(known) && faults.length === 0, holder: { name: known.record.holder, epoch: BigInt(known.record.epoch) },
      until: untilOf(known), now: dateOf(known.now), tables: new Set(guards.filter(({ gone }) => !gone).map(({ table }) => table)).size,
      guards: guards.filter(({ mode }) => mode !== null).length, faults,
    };
  }

  private guardFaults({ table, gone, kind, mode }: GuardRow, inForce: boolean): string[] {
    if (gone) return kind === "row" ? [`${table} does not exist`] : [];
    if (mode === null) return [`${table}: guard ${this.names.triggers[kind]} is missing`];
    if (mode === "altered") return [`${table}: guard ${this.names.triggers[kind]} was altered`];
    if (!inForce || mode === "A") return [];
    return [`${table}: guard ${this.names.triggers[kind]} ${mode === "D" ? "is switched off" : "does not fire for everybody"}`];
  }

  private async functionFaults({ record, me, passHash }: KnownRow): Promise<string[]> {
    if (record.writer !== me) return [`the guards let role ${record.writer} through, and this is role ${me}: prepare again`];
    if (passHash === null) return ["the server has crashed since the guards were made, and the mirror's pass is lost: prepare again"];
    const { rows } = await this.pool.query<{ source: string; definer: boolean }>(GUARD_SOURCE, [this.names.guard]);
    if (rows[0] === undefined) return [`function ${this.names.guard} is missing`];
    return rows[0].source === guardSource(this.names, me, passHash) && rows[0].definer ? [] : [`function ${this.names.guard} was altered`];
  }

  private async isPrepared(): Promise<boolean> {
    try {
      return (await this.pool.query<{ found: boolean }>("SELECT to_regclass($1) IS NOT NULL AS found", [this.names.deadline])).rows[0]!.found;
    } catch (error) {
      if (sqlState(error) !== "42501") throw error;
      throw this.noGuards("the role may not use what was prepared here", [(error as Error).message], error);
    }
  }

  private async demandPrepared(): Promise<void> {
    if (!(await this.isPrepared())) throw this.noGuards("nothing was prepared here", []);
  }

  private async readRecord(): Promise<KnownRow> {
    return (await this.pool.query<KnownRow>(readRecord(this.names))).rows[0]!;
  }

  /** For the rest of the transaction nobody else freezes, renews or thaws. */
  private async hold(client: pg.Client): Promise<KnownRow> {
    await client.query(holdFreeze(this.names));
    const known = (await client.query<KnownRow>(readRecord(this.names))).rows[0]!;
    this.refuseFencedOut(known.record);
    return known;
  }

  private refuseFencedOut(record: FreezeRecord | null): void {
    if (record !== null && BigInt(record.epoch) > this.holder.epoch) throw this.fencedOut(record.epoch);
  }

  // ------------------------------------------------------------ sessions and errors

  private async inSession<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    const client = await connect(this.endpoint, {
      application: `dualrun ${this.names.migration} freeze`,
      settings: { synchronous_commit: "on", default_transaction_isolation: "read committed", idle_in_transaction_session_timeout: IDLE_LIMIT, [OWN_DDL]: "on" },
    });
    try {
      return await work(client);
    } catch (error) {
      if (sqlState(error) !== "42501") throw error;
      throw this.noGuards("the role may not make or switch guards", [(error as Error).message], error);
    } finally {
      await client.end().catch(() => undefined); // uncommitted work is rolled back by the server
    }
  }

  private async inTransaction<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
    await client.query("BEGIN");
    try {
      const result = await work();
      await client.query("COMMIT");
      return result;
    } catch (error) {
      await client.query("ROLLBACK").catch(() => undefined); // the first error is the one to report
      throw error;
    }
  }

  private notInTime(what: string, holders: readonly LockHolder[], cause: unknown): DualrunError {
    return new DualrunError("DR6101", what, { where: this.side, details: holders.map(describeHolder), cause });
  }

  private notInForce(what: string): DualrunError {
    return new DualrunError("DR6102", what, { where: this.side });
  }

  private noGuards(what: string, details: readonly string[], cause?: unknown): DualrunError {
    return new DualrunError("DR6104", what, { where: this.side, details, cause });
  }

  private fencedOut(epoch: string): DualrunError {
    return new DualrunError("DR4001", `epoch ${this.holder.epoch} is over: the freeze belongs to epoch ${epoch}`, { where: this.side });
  }
}

const micros = (milliseconds: number): bigint => BigInt(Math.round(milliseconds * 1000));
const dateOf = (at: string | bigint): Date => new Date(Number(BigInt(at) / 1000n));
const isInForce = ({ deadline, now }: RecordRow): boolean => BigInt(deadline) > BigInt(now);

function stateOf(known: RecordRow): FreezeState["state"] {
  if (BigInt(known.deadline) === PERMANENT) return "permanent";
  if (isInForce(known)) return "frozen";
  return BigInt(known.deadline) === 0n ? "prepared" : "lapsed";
}

function untilOf({ deadline }: RecordRow): FreezeState["until"] {
  if (BigInt(deadline) === 0n) return null;
  return BigInt(deadline) === PERMANENT ? "permanent" : dateOf(deadline);
}

/** For people; an application's name is quoted, a query never. */
function describeHolder({ kind, pid, application, role, state, since, tables }: LockHolder): string {
  const where = `on ${tables.join(", ")}`;
  const age = since === null ? "" : `, since ${since.toISOString()}`;
  if (kind === "prepared") return `prepared transaction ${quoteLiteral(state)} of role ${role} ${where}${age}`;
  if (kind === "autovacuum") return `autovacuum, process ${pid}, ${where}${age}`;
  return `session ${pid} "${application}" of role ${role} ${where}, ${state}${age}`;
}

async function ifPermitted(client: pg.Client, statement: string): Promise<void> {
  await client.query(statement).catch((error: unknown) => {
    if (sqlState(error) !== "42501") throw error;
  });
}
