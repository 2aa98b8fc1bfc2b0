/** What a freeze consists of on the server: names, statements, and the queries that look at it. */
import type pg from "pg";
import { quoteIdent, quoteLiteral } from "./identifiers.ts";

/** SQLSTATE of a refused write. */
export const REFUSED = "DR001";
/** The session's setting that the mirror's own sessions carry; its value is known to the server and to them only. */
const PASS = "dualrun.pass";
/** Set while guards are switched on and off, so that dualrun's own schema trigger does not take it for a schema change. */
export const OWN_DDL = "dualrun.own_ddl";
/** The deadline of a freeze that does not end by itself. */
export const PERMANENT = 9_223_372_036_854_775_807n;
const SCHEMA_COMMENT = "made by dualrun for a freeze";
const NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/** Everything that a freeze makes bears its migration's name, so that two migrations never meet. */
export interface FreezeNames {
  readonly migration: string;
  /** One row: who holds it, over which tables. */
  readonly record: string;
  /** A view for people. */
  readonly lease: string;
  /** A sequence, for its value is the same in every snapshot: microseconds since 1970; 0: no freeze. */
  readonly deadline: string;
  readonly guard: string;
  readonly extend: string;
  readonly triggers: Readonly<Record<GuardKind, string>>;
}

export type GuardKind = "row" | "statement";
export const GUARD_KINDS: readonly GuardKind[] = ["row", "statement"];

export function freezeNames(migration: string): FreezeNames {
  const base = migration.replaceAll("-", "_");
  const own = (what: string): string => `dualrun.${quoteIdent(`${base}_freeze${what}`)}`;
  return {
    migration, record: own(""), lease: own("_lease"), deadline: own("_deadline"), guard: own("_guard"), extend: own("_extend"),
    triggers: { row: `dualrun_${base}_row`, statement: `dualrun_${base}_statement` },
  };
}

/** The schema, the record and the deadline; safe to repeat. The pass never leaves the server. */
export function makeRecord(names: FreezeNames): string {
  return `
    DO $make$ BEGIN
      IF to_regnamespace('dualrun') IS NULL THEN
        CREATE SCHEMA dualrun;
        COMMENT ON SCHEMA dualrun IS ${quoteLiteral(SCHEMA_COMMENT)};
      END IF;
    END $make$;
    CREATE TABLE IF NOT EXISTS ${names.record} (
      migration text PRIMARY KEY, holder text NOT NULL, epoch bigint NOT NULL, frozen_at timestamptz, tables text[] NOT NULL, writer name NOT NULL, pass text NOT NULL);
    REVOKE ALL ON ${names.record} FROM PUBLIC;
    CREATE SEQUENCE IF NOT EXISTS ${names.deadline} MINVALUE 0 START 0;
    REVOKE ALL ON SEQUENCE ${names.deadline} FROM PUBLIC;
    CREATE OR REPLACE VIEW ${names.lease} AS
      SELECT r.migration, r.holder, r.epoch, r.frozen_at, CASE d.last_value WHEN 0 THEN NULL WHEN ${PERMANENT} THEN 'infinity'::timestamptz ELSE to_timestamp(d.last_value / 1000000.0) END AS until,
        d.last_value = ${PERMANENT} AS permanent, d.last_value > ${NOW} AS in_force
      FROM ${names.record} AS r CROSS JOIN ${names.deadline} AS d`;
}

/**
 * Refuses a write while the deadline lies ahead.
 *
 * The deadline is read from a sequence: a transaction that looks at an old snapshot would find an old lease in a table.
 * The clock is read before it: between the two the lease may have been renewed, never the other way round.
 * The mirror is known by two things together: who logged in, which nobody but a superuser can change, and a pass that only
 * the owner of the record can read. Replication origins will not do: every subscription has one, and nobody can ask which.
 */
export function guardSource(names: FreezeNames, writer: string, passHash: string): string {
  const migration = quoteLiteral(names.migration);
  return `
DECLARE
  at bigint;
  deadline bigint;
BEGIN
  IF session_user = ${quoteLiteral(writer)} AND sha256(convert_to(current_setting('${PASS}', true), 'UTF8')) = decode('${passHash}', 'hex') THEN
    RETURN NULL;
  END IF;
  at := ${NOW};
  SELECT d.last_value INTO deadline FROM ${names.deadline} AS d;
  IF deadline <= at THEN
    RETURN NULL;
  END IF;
  RAISE EXCEPTION USING ERRCODE = '${REFUSED}', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME,
    MESSAGE = format('table %I.%I takes no writes now: dualrun has frozen it for the cutover of migration %s', TG_TABLE_SCHEMA, TG_TABLE_NAME, ${migration}),
    HINT = CASE deadline WHEN ${PERMANENT} THEN 'This database is no longer the one to write to: connect to the one that took its place.'
      ELSE format('Try again in a moment, on the new database if the cutover is done by then; without it the table takes writes again by %s at the latest.',
        to_char(to_timestamp(deadline / 1000000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) END;
END`;
}

export function makeGuard(names: FreezeNames, source: string): string {
  return `
    CREATE OR REPLACE FUNCTION ${names.guard}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $guard$${source}$guard$;
    REVOKE ALL ON FUNCTION ${names.guard}() FROM PUBLIC`;
}

/**
 * Moves the deadline if it still lies ahead, and undoes that if it has passed meanwhile: then a write may have come through.
 * On the server, so that a client that dies leaves nothing half done. Takes the epoch, the holder, and microseconds (null: for ever);
 * returns the deadline, 0 when the lease has run out, -1 for somebody who is fenced out.
 */
export function makeExtend(names: FreezeNames): string {
  return `
    CREATE OR REPLACE FUNCTION ${names.extend}(by_epoch bigint, by_holder text, lease bigint) RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $extend$
DECLARE
  before bigint;
  after bigint;
BEGIN
  UPDATE ${names.record} SET epoch = by_epoch, holder = by_holder WHERE epoch <= by_epoch;
  IF NOT FOUND THEN RETURN -1; END IF;
  SELECT d.last_value INTO before FROM ${names.deadline} AS d;
  IF before = ${PERMANENT} THEN RETURN before; END IF;
  IF before <= ${NOW} THEN RETURN 0; END IF;
  after := setval(${quoteLiteral(names.deadline)}, coalesce(${NOW} + lease, ${PERMANENT}));
  IF before > ${NOW} THEN RETURN after; END IF;
  PERFORM setval(${quoteLiteral(names.deadline)}, 1);
  RETURN 0;
END $extend$;
    REVOKE ALL ON FUNCTION ${names.extend}(bigint, text, bigint) FROM PUBLIC`;
}

/** Lets a session's writes through, where a freeze was prepared for its role. */
export async function carryPass(client: Pick<pg.ClientBase, "query">, migration: string): Promise<void> {
  const { record } = freezeNames(migration);
  const { rows } = await client.query<{ found: boolean }>("SELECT coalesce(has_table_privilege(to_regclass($1), 'SELECT'), false) AS found", [record]);
  if (rows[0]!.found) await client.query(`SELECT set_config('${PASS}', r.pass, false) IS NOT NULL AS carried FROM ${record} AS r WHERE r.writer = session_user`);
}

/**
 * The guard of rows comes after the row: a BEFORE ROW trigger, even switched off, keeps COPY from writing many rows at once and has
 * every UPDATE and DELETE lock its row first. At the end of the statement is early enough to refuse it whole.
 */
export function makeTrigger(names: FreezeNames, kind: GuardKind, table: string): string {
  const events = kind === "row" ? "AFTER INSERT OR UPDATE OR DELETE" : "BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE";
  return `CREATE TRIGGER ${quoteIdent(names.triggers[kind])} ${events} ON ${table} FOR EACH ${kind === "row" ? "ROW" : "STATEMENT"} EXECUTE FUNCTION ${names.guard}()`;
}

/** Some triggers of one table, by one statement. */
export function switchTriggers(table: string, triggers: readonly string[], to: "ENABLE ALWAYS" | "DISABLE"): string {
  return `ALTER TABLE ONLY ${table} ${triggers.map((trigger) => `${to} TRIGGER ${quoteIdent(trigger)}`).join(", ")}`;
}

/** $1: names of tables as SQL. The tables and all under them; a name that leads nowhere has a NULL. */
const MAPPED = `mapped AS (
  SELECT w.name, coalesce(t.relid, to_regclass(w.name)) AS relid, coalesce(t.level, 0) AS level
  FROM unnest($1::text[]) AS w (name) LEFT JOIN LATERAL pg_partition_tree(to_regclass(w.name)) AS t ON true)`;

/**
 * $1: names of tables, $2: the guard function, $3 and $4: kinds of guards and their names. One row per table and guard that should be there,
 * roots first. What is `inherited` comes into being with the guard of the table above.
 */
export const GUARDS = `
  WITH ${MAPPED}
  SELECT coalesce(m.relid::regclass::text, m.name) AS table, m.relid IS NULL AS gone, g.kind, t.tgenabled::text AS mode,
    g.kind = 'row' AND min(m.level) > 0 AS inherited
  FROM mapped AS m CROSS JOIN unnest($3::text[], $4::text[]) AS g (kind, trigger)
  LEFT JOIN pg_trigger AS t ON t.tgrelid = m.relid AND t.tgname = g.trigger AND t.tgfoid = to_regprocedure($2 || '()')
  GROUP BY 1, 2, 3, 4 ORDER BY min(m.level), 1, 3`;

/** $1: the guard function. Triggers that call it, whatever is on record, by table. */
const GUARDED = `
  SELECT t.tgrelid::regclass::text AS table, array_agg(t.tgname::text ORDER BY t.tgname) AS triggers FROM pg_trigger AS t
  WHERE t.tgfoid = to_regprocedure($1 || '()')`;
export const GUARDED_ON = `${GUARDED} AND t.tgenabled <> 'D' GROUP BY 1 ORDER BY 1`;
/** Those on partitions go with the one above them. */
export const GUARDED_ROOTS = `${GUARDED} AND t.tgparentid = 0 GROUP BY 1 ORDER BY 1`;

/** $1: the guard function. */
export const GUARD_SOURCE = "SELECT prosrc AS source, prosecdef AS definer FROM pg_proc WHERE oid = to_regprocedure($1 || '()')";

/** $1: names of tables, $2: modes of locks, $3: what the mirror's own sessions are called. */
export const LOCK_HOLDERS = `
  WITH ${MAPPED}, prepared AS (
    SELECT x.*, l.virtualtransaction FROM pg_prepared_xacts AS x
    JOIN pg_locks AS l ON l.locktype = 'transactionid' AND l.pid IS NULL AND l.mode = 'ExclusiveLock' AND l.transactionid = x.transaction)
  SELECT l.pid, l.virtualtransaction AS transaction, array_agg(DISTINCT l.relation::regclass::text) AS tables,
    CASE WHEN l.pid IS NULL THEN 'prepared' WHEN a.backend_type = 'autovacuum worker' THEN 'autovacuum'
      WHEN a.usename = session_user AND a.application_name ~ ('^' || $3) THEN 'own' ELSE 'session' END AS kind,
    coalesce(a.application_name, '') AS application, coalesce(a.usename, p.owner)::text AS role, coalesce(a.state, p.gid, 'unknown') AS state,
    extract(epoch FROM coalesce(a.xact_start, p.prepared)) * 1000 AS since
  FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid LEFT JOIN prepared AS p ON l.pid IS NULL AND p.virtualtransaction = l.virtualtransaction
  WHERE l.locktype = 'relation' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.relation IN (SELECT relid FROM mapped) AND l.mode = ANY ($2) AND l.pid IS DISTINCT FROM pg_backend_pid()
  GROUP BY 1, 2, 4, 5, 6, 7, 8`;

/** Modes that are held by whoever writes rows, truncates or rewrites. */
export const WRITE_MODES = ["RowExclusiveLock", "AccessExclusiveLock"];
/** Modes that SHARE ROW EXCLUSIVE has to wait for. */
export const CONFLICTING_MODES = ["RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"];

export function readRecord(names: FreezeNames): string {
  return `SELECT r.holder, r.epoch, r.tables, r.writer, session_user AS "me", encode(sha256(convert_to(r.pass, 'UTF8')), 'hex') AS "passHash", d.last_value AS deadline, ${NOW} AS now
    FROM ${names.record} AS r CROSS JOIN ${names.deadline} AS d`;
}

/** $1: holder, $2: epoch, $3: tables. Hits no row for who is fenced out. */
export function writeRecord(names: FreezeNames): string {
  return `INSERT INTO ${names.record} AS r (migration, holder, epoch, tables, writer, pass)
    VALUES (${quoteLiteral(names.migration)}, $1, $2, $3, session_user, gen_random_uuid()::text || gen_random_uuid()::text)
    ON CONFLICT (migration) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch, tables = excluded.tables, writer = excluded.writer WHERE r.epoch <= excluded.epoch`;
}

export function setDeadline(names: FreezeNames, micros: bigint | { readonly fromNow: bigint }): string {
  return `SELECT setval(${quoteLiteral(names.deadline)}, ${typeof micros === "bigint" ? micros : `${NOW} + ${micros.fromNow}`}) AS deadline`;
}

export function dropObjects(names: FreezeNames): string {
  return `
    DROP FUNCTION IF EXISTS ${names.guard}();
    DROP FUNCTION IF EXISTS ${names.extend}(bigint, text, bigint);
    DROP VIEW IF EXISTS ${names.lease};
    DROP SEQUENCE IF EXISTS ${names.deadline};
    DROP TABLE IF EXISTS ${names.record}`;
}

/** The schema goes with the last thing in it, if a freeze has made it. */
export const DROP_SCHEMA = `
  DO $drop$ BEGIN
    IF obj_description(to_regnamespace('dualrun'), 'pg_namespace') = ${quoteLiteral(SCHEMA_COMMENT)} THEN DROP SCHEMA dualrun; END IF;
  EXCEPTION WHEN dependent_objects_still_exist THEN NULL;
  END $drop$`;
