/** What stands in the way of a mirror: every fault at once, each with the statement that mends it. */
import {
  commonFit, findTable, tableKey,
  type Catalogue, type ColumnFacts, type Finding, type RecordClass, type ServerFacts, type TableFacts, type TableName,
} from "../../src/core/index.ts";
import { typeFor } from "./ddl.ts";
import { originGrants } from "./grants.ts";
import { quoteIdent, quoteTable } from "./identifiers.ts";
import { postgresFacts } from "./inspect.ts";
import { typeFit, valueType, type Fit } from "./typefit.ts";

const OLDEST = 140_000;
const NEWEST = 189_999;
/** One for the stream, one while a snapshot is exported. */
const SLOTS_NEEDED = 2;
/** To apply, to control, and one per reader of the copy. */
const ORIGINS_NEEDED = 6;

type Add = (finding: Omit<Finding, "side">) => void;

/** Faults of the source. */
export function preflightSource(classes: readonly RecordClass[], catalogue: Catalogue): Finding[] {
  const findings: Finding[] = [];
  const add: Add = (finding) => findings.push({ ...finding, side: "source" });
  sourceServer(catalogue, add);
  for (const cls of classes) sourceTable(cls, catalogue, add);
  return findings;
}

/** Faults of the target, and of the two together. */
export function preflightTarget(classes: readonly RecordClass[], target: Catalogue, source: Catalogue): Finding[] {
  const findings: Finding[] = [];
  const add: Add = (finding) => findings.push({ ...finding, side: "target" });
  targetServer(target, add);
  parity(target.server, source.server, add);
  for (const cls of classes) targetTable(cls, target, source, add);
  return findings;
}

const error = (check: string, subject: string | null, what: string, mend: string): Omit<Finding, "side"> => ({ severity: "error", check, subject, what, mend });
const warning = (check: string, subject: string | null, what: string, mend: string): Omit<Finding, "side"> => ({ severity: "warning", check, subject, what, mend });

// ---------------------------------------------------------------- source

function sourceServer(catalogue: Catalogue, add: Add): void {
  const { server } = catalogue;
  const role = quoteIdent(server.role.name);
  version(server, add);
  if (server.settings["wal_level"] !== "logical") add(error("wal-level", "wal_level", `wal_level is ${server.settings["wal_level"]}`, "ALTER SYSTEM SET wal_level = 'logical'; then restart the server"));
  if (server.inRecovery) add(error("in-recovery", null, "the server is a standby: nothing can be published or marked there", "point source.url at the primary"));
  if (!server.role.replication && !server.role.superuser) add(error("replication-role", server.role.name, `role ${server.role.name} may not replicate`, `ALTER ROLE ${role} WITH REPLICATION;`));
  if (!server.role.createInDatabase && !server.role.superuser && !hasPublication(catalogue)) {
    add(error("create-publication", server.database, "the role may not make the publication", `GRANT CREATE ON DATABASE ${quoteIdent(server.database)} TO ${role};`));
  }
  const own = postgresFacts(catalogue).ownSlots;
  room("slots", server.slots, own, "max_replication_slots", add);
  room("senders", server.senders, own, "max_wal_senders", add);
  const keep = server.settings["max_slot_wal_keep_size"];
  if (keep !== undefined && keep !== "" && keep !== "-1") add(warning("slot-limit", "max_slot_wal_keep_size", `max_slot_wal_keep_size is ${keep}: a target that is down for long costs the slot`, "ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf();"));
  const idle = server.settings["idle_replication_slot_timeout"];
  if (idle !== undefined && !/^0\w*$|^$/.test(idle)) add(warning("slot-idle-limit", "idle_replication_slot_timeout", `idle_replication_slot_timeout is ${idle}: a paused mirror loses its slot`, "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();"));
  if (server.largeObjects > 0) add(warning("large-objects", null, `${server.largeObjects} large objects are not carried by logical replication`, "move them to bytea columns, or copy them apart"));
}

function version(server: ServerFacts, add: Add): void {
  if (server.versionNumber >= OLDEST && server.versionNumber <= NEWEST) return;
  add(error("version", null, `PostgreSQL ${server.version} is not among 14 to 18`, "use a supported version"));
}

function room(what: string, { used, max }: { used: number; max: number }, own: number, setting: string, add: Add): void {
  if (max - used >= SLOTS_NEEDED - Math.min(own, SLOTS_NEEDED)) return;
  add(error(`free-${what}`, setting, `${used} of ${max} ${what} are in use, ${SLOTS_NEEDED} are needed`, `ALTER SYSTEM SET ${setting} = ${max + SLOTS_NEEDED}; then restart the server`));
}

function hasPublication(catalogue: Catalogue): boolean {
  return postgresFacts(catalogue).publications.some(({ name }) => name.startsWith("dualrun_"));
}

function sourceTable(cls: RecordClass, catalogue: Catalogue, add: Add): void {
  const facts = findTable(catalogue, cls.source);
  if (facts === undefined) return;
  const { role } = catalogue.server;
  const name = quoteTable(cls.source);
  const me = quoteIdent(role.name);
  if (facts.kind !== "table" && facts.kind !== "partitioned") add(error("table-kind", cls.name, `${tableKey(cls.source)} is a ${facts.kind}: it has no change stream of its own`, "mirror the tables that are under it"));
  if (facts.persistence !== "permanent") add(error("persistence", cls.name, `${tableKey(cls.source)} is ${facts.persistence}: its changes are not logged`, `ALTER TABLE ${name} SET LOGGED;`));
  if (!facts.privileges.includes("select")) add(error("grant-select", cls.name, `role ${role.name} may not read ${tableKey(cls.source)}`, `GRANT SELECT ON ${name} TO ${me};`));
  if (postgresFacts(catalogue).schemas[cls.source.schema]?.usage === false) add(error("grant-usage", cls.name, `role ${role.name} may not use schema ${cls.source.schema}`, `GRANT USAGE ON SCHEMA ${quoteIdent(cls.source.schema)} TO ${me};`));
  if (hidesRows(facts, catalogue)) add(error("row-security", cls.name, `row level security hides rows of ${tableKey(cls.source)} from role ${role.name}`, `ALTER ROLE ${me} WITH BYPASSRLS;`));
  inherited(cls, cls.source, catalogue, add);
  publishable(cls, facts, catalogue, add);
  writable(cls, facts, catalogue.server, add);
  for (const leaf of postgresFacts(catalogue).leaves[tableKey(cls.source)] ?? []) {
    const part = findTable(catalogue, leaf);
    if (part === undefined) continue;
    const [wanted, found] = [identityColumns(facts), identityColumns(part)];
    if (wanted === found || (found === "full" && !cls.fullBeforeImage)) continue;
    add(error("partition-identity", cls.name, `partition ${tableKey(leaf)} names its rows by ${found}, its root by ${wanted}`, wanted === "full"
      ? `ALTER TABLE ${quoteTable(leaf)} REPLICA IDENTITY FULL;`
      : `give ${quoteTable(leaf)} the replica identity of its root, or ALTER TABLE ${quoteTable(leaf)} REPLICA IDENTITY FULL;`));
  }
}

/** By what the log names a row: `full`, `nothing`, or the columns of the key. */
function identityColumns({ replicaIdentity: { kind, index }, uniqueKeys }: TableFacts): string {
  if (kind === "full") return "full";
  const key = kind === "default" ? uniqueKeys.find((one) => one.primary) : kind === "index" ? uniqueKeys.find((one) => one.name === index) : undefined;
  return key === undefined ? "nothing" : `(${key.columns.join(", ")})`;
}

/** From 18 a published table refuses every UPDATE and DELETE when its replica identity holds a generated column. */
function writable(cls: RecordClass, facts: TableFacts, server: ServerFacts, add: Add): void {
  const generated = facts.columns.filter((column) => column.generated !== null).map(({ name }) => name);
  if (server.versionNumber < 180_000 || facts.replicaIdentity.kind !== "full" || generated.length === 0) return;
  add(error("generated-identity", cls.name, `once ${tableKey(facts.table)} is published, the source refuses its updates and deletes: its replica identity is full and holds the generated column ${generated.join(", ")}`,
    `ALTER TABLE ${quoteTable(facts.table)} REPLICA IDENTITY DEFAULT; (it needs a primary key then, and the class cannot be filtered)`));
}

/** Whatever reads or writes a table also reads and writes those that inherit from it; its change stream brings its own rows only. */
function inherited(cls: RecordClass, table: TableName, catalogue: Catalogue, add: Add): void {
  for (const heir of postgresFacts(catalogue).heirs[tableKey(table)] ?? []) {
    add(error("inheritance", cls.name, `${tableKey(heir)} inherits from ${tableKey(table)}: its rows would count twice`, `ALTER TABLE ${quoteTable(heir)} NO INHERIT ${quoteTable(table)}; or replace inheritance by partitions`));
  }
}

function hidesRows(facts: TableFacts, catalogue: Catalogue): boolean {
  const { role } = catalogue.server;
  if (!facts.rowSecurity.enabled || role.bypassRls || role.superuser) return false;
  return facts.rowSecurity.forced || !postgresFacts(catalogue).memberOf.includes(facts.owner);
}

/** Only an owner may publish a table, unless a publication with it exists already. */
function publishable(cls: RecordClass, facts: TableFacts, catalogue: Catalogue, add: Add): void {
  const { publications, memberOf } = postgresFacts(catalogue);
  const { role } = catalogue.server;
  const published = publications.some((publication) => publication.name.startsWith("dualrun_") && publication.tables.includes(tableKey(cls.source)));
  if (published || role.superuser || memberOf.includes(facts.owner)) return;
  add(error("publish", cls.name, `role ${role.name} does not own ${tableKey(cls.source)} and so may not publish it`, `GRANT ${quoteIdent(facts.owner)} TO ${quoteIdent(role.name)}; or make the publication dualrun_MIGRATION as a superuser, FOR TABLE … WITH (publish_via_partition_root = true)`));
}

// ---------------------------------------------------------------- target

function targetServer(catalogue: Catalogue, add: Add): void {
  const { server } = catalogue;
  const me = quoteIdent(server.role.name);
  version(server, add);
  if (server.inRecovery || server.settings["default_transaction_read_only"] === "on") add(error("read-only", null, "the target takes no writes", "point target.url at a primary that is not read-only"));
  if (server.settings["fsync"] === "off") add(forgetful("fsync"));
  if (server.settings["full_page_writes"] === "off") add(warning("full-page-writes", "full_page_writes", "full_page_writes is off: a crash can damage the target", "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();"));
  const facts = postgresFacts(catalogue);
  if (!server.role.createInDatabase && !server.role.superuser && facts.schemas["dualrun"]?.create !== true) add(error("grant-create", server.database, "the role may not make the schema dualrun", `GRANT CREATE ON DATABASE ${quoteIdent(server.database)} TO ${me};`));
  if (!facts.temporary && !server.role.superuser) add(error("grant-temporary", server.database, "the role may not make temporary tables, through which batches are written", `GRANT TEMPORARY ON DATABASE ${quoteIdent(server.database)} TO ${me};`));
  if (!server.role.canUseOrigins) add(warning("origins", server.role.name, "the role may not use replication origins: the mirror's own writes cannot be told from foreign ones", originGrants(me).join(" ")));
  originsLeft(server, facts.origins, add);
  if (server.settings["wal_level"] !== "logical") add(warning("reverse-wal-level", "wal_level", "a reverse mirror will not be possible: wal_level is not logical", "ALTER SYSTEM SET wal_level = 'logical'; then restart the server"));
  if (!server.role.replication && !server.role.superuser) add(warning("reverse-role", server.role.name, "a reverse mirror will not be possible: the role may not replicate", `ALTER ROLE ${me} WITH REPLICATION;`));
  for (const [what, { used, max }] of [["max_replication_slots", server.slots], ["max_wal_senders", server.senders]] as const) {
    if (max - used < SLOTS_NEEDED) add(warning("reverse-room", what, `a reverse mirror will not be possible: ${used} of ${max} are in use`, `ALTER SYSTEM SET ${what} = ${max + SLOTS_NEEDED}; then restart the server`));
  }
}

/** Each session that writes has an origin of its own; the server keeps them, and has room for few. */
function originsLeft(server: ServerFacts, used: number, add: Add): void {
  const setting = server.versionNumber >= 180_000 ? "max_active_replication_origins" : "max_replication_slots";
  const max = Number(server.settings[setting]);
  if (!server.role.canUseOrigins || !(max - used < ORIGINS_NEEDED)) return;
  add(warning("origins-room", setting, `${used} of ${max} replication origins exist on this server, and the mirror takes up to ${ORIGINS_NEEDED}: unless they are its own, it can find none left`, `ALTER SYSTEM SET ${setting} = ${used + ORIGINS_NEEDED}; then restart the server, or drop what nobody needs by pg_replication_origin_drop`));
}

function forgetful(setting: string): Omit<Finding, "side"> {
  const what = "fsync is off: a crash of the target loses what it has confirmed";
  const mend = "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();";
  return process.env["DUALRUN_ALLOW_UNSAFE_TARGET"] === "1" ? warning(setting, setting, `${what} (allowed by DUALRUN_ALLOW_UNSAFE_TARGET)`, mend) : error(setting, setting, what, mend);
}

function parity(target: ServerFacts, source: ServerFacts, add: Add): void {
  if (target.encoding !== source.encoding && target.encoding !== "UTF8") add(error("encoding", null, `the source is ${source.encoding}, the target ${target.encoding}: not every character fits`, "make the target database with ENCODING 'UTF8'"));
  if (target.collation !== source.collation) add(warning("collation", null, `text sorts by ${source.collation} on the source and by ${target.collation} on the target`, "make the target database with the same locale, if order matters to its readers"));
  if (target.timeZone !== source.timeZone) add(warning("time-zone", null, `TimeZone is ${source.timeZone} on the source and ${target.timeZone} on the target`, `ALTER DATABASE ${quoteIdent(target.database)} SET TimeZone = '${source.timeZone}';`));
}

function targetTable(cls: RecordClass, target: Catalogue, source: Catalogue, add: Add): void {
  const facts = findTable(target, cls.target);
  const from = findTable(source, cls.source);
  if (facts === undefined || from === undefined) return;
  privileges(cls, facts, target, add);
  inherited(cls, cls.target, target, add);
  triggers(cls, facts, target.server, add);
  for (const key of facts.uniqueKeys) {
    if (!key.valid) add(error("invalid-index", cls.name, `index ${key.name} of ${tableKey(cls.target)} is not valid`, `REINDEX INDEX CONCURRENTLY ${quoteIdent(cls.target.schema)}.${quoteIdent(key.name)};`));
  }
  for (const column of cls.columns) {
    const to = facts.columns.find((one) => one.name === column.target);
    const origin = from.columns.find((one) => one.name === column.from);
    if (to !== undefined && origin !== undefined) columnFit(cls, origin, to, column.map !== null, target, source, add);
    if (to?.identity === "always" && !cls.key.includes(to.name)) {
      add(error("identity-always", cls.name, `column "${to.name}" is GENERATED ALWAYS and not part of the key: it cannot be updated`, `ALTER TABLE ${quoteTable(cls.target)} ALTER COLUMN ${quoteIdent(to.name)} SET GENERATED BY DEFAULT;`));
    }
  }
}

function privileges(cls: RecordClass, facts: TableFacts, { server }: Catalogue, add: Add): void {
  const missing = (["select", "insert", "update", "delete", "truncate"] as const).filter((privilege) => !facts.privileges.includes(privilege));
  if (missing.length === 0) return;
  const list = missing.join(", ").toUpperCase();
  add(error("grant-write", cls.name, `role ${server.role.name} lacks ${list} on ${tableKey(cls.target)}`, `GRANT ${list} ON ${quoteTable(cls.target)} TO ${quoteIdent(server.role.name)};`));
}

/** The mirror writes in replica role: what fires there would write a second time. */
function triggers(cls: RecordClass, facts: TableFacts, server: ServerFacts, add: Add): void {
  const name = quoteTable(cls.target);
  for (const trigger of facts.triggers) {
    if (trigger.mode === "A" || trigger.mode === "R") add(error("trigger-fires", cls.name, `trigger ${trigger.name} fires for the mirror's writes`, `ALTER TABLE ${name} DISABLE TRIGGER ${quoteIdent(trigger.name)};`));
  }
  if (server.role.canDisableTriggers) return;
  const fires = facts.triggers.some((trigger) => trigger.mode === "O");
  if (!fires && facts.foreignKeys.length === 0) return;
  const grant = server.versionNumber >= 150_000
    ? `GRANT SET ON PARAMETER session_replication_role TO ${quoteIdent(server.role.name)};`
    : "before PostgreSQL 15 only a superuser may set session_replication_role";
  add(error("replica-role", cls.name, `triggers or foreign keys of ${tableKey(cls.target)} would act on the mirror's writes, and the role may not set session_replication_role`,
    `${grant} On managed clouds use the administrator role that may (rds_superuser, cloudsqlsuperuser), or drop triggers and foreign keys until the cutover`));
}

function acrossEngines(from: ColumnFacts, to: ColumnFacts): Fit {
  const { fits, note } = commonFit(from.common, to.common);
  return fits === "refused" ? { fits: false, reason: note } : { fits: true, note };
}

function mendType(cls: RecordClass, from: ColumnFacts, to: ColumnFacts, source: Catalogue): string {
  const type = source.server.engine === "postgres" ? from.type : typeFor(from.common);
  if (type === null) return `\`${from.name}: { drop: true }\` in \`columns\``;
  return `ALTER TABLE ${quoteTable(cls.target)} ALTER COLUMN ${quoteIdent(to.name)} TYPE ${type};`;
}

function columnFit(cls: RecordClass, from: ColumnFacts, to: ColumnFacts, isMapped: boolean, target: Catalogue, source: Catalogue, add: Add): void {
  if (!isMapped) {
    const fit = source.server.engine === "postgres" ? typeFit(valueType(from, postgresFacts(source)), valueType(to, postgresFacts(target))) : acrossEngines(from, to);
    if (!fit.fits) add(error("type", cls.name, `column "${to.name}": ${from.type} does not fit ${to.type}: ${fit.reason}`, mendType(cls, from, to, source)));
    else if (fit.note !== null) add(warning("type", cls.name, `column "${to.name}": ${from.type} to ${to.type}: ${fit.note}`, "nothing, if that is meant"));
  }
  if (to.notNull && !from.notNull) add(warning("not-null", cls.name, `column "${to.name}" is NOT NULL on the target only: a NULL would halt the mirror`, `ALTER TABLE ${quoteTable(cls.target)} ALTER COLUMN ${quoteIdent(to.name)} DROP NOT NULL;`));
}
