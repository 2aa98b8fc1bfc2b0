/** What a freeze consists of on the server: names, statements, and the queries that look at it. */
import type pg from "pg";
import { quoteIdent, quoteLiteral } from "./identifiers.ts";

/** SQLSTATE of a refused write. */
const REFUSED = "DR001";
/** The session's setting that the mirror's own sessions carry; its value is known to the server and to them only. */
const PASS = "dualrun.pass";
/** Set while guards are switched on and off, so that dualrun's own schema trigger does not take it for a schema change. */
export const OWN_DDL = "dualrun.own_ddl";
/** The deadline of a freeze that does not end by itself. */
export const PERMANENT = 9_223_372_036_854_775_807n;
const SCHEMA_COMMENT = "made by dualrun for a freeze";
const NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/**
 * Everything that a freeze makes bears its migration's name, so that two migrations never meet.
 * Nothing of it is a table that is logged: other people's publications FOR ALL TABLES would send its rows to subscribers that lack it.
 */
export interface FreezeNames {
  readonly migration: string;
  /** A view for people. */
  readonly lease: string;
  /**
   * A sequence, for its value is the same in every snapshot: microseconds since 1970; 0: no freeze.
   * Who holds the freeze, over which tables, is its comment: JSON, as {@link FreezeRecord}.
   */
  readonly deadline: string;
  /** An unlogged table: after a crash, when there are no sessions left that carry the pass, `prepare` makes another one. */
  readonly pass: string;
  readonly guard: string;
  readonly extend: string;
  readonly triggers: Readonly<Record<GuardKind, string>>;
}

/** What is on record beside the deadline. */
export interface FreezeRecord {
  readonly migration: string;
  readonly holder: string;
  /** A bigint. */
  readonly epoch: string;
  /** As SQL. */
  readonly tables: readonly string[];
  /** The role whose sessions may carry the pass. */
  readonly writer: string;
}

/** Statements, TRUNCATE among them, are refused before they begin; rows are for who sends no statements, and for partitions that came later. */
export type GuardKind = "row" | "statement";
/** In the order in which they are made. */
export const GUARD_KINDS: readonly GuardKind[] = ["row", "statement"];
/** As the catalogue writes it: 1 rows, 2 before, 4 INSERT, 8 DELETE, 16 UPDATE, 32 TRUNCATE. */
export const GUARD_TYPES: Readonly<Record<GuardKind, number>> = { row: 1 + 4 + 8 + 16, statement: 2 + 4 + 8 + 16 + 32 };

/** `migration`: [a-z0-9-]{1,40}, so that every name is within 63 bytes. */
export function freezeNames(migration: string): FreezeNames {
  const base = migration.replaceAll("-", "_");
  const own = (what: string): string => `dualrun.${quoteIdent(`${base}_freeze${what}`)}`;
  return {
    migration, lease: own("_lease"), deadline: own("_deadline"), pass: own("_pass"), guard: own("_guard"), extend: own("_extend"),
    triggers: { row: `dualrun_${base}_row`, statement: `dualrun_${base}_statement` },
  };
}

const known = (names: FreezeNames): string => `obj_description(${quoteLiteral(names.deadline)}::regclass, 'pg_class')::jsonb`;

/** The schema, the deadline and the pass; safe to repeat. The pass never leaves the server. */
export function makeObjects(names: FreezeNames): string {
  return `
    DO $make$ BEGIN
      IF to_regnamespace('dualrun') IS NULL THEN
        CREATE SCHEMA dualrun;
        COMMENT ON SCHEMA dualrun IS ${quoteLiteral(SCHEMA_COMMENT)};
      END IF;
    END $make$;
    CREATE SEQUENCE IF NOT EXISTS ${names.deadline} MINVALUE 0 START 0;
    REVOKE ALL ON SEQUENCE ${names.deadline} FROM PUBLIC;
    CREATE UNLOGGED TABLE IF NOT EXISTS ${names.pass} (pass text NOT NULL);
    REVOKE ALL ON ${names.pass} FROM PUBLIC;
    INSERT INTO ${names.pass} SELECT gen_random_uuid()::text || gen_random_uuid()::text WHERE NOT EXISTS (SELECT FROM ${names.pass});
    CREATE OR REPLACE VIEW ${names.lease} AS
      SELECT r.record ->> 'migration' AS migration, r.record ->> 'holder' AS holder, (r.record ->> 'epoch')::bigint AS epoch,
        CASE d.last_value WHEN 0 THEN NULL WHEN ${PERMANENT} THEN 'infinity'::timestamptz ELSE to_timestamp(d.last_value / 1000000.0) END AS until,
        d.last_value = ${PERMANENT} AS permanent, d.last_value > ${NOW} AS in_force
      FROM ${names.deadline} AS d CROSS JOIN LATERAL (SELECT ${known(names)} AS record) AS r`;
}

/** For the rest of the transaction nobody else prepares, freezes, renews or thaws. */
export function holdFreeze(names: FreezeNames): string {
  return `SELECT pg_advisory_xact_lock(hashtextextended(${quoteLiteral(`dualrun freeze ${names.migration}`)}, 0))`;
}

/**
 * Refuses a write while the deadline lies ahead.
 *
 * The deadline is read from a sequence: a transaction that looks at an old snapshot would find an old lease in a table.
 * The clock is read before it: between the two the lease may have been renewed, never the other way round.
 * The mirror is known by two things together: who logged in, which nobody but a superuser can change, and a pass that only
 * its owner can read. Replication origins will not do: every subscription has one, and nobody can ask which.
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

/** The function behind all guards; safe to repeat. */
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
  record jsonb;
  before bigint;
  after bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(${quoteLiteral(`dualrun freeze ${names.migration}`)}, 0));
  record := ${known(names)};
  IF (record ->> 'epoch')::bigint > by_epoch THEN RETURN -1; END IF;
  IF (record ->> 'epoch')::bigint < by_epoch OR record ->> 'holder' <> by_holder THEN
    EXECUTE format('COMMENT ON SEQUENCE ${names.deadline.replaceAll("'", "''")} IS %L', record || jsonb_build_object('epoch', by_epoch::text, 'holder', by_holder));
  END IF;
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
  const { pass } = freezeNames(migration);
  const { rows } = await client.query<{ found: boolean }>("SELECT coalesce(has_table_privilege(to_regclass($1), 'SELECT'), false) AS found", [pass]);
  if (rows[0]!.found) await client.query(`SELECT set_config('${PASS}', p.pass, false) IS NOT NULL AS carried FROM ${pass} AS p`);
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
 * $1: names of tables, $2: the guard function, $3 to $5: kinds of guards, their names, what they are for. One row per table and guard that should be there,
 * roots first. What is `inherited` comes into being with the guard of the table above.
 */
export const GUARDS = `
  WITH ${MAPPED}
  SELECT coalesce(m.relid::regclass::text, m.name) AS table, m.relid IS NULL AS gone, g.kind,
    CASE WHEN t.tgqual IS NULL AND t.tgtype = g.type AND t.tgattr::text = '' OR t.oid IS NULL THEN t.tgenabled::text ELSE 'altered' END AS mode,
    g.kind = 'row' AND min(m.level) > 0 AS inherited
  FROM mapped AS m CROSS JOIN unnest($3::text[], $4::text[], $5::int[]) AS g (kind, trigger, type)
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

/** The record, null before there is one; the pass's hash, null after a crash; deadline and clock in microseconds. */
export function readRecord(names: FreezeNames): string {
  return `SELECT ${known(names)} AS record, session_user AS "me", (SELECT encode(sha256(convert_to(p.pass, 'UTF8')), 'hex') FROM ${names.pass} AS p) AS "passHash", d.last_value AS deadline, ${NOW} AS now
    FROM ${names.deadline} AS d`;
}

/** Replaces the record, as part of a transaction. */
export function writeRecord(names: FreezeNames, record: FreezeRecord): string {
  return `COMMENT ON SEQUENCE ${names.deadline} IS ${quoteLiteral(JSON.stringify(record))}`;
}

/** $1: epoch. Takes a freeze back that was not committed, unless somebody else has taken it over. */
export function withdraw(names: FreezeNames): string {
  return `${setDeadline(names, 0n)} WHERE (${known(names)} ->> 'epoch')::bigint <= $1`;
}

/** At once and for everybody, whether the transaction commits or not: microseconds since 1970, or from now on. */
export function setDeadline(names: FreezeNames, micros: bigint | { readonly fromNow: bigint }): string {
  return `SELECT setval(${quoteLiteral(names.deadline)}, ${typeof micros === "bigint" ? micros : `${NOW} + ${micros.fromNow}`}) AS deadline`;
}

/** Everything but the triggers and the schema. */
export function dropObjects(names: FreezeNames): string {
  return `
    DROP FUNCTION IF EXISTS ${names.guard}();
    DROP FUNCTION IF EXISTS ${names.extend}(bigint, text, bigint);
    DROP VIEW IF EXISTS ${names.lease};
    DROP SEQUENCE IF EXISTS ${names.deadline};
    DROP TABLE IF EXISTS ${names.pass}`;
}

/** The schema goes with the last thing in it, if a freeze has made it. */
export const DROP_SCHEMA = `
  DO $drop$ BEGIN
    IF obj_description(to_regnamespace('dualrun'), 'pg_namespace') = ${quoteLiteral(SCHEMA_COMMENT)} THEN DROP SCHEMA dualrun; END IF;
  EXCEPTION WHEN dependent_objects_still_exist THEN NULL;
  END $drop$`;
