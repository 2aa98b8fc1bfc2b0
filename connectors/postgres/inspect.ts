/** What PostgreSQL's catalogue says of a database: facts for preflight, planning and type mapping; no judgement. */
import pg from "pg";
import type { Catalogue, ColumnFacts, Endpoint, ServerFacts, TableFacts, TableName, UniqueKeyFacts } from "../../src/core/index.ts";
import { tableKey } from "../../src/core/index.ts";
import { withCommonType } from "./common-types.ts";
import { clientConfig, sqlState, unreachable } from "./connection.ts";
import {
  COLUMNS, CONSTRAINTS, HEIRS, ORIGIN_FUNCTIONS, PARTITIONS, PUBLICATIONS, ROLES, SCHEMAS, SERVER, SETTINGS, TABLES, TRIGGERS, TYPES, UNIQUE_INDEXES,
} from "./inspect-sql.ts";

/** What only PostgreSQL knows, beside the facts that all engines have. */
export interface PostgresFacts {
  /** Roles whose privileges the current role has, itself among them. */
  readonly memberOf: readonly string[];
  readonly superusers: readonly string[];
  readonly schemas: Readonly<Record<string, { readonly usage: boolean; readonly create: boolean }>>;
  /** May make temporary tables. */
  readonly temporary: boolean;
  /** Leaf partitions by {@link tableKey} of each partitioned table. */
  readonly leaves: Readonly<Record<string, readonly TableName[]>>;
  /** Tables that inherit, other than partitions, by {@link tableKey} of the table above them. */
  readonly heirs: Readonly<Record<string, readonly TableName[]>>;
  /** By `schema.type`: what is under a domain, the attributes of a composite, the subtype of a range; as the engine prints them. */
  readonly definitions: Readonly<Record<string, string>>;
  readonly publications: readonly PublicationFacts[];
  /** Replication slots of this database whose name begins with `dualrun`. */
  readonly ownSlots: number;
  /** Replication origins of the whole server. */
  readonly origins: number;
}

export interface PublicationFacts {
  readonly name: string;
  readonly owner: string;
  readonly allTables: boolean;
  /** {@link tableKey} of each member. */
  readonly tables: readonly string[];
}

export interface PostgresCatalogue extends Catalogue {
  readonly postgres: PostgresFacts;
}

/** PostgreSQL's own facts; for a catalogue of another engine a set that claims nothing. */
export function postgresFacts(catalogue: Catalogue): PostgresFacts {
  return (catalogue as Partial<PostgresCatalogue>).postgres ?? NO_FACTS;
}

const NO_FACTS: PostgresFacts = {
  memberOf: [], superusers: [], schemas: {}, temporary: false, leaves: {}, heirs: {}, definitions: {}, publications: [], ownSlots: 0, origins: 0,
};

/**
 * Inspects over a connection of its own without the pinned session settings, so that `TimeZone`, `lc_monetary`
 * and timeouts are what the server gives this role. Throws DR2001.
 */
export async function inspectEndpoint(endpoint: Endpoint, application: string): Promise<PostgresCatalogue> {
  const { options: _pinned, ...config } = clientConfig(endpoint, { application });
  const client = new pg.Client(config);
  client.on("error", () => undefined); // a broken connection shows itself at the next query
  try {
    await client.connect();
  } catch (error) {
    await client.end().catch(() => undefined); // it never was open
    throw unreachable(endpoint, error);
  }
  try {
    return await inspectPostgres(client);
  } finally {
    await client.end();
  }
}

/**
 * The whole catalogue of the database, from one snapshot. The connection must be idle.
 *
 * A setting that the connection itself has pinned says nothing about the server and is reported as ''
 * unless the database or role sets it too; {@link inspectEndpoint} avoids that.
 */
export async function inspectPostgres(client: pg.Client): Promise<PostgresCatalogue> {
  await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  try {
    await client.query("SET LOCAL search_path = pg_catalog; SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '5min'");
    const server = await readServer(client);
    const tables = await readTables(client);
    const postgres = await readPostgresFacts(client);
    const canDisableTriggers = await mayDisableTriggers(client, server.role.superuser);
    return { server: { ...server, role: { ...server.role, canDisableTriggers } }, tables, postgres };
  } finally {
    await client.query("ROLLBACK");
  }
}

// ---------------------------------------------------------------- server

interface ServerRow {
  version: string; versionNumber: number; database: string; encoding: string;
  provider: string | null; collate: string; ctype: string; locale: string | null;
  role: string; superuser: boolean; replication: boolean; bypassRls: boolean; createInDatabase: boolean; canUseOrigins: boolean;
  slotsUsed: number; sendersUsed: number; largeObjects: string; inRecovery: boolean; mayReadControl: boolean;
}

async function readServer(client: pg.Client): Promise<ServerFacts> {
  const row = await single<ServerRow>(client, SERVER, [[...ORIGIN_FUNCTIONS]]);
  const settings = await readSettings(client);
  return {
    engine: "postgres",
    version: row.version,
    versionNumber: row.versionNumber,
    database: row.database,
    encoding: row.encoding,
    collation: collationOf(row),
    timeZone: settings["TimeZone"] ?? "",
    settings,
    identity: row.mayReadControl ? await systemIdentifier(client) : "",
    role: {
      name: row.role, superuser: row.superuser, replication: row.replication, bypassRls: row.bypassRls,
      createInDatabase: row.createInDatabase, canDisableTriggers: row.superuser, canUseOrigins: row.canUseOrigins,
    },
    slots: { used: row.slotsUsed, max: Number(settings["max_replication_slots"]) },
    senders: { used: row.sendersUsed, max: Number(settings["max_wal_senders"]) },
    largeObjects: Number(row.largeObjects),
    inRecovery: row.inRecovery,
  };
}

const PROVIDERS: Readonly<Record<string, string>> = { c: "libc", i: "icu", b: "builtin" };

/** `libc:en_US.UTF-8`, `icu:de-AT`; with the character type where that differs. */
function collationOf(row: ServerRow): string {
  const provider = row.provider ?? "c";
  const collation = provider === "c" ? row.collate : (row.locale ?? row.collate);
  const ctype = provider === "c" && row.ctype !== row.collate ? `, ctype ${row.ctype}` : "";
  return `${PROVIDERS[provider] ?? provider}:${collation}${ctype}`;
}

async function systemIdentifier(client: pg.Client): Promise<string> {
  return (await single<{ id: string }>(client, "SELECT system_identifier::text AS id FROM pg_control_system()")).id;
}

async function readSettings(client: pg.Client): Promise<Record<string, string>> {
  const rows = await all<{ name: string; value: string | null }>(client, SETTINGS);
  return Object.fromEntries(rows.map((row) => [row.name, row.value ?? ""]));
}

/** Whether the role may set session_replication_role: tried, because managed services decide it in ways of their own. */
async function mayDisableTriggers(client: pg.Client, superuser: boolean): Promise<boolean> {
  if (superuser) return true;
  await client.query("SAVEPOINT probe");
  try {
    await client.query("SET LOCAL session_replication_role = replica");
    return true;
  } catch (error) {
    if (sqlState(error) === "42501") return false;
    throw error;
  } finally {
    await client.query("ROLLBACK TO SAVEPOINT probe");
  }
}

// ---------------------------------------------------------------- tables

interface TableRow {
  oid: number; schema: string; name: string; kind: TableFacts["kind"]; persistence: TableFacts["persistence"];
  identity: TableFacts["replicaIdentity"]["kind"]; rowSecurity: boolean; forced: boolean; owner: string;
  rows: number; bytes: string; privileges: TableFacts["privileges"];
}
type ColumnRow = Omit<ColumnFacts, "common"> & { relation: number };
type IndexRow = UniqueKeyFacts & { relation: number; replicaIdentity: boolean };
interface ConstraintRow { relation: number; kind: "f" | "x"; name: string; schema: string; table: string; onDelete: string; deferrable: boolean }
interface TriggerRow { relation: number; name: string; mode: TableFacts["triggers"][number]["mode"] }

async function readTables(client: pg.Client): Promise<TableFacts[]> {
  const tables = await all<TableRow>(client, TABLES);
  const columns = byRelation(await all<ColumnRow>(client, COLUMNS));
  const indexes = byRelation(await all<IndexRow>(client, UNIQUE_INDEXES));
  const constraints = byRelation(await all<ConstraintRow>(client, CONSTRAINTS));
  const triggers = byRelation(await all<TriggerRow>(client, TRIGGERS));
  return tables.map((row) => {
    const ofTable = constraints.get(row.oid) ?? [];
    const uniqueIndexes = indexes.get(row.oid) ?? [];
    return {
      table: { schema: row.schema, name: row.name },
      kind: row.kind,
      persistence: row.persistence,
      columns: (columns.get(row.oid) ?? []).map(({ relation: _, ...column }) => withCommonType(column)),
      uniqueKeys: uniqueIndexes.map(({ relation: _, replicaIdentity: __, ...key }) => key),
      exclusionConstraints: ofTable.filter((c) => c.kind === "x").map((c) => c.name),
      replicaIdentity: { kind: row.identity, index: row.identity === "index" ? (uniqueIndexes.find((i) => i.replicaIdentity)?.name ?? null) : null },
      rowSecurity: { enabled: row.rowSecurity, forced: row.forced },
      triggers: (triggers.get(row.oid) ?? []).map(({ name, mode }) => ({ name, mode })),
      foreignKeys: ofTable.filter((c) => c.kind === "f").map((c) => (
        { name: c.name, references: { schema: c.schema, name: c.table }, onDelete: c.onDelete, deferrable: c.deferrable })),
      estimatedRows: Math.round(row.rows),
      bytes: Number(row.bytes),
      privileges: row.privileges,
      owner: row.owner,
    };
  });
}

// ---------------------------------------------------------------- PostgreSQL's own

async function readPostgresFacts(client: pg.Client): Promise<PostgresFacts> {
  const roles = await single<{ memberOf: string[]; superusers: string[]; temporary: boolean; ownSlots: number; origins: number }>(client, ROLES);
  const schemas = await all<{ name: string; usage: boolean; create: boolean }>(client, SCHEMAS);
  const partitions = await all<{ rootSchema: string; rootName: string; schema: string; name: string }>(client, PARTITIONS);
  const heirs = await all<{ parentSchema: string; parentName: string; schema: string; name: string }>(client, HEIRS);
  const types = await all<{ name: string; definition: string }>(client, TYPES);
  const publications = await all<PublicationFacts>(client, PUBLICATIONS);
  return {
    ...roles,
    schemas: Object.fromEntries(schemas.map(({ name, usage, create }) => [name, { usage, create }])),
    leaves: under(partitions.map((row) => [{ schema: row.rootSchema, name: row.rootName }, row])),
    heirs: under(heirs.map((row) => [{ schema: row.parentSchema, name: row.parentName }, row])),
    definitions: Object.fromEntries(types.map((type) => [type.name, type.definition])),
    publications,
  };
}

// ---------------------------------------------------------------- helpers

/** Tables by {@link tableKey} of the one that each belongs to. */
function under(pairs: readonly (readonly [TableName, TableName])[]): Record<string, TableName[]> {
  const tables: Record<string, TableName[]> = {};
  for (const [above, { schema, name }] of pairs) (tables[tableKey(above)] ??= []).push({ schema, name });
  return tables;
}

async function all<Row>(client: pg.Client, text: string): Promise<Row[]> {
  return (await client.query(text)).rows as Row[];
}

async function single<Row>(client: pg.Client, text: string, values: unknown[] = []): Promise<Row> {
  return (await client.query(text, values)).rows[0] as Row;
}

function byRelation<Row extends { relation: number }>(rows: readonly Row[]): Map<number, Row[]> {
  return Map.groupBy(rows, (row) => row.relation);
}
