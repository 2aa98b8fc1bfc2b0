/** The catalogue queries behind inspect.ts, for MySQL 8.0 to 9 and MariaDB 10.11 to 11. */

/** Databases of the engines, and our own. */
const NOT_OURS = "('information_schema', 'performance_schema', 'mysql', 'sys', 'ndbinfo', 'dualrun')";

export const SERVER = `
  SELECT VERSION() AS version, DATABASE() AS \`database\`, CURRENT_USER() AS role,
    s.DEFAULT_CHARACTER_SET_NAME AS encoding, s.DEFAULT_COLLATION_NAME AS collation
  FROM (SELECT 1) AS one LEFT JOIN information_schema.SCHEMATA s ON s.SCHEMA_NAME = DATABASE()`;

/** Of either engine; what a server does not know is left out. */
const SETTING_NAMES = [
  "log_bin", "binlog_format", "binlog_row_image", "binlog_row_metadata", "binlog_row_value_options", "binlog_transaction_compression",
  "binlog_expire_logs_seconds", "binlog_expire_logs_auto_purge", "expire_logs_days", "max_binlog_total_size",
  "log_bin_compress", "binlog_encryption", "encrypt_binlog", "binlog_checksum", "sync_binlog", "innodb_flush_log_at_trx_commit",
  "gtid_mode", "enforce_gtid_consistency", "gtid_strict_mode", "gtid_domain_id", "server_id", "server_uuid", "server_uid",
  "log_slave_updates", "log_replica_updates", "read_only", "super_read_only", "innodb_native_foreign_keys", "wsrep_on",
  "lower_case_table_names", "time_zone", "system_time_zone", "character_set_server", "collation_server", "sql_mode",
  "max_allowed_packet", "wait_timeout", "local_infile", "partial_revokes", "event_scheduler", "explicit_defaults_for_timestamp",
];

export const SETTINGS = `SHOW GLOBAL VARIABLES WHERE Variable_name IN (${SETTING_NAMES.map((name) => `'${name}'`).join(", ")})`;

/** Row counts and sizes of now, and MySQL's generated primary keys, which the log carries. */
export const FRESH = [
  "SET SESSION information_schema_stats_expiry = 0",
  "SET SESSION show_gipk_in_create_table_and_information_schema = ON",
] as const;

export const TABLES = `
  SELECT TABLE_SCHEMA AS \`schema\`, TABLE_NAME AS name, TABLE_TYPE AS kind, ENGINE AS engine, TABLE_ROWS AS \`rows\`,
    coalesce(DATA_LENGTH, 0) + coalesce(INDEX_LENGTH, 0) AS bytes
  FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN ${NOT_OURS}
  ORDER BY TABLE_SCHEMA, TABLE_NAME`;

export const COLUMNS = `
  SELECT TABLE_SCHEMA AS \`schema\`, TABLE_NAME AS \`table\`, COLUMN_NAME AS name, COLUMN_TYPE AS type, DATA_TYPE AS typeName,
    IS_NULLABLE AS nullable, EXTRA AS extra, COLUMN_DEFAULT AS defaultValue, COLLATION_NAME AS collation,
    CHARACTER_MAXIMUM_LENGTH AS length
  FROM information_schema.COLUMNS WHERE TABLE_SCHEMA NOT IN ${NOT_OURS}
  ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION`;

/** Columns of some tables, with the columns of their primary keys: what is looked at again and again while the mirror runs. */
export function layoutColumns(tables: string): string {
  return `
  SELECT c.TABLE_SCHEMA AS \`schema\`, c.TABLE_NAME AS \`table\`, c.COLUMN_NAME AS name, c.COLUMN_TYPE AS type, c.COLLATION_NAME AS collation, c.EXTRA AS extra,
    k.SEQ_IN_INDEX AS place
  FROM information_schema.COLUMNS c LEFT JOIN information_schema.STATISTICS k
    ON k.TABLE_SCHEMA = c.TABLE_SCHEMA AND k.TABLE_NAME = c.TABLE_NAME AND k.COLUMN_NAME = c.COLUMN_NAME AND k.INDEX_NAME = 'PRIMARY'
  WHERE (c.TABLE_SCHEMA, c.TABLE_NAME) IN (${tables})
  ORDER BY c.TABLE_SCHEMA, c.TABLE_NAME, c.ORDINAL_POSITION`;
}

/** A column of an expression has no name. */
export function uniqueKeys(hidden: "IS_VISIBLE = 'NO'" | "IGNORED = 'YES'"): string {
  return `
  SELECT TABLE_SCHEMA AS \`schema\`, TABLE_NAME AS \`table\`, INDEX_NAME AS name, COLUMN_NAME AS \`column\`, SUB_PART AS prefix,
    NULLABLE AS nullable, ${hidden} AS hidden
  FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 AND TABLE_SCHEMA NOT IN ${NOT_OURS}
  ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX`;
}

/** Of MySQL: MariaDB shows them only to roles that may do more than read. */
export const FOREIGN_KEYS = `
  SELECT CONSTRAINT_SCHEMA AS \`schema\`, TABLE_NAME AS \`table\`, CONSTRAINT_NAME AS name, UNIQUE_CONSTRAINT_SCHEMA AS referencedSchema,
    REFERENCED_TABLE_NAME AS referencedTable, lower(DELETE_RULE) AS onDelete, lower(UPDATE_RULE) AS onUpdate
  FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA NOT IN ${NOT_OURS}
  ORDER BY CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME`;

export const TRIGGERS = `
  SELECT EVENT_OBJECT_SCHEMA AS \`schema\`, EVENT_OBJECT_TABLE AS \`table\`, TRIGGER_NAME AS name
  FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA NOT IN ${NOT_OURS}
  ORDER BY EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE, TRIGGER_NAME`;

export const GRANTS = "SHOW GRANTS";

/** Since MySQL 8.2 and MariaDB 10.5 under new names; the old ones are gone from MySQL 8.4. */
export const LOG_STATUS = { mysql: "SHOW BINARY LOG STATUS", mysqlBefore82: "SHOW MASTER STATUS", mariadb: "SHOW MASTER STATUS" } as const;
