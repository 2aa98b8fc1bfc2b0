/** What MySQL and MariaDB say of their databases: facts for preflight, planning and type mapping; no judgement. */
import type { Connection, Pool } from "mariadb";

import { tableKey, type Catalogue, type ColumnFacts, type Endpoint, type ServerFacts, type TableFacts, type TableName, type UniqueKeyFacts } from "../../src/core/index.ts";
import { commonTypeOf, labelsOf } from "./common-types.ts";
import { connect, errorNumber, flavourOf, query, type Flavour, type Row } from "./connection.ts";
import { quoteTable } from "./identifiers.ts";
import { COLUMNS, FOREIGN_KEYS, FRESH, GRANTS, LOG_STATUS, SERVER, SETTINGS, TABLES, TRIGGERS, uniqueKeys } from "./inspect-sql.ts";
import { holds, parseGrants, type Grant } from "./privileges.ts";
import { foreignKeysIn, jsonColumnsIn, type ForeignKey } from "./show-create.ts";

/** What only these engines know, beside the facts that all engines have. */
export interface MysqlFacts {
  readonly flavour: Flavour;
  /** What the session was granted, active roles included. */
  readonly grants: readonly Grant[];
  /** By {@link tableKey}. */
  readonly tables: Readonly<Record<string, MysqlTableFacts>>;
  /** Databases whose changes alone are logged, or are not; null: the role may not see it. */
  readonly logFilter: { readonly only: readonly string[]; readonly without: readonly string[] } | null;
}

export interface MysqlTableFacts {
  /** `InnoDB`; null for views. */
  readonly engine: string | null;
  /** As the engine calls it: `BASE TABLE`, `SYSTEM VERSIONED`. */
  readonly kind: string;
  /** Columns that `SELECT *` leaves out. */
  readonly invisible: readonly string[];
  /** ON UPDATE by the name of the foreign key, in lower case. */
  readonly onUpdate: Readonly<Record<string, string>>;
}

export interface MysqlCatalogue extends Catalogue {
  readonly mysql: MysqlFacts;
}

/** These engines' own facts; for a catalogue of another engine a set that claims nothing. */
export function mysqlFacts(catalogue: Catalogue): MysqlFacts {
  return (catalogue as Partial<MysqlCatalogue>).mysql ?? { flavour: "mysql", grants: [], tables: {}, logFilter: null };
}

/** Inspects over a connection of its own. Throws DR2001. */
export async function inspectEndpoint(endpoint: Endpoint, application: string): Promise<MysqlCatalogue> {
  const connection = await connect(endpoint, { application, settings: { lock_wait_timeout: 10 }, statementTimeout: 300_000 });
  try {
    return await inspectMysql(connection);
  } finally {
    await connection.end();
  }
}

/**
 * The whole catalogue: every database that the role sees, the engine's own and `dualrun` left out.
 * The connection must be one of connection.ts; what a table is may change between two of the queries.
 */
export async function inspectMysql(connection: Connection): Promise<MysqlCatalogue> {
  const flavour = flavourOf(connection);
  if (flavour === "mysql") await preferFresh(connection);
  const grants = parseGrants((await query(connection, GRANTS)).map((row) => text(Object.values(row)[0])));
  const server = await readServer(connection, flavour, grants);
  const { tables, own } = await readTables(connection, flavour, grants);
  const logFilter = await readLogFilter(connection, flavour, server.versionNumber);
  return { server, tables, mysql: { flavour, grants, tables: own, logFilter } };
}

const UNKNOWN_VARIABLE = 1193;

async function preferFresh(connection: Connection): Promise<void> {
  for (const statement of FRESH) {
    await connection.query(statement).catch((error: unknown) => {
      if (errorNumber(error) !== UNKNOWN_VARIABLE) throw error;
    });
  }
}

// ---------------------------------------------------------------- server

async function readServer(connection: Connection, flavour: Flavour, grants: readonly Grant[]): Promise<ServerFacts> {
  const [row = {}] = await query(connection, SERVER);
  const settings = await readSettings(connection);
  const version = text(row["version"]);
  const versionNumber = versionNumberOf(version);
  return {
    engine: flavour,
    version,
    versionNumber,
    database: text(row["database"]),
    encoding: text(row["encoding"]) || (settings["character_set_server"] ?? ""),
    collation: text(row["collation"]) || (settings["collation_server"] ?? ""),
    timeZone: (settings["time_zone"] === "SYSTEM" ? settings["system_time_zone"] : settings["time_zone"]) ?? "",
    settings,
    identity: identityOf(flavour, settings),
    role: {
      name: text(row["role"]),
      superuser: holds(grants, "SUPER") && holds(grants, "CREATE USER"),
      replication: holds(grants, "REPLICATION SLAVE"),
      bypassRls: true, // there is no row level security
      createInDatabase: holds(grants, "CREATE", "dualrun"),
      canDisableTriggers: false, // nobody can for a session
      canUseOrigins: flavour === "mariadb" ? holds(grants, "BINLOG REPLAY") : mayTag(grants, versionNumber),
    },
    slots: { used: 0, max: 0 },
    senders: { used: 0, max: 0 },
    largeObjects: 0,
    inRecovery: isOn(settings["read_only"]) || isOn(settings["super_read_only"]),
  };
}

/** `8.0.36` is 80036, `10.11.18-MariaDB` 101118. */
export function versionNumberOf(version: string): number {
  const [, major = "0", minor = "0", patch = "0"] = /(\d+)\.(\d+)\.(\d+)/.exec(version.replace(/^5\.5\.5-/, "")) ?? [];
  return Number(major) * 10_000 + Number(minor) * 100 + Number(patch);
}

/** Whose log it is. */
export async function readIdentity(connection: Connection | Pool, flavour: Flavour): Promise<string> {
  return identityOf(flavour, await readSettings(connection));
}

async function readSettings(connection: Connection | Pool): Promise<Record<string, string>> {
  return Object.fromEntries((await query(connection, SETTINGS)).map((setting) => Object.values(setting).map(text) as [string, string]));
}

/**
 * MySQL: the UUID that stands beside the data. MariaDB has nothing of the kind: `server_id` and domain, which its GTIDs carry,
 * and `server_uid`, a hash of the host's network address and the port, which tells servers apart that were left at `server_id = 1`.
 * It survives restarts and upgrades; a server that moves to another host or port has to be accepted anew.
 */
function identityOf(flavour: Flavour, settings: Readonly<Record<string, string>>): string {
  if (flavour === "mysql") return settings["server_uuid"] ?? "";
  return [settings["gtid_domain_id"], settings["server_id"], settings["server_uid"]].map((part) => part ?? "").join("-");
}

/** Transactions of our own can be tagged in their GTIDs. */
function mayTag(grants: readonly Grant[], versionNumber: number): boolean {
  return versionNumber >= 80_300 && holds(grants, "TRANSACTION_GTID_TAG")
    && ["SYSTEM_VARIABLES_ADMIN", "SESSION_VARIABLES_ADMIN", "REPLICATION_APPLIER"].some((privilege) => holds(grants, privilege));
}

const NOT_ALLOWED = 1227;

async function readLogFilter(connection: Connection, flavour: Flavour, versionNumber: number): Promise<MysqlFacts["logFilter"]> {
  const statement = flavour === "mysql" && versionNumber < 80_200 ? LOG_STATUS.mysqlBefore82 : LOG_STATUS[flavour];
  try {
    const [row = {}] = await query(connection, statement);
    return { only: databases(row["Binlog_Do_DB"]), without: databases(row["Binlog_Ignore_DB"]) };
  } catch (error) {
    if (errorNumber(error) === NOT_ALLOWED) return null;
    throw error;
  }
}

function databases(list: Row[string] | undefined): string[] {
  return text(list).split(",").map((name) => name.trim()).filter((name) => name !== "");
}

// ---------------------------------------------------------------- tables

async function readTables(connection: Connection, flavour: Flavour, grants: readonly Grant[]): Promise<{ tables: TableFacts[]; own: Record<string, MysqlTableFacts> }> {
  const rows = await query(connection, TABLES);
  const columns = byTable(await query(connection, COLUMNS));
  const keys = byTable(await query(connection, uniqueKeys(flavour === "mysql" ? "IS_VISIBLE = 'NO'" : "IGNORED = 'YES'")));
  const triggers = byTable(await query(connection, TRIGGERS));
  const constraints = flavour === "mysql" ? constraintsOf(await query(connection, FOREIGN_KEYS)) : await shownConstraints(connection, rows);
  const tables: TableFacts[] = [];
  const own: Record<string, MysqlTableFacts> = {};
  for (const row of rows) {
    const table = nameOf(row);
    const key = tableKey(table);
    const parts = { columns: columns.get(key) ?? [], keys: keys.get(key) ?? [], triggers: triggers.get(key) ?? [], ...(constraints.get(key) ?? UNCONSTRAINED) };
    tables.push(tableFacts(row, parts, flavour, grants));
    own[key] = ownFacts(row, parts);
  }
  return { tables, own };
}

interface Constraints {
  readonly foreignKeys: readonly ForeignKey[];
  /** Columns whose text is checked to be JSON. */
  readonly json: readonly string[];
}

const UNCONSTRAINED: Constraints = { foreignKeys: [], json: [] };

function constraintsOf(rows: readonly Row[]): Map<string, Constraints> {
  const foreignKeys = byTable(rows);
  return new Map([...foreignKeys].map(([table, keys]) => [table, { json: [], foreignKeys: keys.map((key) => ({
    name: text(key["name"]), references: { schema: text(key["referencedSchema"]), name: text(key["referencedTable"]) }, onDelete: text(key["onDelete"]), onUpdate: text(key["onUpdate"]),
  })) }]));
}

const NO_TABLE = 1146;
const TABLE_ACCESS_DENIED = 1142;

/** Table by table: see show-create.ts. Tables that may not be read are left out, and refused by preflight. */
async function shownConstraints(connection: Connection, rows: readonly Row[]): Promise<Map<string, Constraints>> {
  const constraints = new Map<string, Constraints>();
  for (const table of rows.filter((row) => text(row["kind"]) === "BASE TABLE").map(nameOf)) {
    try {
      const [shown = {}] = await query(connection, `SHOW CREATE TABLE ${quoteTable(table)}`);
      const statement = text(shown["Create Table"]);
      constraints.set(tableKey(table), { foreignKeys: foreignKeysIn(statement, table.schema), json: jsonColumnsIn(statement) });
    } catch (error) {
      if (![NO_TABLE, TABLE_ACCESS_DENIED].includes(errorNumber(error) ?? 0)) throw error;
    }
  }
  return constraints;
}

interface Parts extends Constraints {
  readonly columns: readonly Row[];
  readonly keys: readonly Row[];
  readonly triggers: readonly Row[];
}

const KINDS: Readonly<Record<string, TableFacts["kind"]>> = { "BASE TABLE": "table", VIEW: "view" };

function tableFacts(row: Row, parts: Parts, flavour: Flavour, grants: readonly Grant[]): TableFacts {
  const table = nameOf(row);
  return {
    table,
    kind: KINDS[text(row["kind"])] ?? "other",
    persistence: text(row["kind"]) === "TEMPORARY" ? "temporary" : "permanent",
    columns: parts.columns.map((column) => columnFacts(column, flavour, parts.json)),
    uniqueKeys: [...Map.groupBy(parts.keys, (key) => text(key["name"])).values()].map(uniqueKey),
    exclusionConstraints: [],
    replicaIdentity: { kind: "full", index: null },
    rowSecurity: { enabled: false, forced: false },
    triggers: parts.triggers.map((trigger) => ({ name: text(trigger["name"]), mode: "O" })),
    foreignKeys: parts.foreignKeys.map(({ name, references, onDelete }) => ({ name, references, onDelete, deferrable: false })),
    estimatedRows: Number(text(row["rows"])),
    bytes: Number(text(row["bytes"])),
    privileges: privilegesOf(table, grants),
    owner: "",
  };
}

function ownFacts(row: Row, { columns, foreignKeys }: Parts): MysqlTableFacts {
  return {
    engine: row["engine"] === null ? null : text(row["engine"]),
    kind: text(row["kind"]),
    invisible: columns.filter((column) => /\bINVISIBLE\b/.test(text(column["extra"]))).map((column) => text(column["name"])),
    onUpdate: Object.fromEntries(foreignKeys.map(({ name, onUpdate }) => [name, onUpdate])),
  };
}

function columnFacts(row: Row, flavour: Flavour, json: readonly string[]): ColumnFacts {
  const [type, typeName, extra] = [text(row["type"]), text(row["typeName"]), text(row["extra"])];
  const isLabelled = typeName === "enum" || typeName === "set";
  const facts: Omit<ColumnFacts, "common"> = {
    name: text(row["name"]),
    type,
    typeName,
    typeKind: typeName === "enum" ? "enum" : "base",
    typeSchema: "mysql",
    baseTypeName: typeName,
    notNull: text(row["nullable"]) === "NO",
    generated: /\bVIRTUAL GENERATED\b/.test(extra) ? "virtual" : /\b(STORED|PERSISTENT) GENERATED\b/.test(extra) ? "stored" : null,
    identity: /\bauto_increment\b/.test(extra) ? "by default" : null,
    hasDefault: hasDefault(row["defaultValue"] ?? null, flavour),
    collation: row["collation"] === null ? null : text(row["collation"]),
    enumLabels: isLabelled ? labelsOf(type) : null,
  };
  const length = row["length"] === null ? null : Number(text(row["length"]));
  return { ...facts, common: commonTypeOf(facts, { length, checkedJson: json.includes(facts.name) }) };
}

/** MariaDB prints defaults as expressions, so that a missing one is the word NULL. */
function hasDefault(value: Row[string], flavour: Flavour): boolean {
  return value !== null && !(flavour === "mariadb" && text(value) === "NULL");
}

/** A key that the optimizer does not use counts as partial: rows cannot be found by it. */
function uniqueKey(parts: readonly Row[]): UniqueKeyFacts {
  const [first = {}] = parts;
  return {
    name: text(first["name"]),
    columns: parts.filter((part) => part["column"] !== null).map((part) => text(part["column"])),
    primary: text(first["name"]) === "PRIMARY",
    deferrable: false,
    partial: parts.some((part) => part["column"] === null || part["prefix"] !== null || text(part["hidden"]) === "1"),
    valid: true,
    allNotNull: parts.every((part) => part["column"] !== null && text(part["nullable"]) !== "YES"),
  };
}

const PRIVILEGES = [["select", "SELECT"], ["insert", "INSERT"], ["update", "UPDATE"], ["delete", "DELETE"], ["truncate", "DROP"]] as const;

/** On the table as a whole: columns that a role may not read are not even shown to it. */
function privilegesOf({ schema, name }: TableName, grants: readonly Grant[]): TableFacts["privileges"] {
  return PRIVILEGES.filter(([, granted]) => holds(grants, granted, schema, name)).map(([privilege]) => privilege);
}

// ---------------------------------------------------------------- helpers

function byTable(rows: readonly Row[]): Map<string, Row[]> {
  return Map.groupBy(rows, (row) => tableKey({ schema: text(row["schema"]), name: text(row["table"]) }));
}

function nameOf(row: Row): TableName {
  return { schema: text(row["schema"]), name: text(row["name"]) };
}

/** '' for NULL and for what is not there. */
function text(value: Row[string] | undefined): string {
  return value === null || value === undefined ? "" : value.toString();
}

/** Whether a setting of either engine is switched on. */
export function isOn(value: string | undefined): boolean {
  return value !== undefined && !/^(0|OFF|NO|)$/i.test(value);
}
