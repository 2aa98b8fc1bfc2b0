/** What stands in the way of a mirror: every fault at once, each with the statement that mends it. */
import {
  findTable, tableKey,
  type Catalogue, type Finding, type RecordClass, type ServerFacts, type TableFacts, type UniqueKeyFacts,
} from "../../src/core/index.ts";
import { locksForCut, logPrivileges, OWN_DATABASE, OWN_PRIVILEGES } from "./grants.ts";
import { quoteAccount, quoteGrantedDatabase, quoteIdent, quoteTable } from "./identifiers.ts";
import { isOn, mysqlFacts } from "./inspect.ts";
import { holds } from "./privileges.ts";

const NAMES = { mysql: "MySQL", mariadb: "MariaDB" } as const;
const SUPPORTED = {
  mysql: { oldest: 80_000, newest: 99_999, words: "8.0 to 9" },
  mariadb: { oldest: 101_100, newest: 119_999, words: "10.11 to 11" },
} as const;

/** The log has to last at least as long as a weekend with the mirror stopped. */
const SHORTEST_LOG_SECONDS = 3 * 86_400;
/** The first MySQL that can carry out foreign keys where the log sees it. */
const LOGGED_CASCADES = 90_600;

type Add = (finding: Omit<Finding, "side">) => void;
type Engine = "mysql" | "mariadb";

/** Faults of the source. */
export function preflightSource(classes: readonly RecordClass[], catalogue: Catalogue): Finding[] {
  const findings: Finding[] = [];
  const add: Add = (finding) => findings.push({ ...finding, side: "source" });
  const { server } = catalogue;
  version(server, add);
  log(server, add);
  gtids(server, add);
  retention(server, add);
  durability(server, add);
  role(catalogue, add);
  if (server.inRecovery) add(error("in-recovery", "read_only", "the server is read-only: nothing can be marked there", "point source.url at the primary"));
  if (isOn(server.settings["lower_case_table_names"])) add(warning("table-names", "lower_case_table_names", "the server keeps the names of tables in lower case, or compares them so", "write the names of tables in lower case in the configuration"));
  for (const cls of classes) sourceTable(cls, catalogue, add);
  return findings;
}

const error = (check: string, subject: string | null, what: string, mend: string): Omit<Finding, "side"> => ({ severity: "error", check, subject, what, mend });
const warning = (check: string, subject: string | null, what: string, mend: string): Omit<Finding, "side"> => ({ severity: "warning", check, subject, what, mend });

const engineOf = ({ engine }: ServerFacts): Engine => (engine === "mariadb" ? "mariadb" : "mysql");

/** MariaDB forgets what SET GLOBAL has set when it restarts. */
function setting(server: ServerFacts, name: string, value: string): string {
  return engineOf(server) === "mysql" ? `SET PERSIST ${name} = ${value};` : `SET GLOBAL ${name} = ${value}; and ${name} = ${value.replaceAll("'", "")} in the server's configuration file`;
}

// ---------------------------------------------------------------- server

function version(server: ServerFacts, add: Add): void {
  const engine = engineOf(server);
  const { oldest, newest, words } = SUPPORTED[engine];
  if (server.versionNumber >= oldest && server.versionNumber <= newest) return;
  add(error("version", null, `${NAMES[engine]} ${server.version} is not among ${words}`, "use a supported version"));
}

const RECONNECT = "sessions that are open keep their own value: let the applications connect anew";

/** Settings that the row log must have; each can be set per session, so that open ones stay as they were. */
const WANTED = [
  { name: "binlog_format", check: "log-format", value: "ROW", why: "statements cannot be mirrored" },
  { name: "binlog_row_image", check: "log-image", value: "FULL", why: "rows are logged in part" },
  { name: "binlog_row_metadata", check: "log-metadata", value: "FULL", why: "the log does not name its columns, so that a changed table would be misread" },
] as const;

function log(server: ServerFacts, add: Add): void {
  const { settings } = server;
  if (!isOn(settings["log_bin"])) add(error("log-bin", "log_bin", "the server writes no binary log", "log_bin = binlog in the server's configuration file; then restart the server"));
  for (const { name, check, value, why } of WANTED) {
    const found = settings[name];
    if (found !== undefined && found.toUpperCase() !== value) add(error(check, name, `${name} is ${found}: ${why}`, `${setting(server, name, `'${value}'`)} (${RECONNECT})`));
  }
  if (isOn(settings["binlog_transaction_compression"])) add(error("log-compression", "binlog_transaction_compression", "whole transactions are compressed in the log, which cannot be read", `${setting(server, "binlog_transaction_compression", "OFF")} (${RECONNECT})`));
  const partial = settings["binlog_row_value_options"];
  if (partial !== undefined && partial !== "") add(error("log-partial-json", "binlog_row_value_options", `binlog_row_value_options is ${partial}: changes to JSON documents are logged in part`, `${setting(server, "binlog_row_value_options", "''")} (${RECONNECT})`));
  if (isOn(settings["wsrep_on"]) && !isOn(settings["log_slave_updates"])) add(error("cluster-log", "log_slave_updates", "what other nodes of the cluster write is not in this server's log", "log_slave_updates = ON in the server's configuration file; then restart the server"));
}

function gtids(server: ServerFacts, add: Add): void {
  const { settings } = server;
  if (engineOf(server) === "mariadb") {
    if (!isOn(settings["gtid_strict_mode"])) add(warning("gtid-strict", "gtid_strict_mode", "gtid_strict_mode is off: numbers of transactions can go back, and a position then says too much", setting(server, "gtid_strict_mode", "ON")));
    return;
  }
  if (settings["enforce_gtid_consistency"]?.toUpperCase() !== "ON") add(error("gtid-consistency", "enforce_gtid_consistency", `enforce_gtid_consistency is ${settings["enforce_gtid_consistency"]}`, "SET PERSIST enforce_gtid_consistency = WARN; when the server's log shows no warnings: SET PERSIST enforce_gtid_consistency = ON;"));
  if (settings["gtid_mode"]?.toUpperCase() !== "ON") add(error("gtid-mode", "gtid_mode", `gtid_mode is ${settings["gtid_mode"]}: a position could not be found again on another server`, gtidSteps(settings["gtid_mode"] ?? "OFF")));
}

const GTID_MODES = ["OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"];

/** The mode goes one step at a time. */
function gtidSteps(from: string): string {
  const left = GTID_MODES.slice(GTID_MODES.indexOf(from.toUpperCase()) + 1);
  return left.map((mode) => `SET PERSIST gtid_mode = ${mode};`).join(" ");
}

function retention(server: ServerFacts, add: Add): void {
  const seconds = keptSeconds(server);
  if (seconds < SHORTEST_LOG_SECONDS) add(warning("log-retention", "binlog_expire_logs_seconds", `the log is kept for ${Math.round(seconds / 3600)} hours: a mirror that stands still for longer has to be copied anew`, setting(server, "binlog_expire_logs_seconds", String(14 * 86_400))));
  const size = server.settings["max_binlog_total_size"] ?? "0";
  if (size !== "0") add(warning("log-space", "max_binlog_total_size", `the log is kept to ${size} bytes: beyond that its oldest part is removed, read or not`, setting(server, "max_binlog_total_size", "0")));
}

function keptSeconds({ settings }: ServerFacts): number {
  if (settings["binlog_expire_logs_auto_purge"] === "OFF") return Number.POSITIVE_INFINITY;
  const seconds = Number(settings["binlog_expire_logs_seconds"] ?? 0) || Number(settings["expire_logs_days"] ?? 0) * 86_400;
  return seconds === 0 ? Number.POSITIVE_INFINITY : seconds;
}

/** Otherwise a crash of the source can take from the log what the mirror has, or keep rows that the log has lost. */
function durability(server: ServerFacts, add: Add): void {
  for (const name of ["sync_binlog", "innodb_flush_log_at_trx_commit"]) {
    const found = server.settings[name];
    if (found !== undefined && found !== "1") add(warning("log-durability", name, `${name} is ${found}: after a crash of the source, its rows and its log can differ`, `${setting(server, name, "1")} A full comparison after a crash shows what is missing`));
  }
}

function role(catalogue: Catalogue, add: Add): void {
  const { server } = catalogue;
  const { grants } = mysqlFacts(catalogue);
  const me = quoteAccount(server.role.name);
  const lacking = logPrivileges(server.engine).filter((privilege) => !holds(grants, privilege));
  if (lacking.length > 0) add(error("grant-log", server.role.name, `role ${server.role.name} lacks ${lacking.join(", ")}`, `GRANT ${lacking.join(", ")} ON *.* TO ${me};`));
  const own = OWN_PRIVILEGES.filter((privilege) => !holds(grants, privilege, OWN_DATABASE));
  if (own.length > 0) add(error("grant-marks", server.role.name, `role ${server.role.name} lacks ${own.join(", ")} on the database ${OWN_DATABASE}, where marks are written into the log`, `GRANT ${own.join(", ")} ON ${quoteGrantedDatabase(OWN_DATABASE)}.* TO ${me};`));
}

// ---------------------------------------------------------------- tables

function sourceTable(cls: RecordClass, catalogue: Catalogue, add: Add): void {
  logged(cls, catalogue, add);
  const facts = findTable(catalogue, cls.source);
  if (facts === undefined) return;
  const { server } = catalogue;
  const name = tableKey(cls.source);
  const me = quoteAccount(server.role.name);
  kind(cls, facts, catalogue, add);
  if (!facts.privileges.includes("select")) add(error("grant-select", cls.name, `role ${server.role.name} may not read ${name}`, `GRANT SELECT ON ${quoteTable(cls.source)} TO ${me};`));
  if (locksForCut(server.engine) && !holds(mysqlFacts(catalogue).grants, "LOCK TABLES", cls.source.schema)) {
    add(error("grant-lock", cls.name, `role ${server.role.name} may not lock ${name}, which a comparison does for a moment`, `GRANT LOCK TABLES ON ${quoteGrantedDatabase(cls.source.schema)}.* TO ${me};`));
  }
  cascades(cls, facts, catalogue, add);
  columns(cls, facts, add);
  keys(cls, facts, add);
}

/** The filter is on databases, and holds for rows as it does for statements. */
function logged(cls: RecordClass, catalogue: Catalogue, add: Add): void {
  const filter = mysqlFacts(catalogue).logFilter;
  if (filter === null) return;
  const { schema } = cls.source;
  if (filter.only.length > 0 && !filter.only.includes(schema)) add(error("log-filter", cls.name, `the log holds changes of ${filter.only.join(", ")} only: those of ${schema} are missing`, `add binlog_do_db = ${schema} to the server's configuration file, or remove binlog_do_db; then restart the server`));
  if (filter.without.includes(schema)) add(error("log-filter", cls.name, `changes of ${schema} are left out of the log`, `remove binlog_ignore_db = ${schema} from the server's configuration file; then restart the server`));
}

function kind(cls: RecordClass, facts: TableFacts, catalogue: Catalogue, add: Add): void {
  const name = tableKey(cls.source);
  const own = mysqlFacts(catalogue).tables[name];
  if (facts.kind !== "table") {
    add(error("table-kind", cls.name, `${name} is a ${(own?.kind ?? facts.kind).toLowerCase()}: ${own?.kind === "SYSTEM VERSIONED" ? "the log carries its history too" : "it has no changes in the log of its own"}`, own?.kind === "SYSTEM VERSIONED" ? `ALTER TABLE ${quoteTable(cls.source)} DROP SYSTEM VERSIONING; (its history is lost)` : "mirror the tables that are under it"));
  } else if (own !== undefined && own.engine !== "InnoDB") {
    add(error("table-engine", cls.name, `${name} is a table of ${own.engine}: a snapshot does not hold it still`, `ALTER TABLE ${quoteTable(cls.source)} ENGINE = InnoDB;`));
  }
}

const CASCADING: ReadonlySet<string> = new Set(["cascade", "set null", "set default"]);

/** What a foreign key changes in the class's table is not in the log, wherever the parent is. */
function cascades(cls: RecordClass, facts: TableFacts, catalogue: Catalogue, add: Add): void {
  if (logsCascades(catalogue.server)) return;
  const onUpdate = mysqlFacts(catalogue).tables[tableKey(cls.source)]?.onUpdate ?? {};
  for (const key of facts.foreignKeys) {
    const actions = [["DELETE", key.onDelete], ["UPDATE", onUpdate[key.name] ?? "no action"]].filter(([, action]) => CASCADING.has(action!)).map(([event, action]) => `ON ${event} ${action!.toUpperCase()}`);
    if (actions.length === 0) continue;
    add(error("cascade", cls.name, `foreign key ${key.name} of ${tableKey(cls.source)} (${actions.join(", ")}) changes rows that the log does not show`,
      `ALTER TABLE ${quoteTable(cls.source)} DROP FOREIGN KEY ${quoteIdent(key.name)}; then add it again with ON DELETE RESTRICT ON UPDATE RESTRICT, and let the application change the rows`));
  }
}

function logsCascades(server: ServerFacts): boolean {
  return server.engine === "mysql" && server.versionNumber >= LOGGED_CASCADES && server.settings["innodb_native_foreign_keys"] === "OFF";
}

function columns(cls: RecordClass, facts: TableFacts, add: Add): void {
  const mapped = new Set(cls.columns.map((column) => column.from));
  for (const column of facts.columns) {
    if (!mapped.has(column.name) || column.common.kind !== "other") continue;
    add(error("column-type", cls.name, `column "${column.name}" is ${column.type}, which is not mirrored`, `\`${column.name}: { drop: true }\` in \`columns\``));
  }
}

function keys(cls: RecordClass, facts: TableFacts, add: Add): void {
  if (cls.key.length === 0) {
    add(warning("no-key", cls.name, `${tableKey(cls.source)} has neither a primary key nor a unique one that is NOT NULL: its rows are compared as a whole, and copied from the beginning after an interruption`, `ALTER TABLE ${quoteTable(cls.source)} ADD PRIMARY KEY (…);`));
  }
  for (const key of facts.uniqueKeys) {
    const loose = looseColumns(key, facts);
    if (loose.length === 0) continue;
    add(warning("key-collation", cls.name, `unique key ${key.name} takes different texts for the same (${loose.join(", ")}); an engine that compares bytes would let both stand side by side`, "nothing, if the target compares in the same way; otherwise give the target's column a collation that does"));
  }
}

/** Text columns of a key whose collation takes more than one sequence of bytes for the same. */
function looseColumns(key: UniqueKeyFacts, facts: TableFacts): string[] {
  const inKey = facts.columns.filter((column) => key.columns.includes(column.name) && column.common.kind === "text");
  return inKey.filter(({ collation }) => collation !== null && !collation.endsWith("_bin")).map(({ name, collation }) => `${name}: ${collation}`);
}
