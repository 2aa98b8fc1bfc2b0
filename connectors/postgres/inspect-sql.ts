/** The catalogue queries behind inspect.ts, for PostgreSQL 14 to 18, with search_path = pg_catalog. */

/** Functions that dualrun's sessions on a target call to mark their writes. */
export const ORIGIN_FUNCTIONS: readonly string[] = [
  "pg_catalog.pg_replication_origin_create(text)",
  "pg_catalog.pg_replication_origin_oid(text)",
  "pg_catalog.pg_replication_origin_session_setup(text)",
  "pg_catalog.pg_replication_origin_session_reset()",
  "pg_catalog.pg_replication_origin_session_is_setup()",
  "pg_catalog.pg_replication_origin_xact_setup(pg_lsn, timestamp with time zone)",
];

const USER_SCHEMA = `n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'dualrun')`;

/** Relations that could be mapped, or must be refused by name. */
const RELATIONS = `
  SELECT c.*, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND ${USER_SCHEMA}`;

/** Columns that exist in some versions only are read through to_jsonb. */
export const SERVER = `
  SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS "versionNumber",
    d.datname AS database, pg_encoding_to_char(d.encoding) AS encoding,
    to_jsonb(d) ->> 'datlocprovider' AS provider, d.datcollate AS collate, d.datctype AS ctype,
    coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale,
    r.rolname AS role, r.rolsuper AS superuser, r.rolbypassrls OR r.rolsuper AS "bypassRls",
    r.rolreplication OR r.rolsuper OR EXISTS (
      SELECT 1 FROM pg_roles m WHERE m.rolname = 'rds_replication' AND pg_has_role(r.oid, m.oid, 'USAGE')) AS replication,
    has_database_privilege(d.oid, 'CREATE') AS "createInDatabase",
    (SELECT coalesce(bool_and(coalesce(has_function_privilege(to_regprocedure(f), 'EXECUTE'), false)), false) FROM unnest($1::text[]) f) AS "canUseOrigins",
    (SELECT count(*)::int FROM pg_replication_slots) AS "slotsUsed",
    (SELECT count(*)::int FROM pg_stat_replication) AS "sendersUsed",
    (SELECT count(*) FROM pg_largeobject_metadata) AS "largeObjects",
    pg_is_in_recovery() AS "inRecovery",
    has_function_privilege('pg_control_system()', 'EXECUTE') AS "mayReadControl"
  FROM pg_database d JOIN pg_roles r ON r.rolname = current_user
  WHERE d.datname = current_database()`;

/** What the session itself has set hides the server's value: then the database's or the role's own setting, if there is one. */
export const SETTINGS = `
  SELECT s.name, CASE WHEN s.source IN ('client', 'session') AND s.name IN ('TimeZone', 'lc_monetary') THEN (
      SELECT split_part(c, '=', 2) FROM pg_db_role_setting rs CROSS JOIN LATERAL unnest(rs.setconfig) c
      WHERE lower(split_part(c, '=', 1)) = lower(s.name)
        AND rs.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        AND rs.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
      ORDER BY rs.setrole <> 0 AND rs.setdatabase <> 0 DESC, rs.setrole <> 0 DESC, rs.setdatabase <> 0 DESC LIMIT 1)
    ELSE s.setting END AS value
  FROM pg_settings s
  WHERE s.name = ANY ('{wal_level,fsync,full_page_writes,synchronous_commit,max_slot_wal_keep_size,wal_sender_timeout,max_wal_senders,
    max_replication_slots,max_active_replication_origins,max_prepared_transactions,TimeZone,lc_monetary,server_version_num,server_encoding,
    session_replication_role,statement_timeout,transaction_timeout,idle_in_transaction_session_timeout,idle_replication_slot_timeout,
    default_transaction_read_only,track_commit_timestamp,sync_replication_slots,row_security,standard_conforming_strings}'::text[])`;

/** Privileges are what the role can really do: without USAGE on the schema there are none. */
export const TABLES = `
  WITH rel AS (${RELATIONS}), size AS (
    SELECT oid, pg_relation_size(oid) AS heap, pg_total_relation_size(oid) AS total FROM rel WHERE relkind IN ('r', 'm')),
  part AS (
    SELECT rel.oid, t.relid AS leaf FROM rel CROSS JOIN LATERAL pg_partition_tree(rel.oid) t WHERE rel.relkind = 'p' AND t.isleaf
    UNION ALL SELECT oid, oid FROM rel WHERE relkind <> 'p'),
  volume AS (
    SELECT part.oid, sum(s.total) AS bytes, sum(CASE
      WHEN l.reltuples >= 0 AND l.relpages > 0 THEN l.reltuples::float8 * (s.heap / current_setting('block_size')::float8) / l.relpages
      ELSE s.heap / 100.0 END) AS rows
    FROM part JOIN size s ON s.oid = part.leaf JOIN pg_class l ON l.oid = part.leaf GROUP BY part.oid)
  SELECT c.oid::int8::float8 AS oid, c.nspname AS schema, c.relname AS name,
    CASE WHEN c.relkind = 'f' THEN 'foreign' WHEN c.relkind = 'v' THEN 'view' WHEN c.relkind = 'm' THEN 'other'
      WHEN c.relispartition THEN 'partition' WHEN c.relkind = 'p' THEN 'partitioned' ELSE 'table' END AS kind,
    CASE c.relpersistence WHEN 'u' THEN 'unlogged' WHEN 't' THEN 'temporary' ELSE 'permanent' END AS persistence,
    CASE c.relreplident WHEN 'f' THEN 'full' WHEN 'i' THEN 'index' WHEN 'n' THEN 'nothing' ELSE 'default' END AS identity,
    c.relrowsecurity AS "rowSecurity", c.relforcerowsecurity AS forced, pg_get_userbyid(c.relowner) AS owner,
    coalesce(v.rows, 0)::float8 AS rows, coalesce(v.bytes, 0)::text AS bytes,
    ARRAY(SELECT lower(p) FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'] ||
        CASE WHEN current_setting('server_version_num')::int >= 170000 THEN ARRAY['MAINTAIN'] ELSE '{}'::text[] END) p
      WHERE has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, p)) AS privileges
  FROM rel c LEFT JOIN volume v ON v.oid = c.oid
  ORDER BY c.nspname, c.relname`;

/** Down to what is under a domain, however many domains lie on each other. */
const DOMAINS = `
  domain_step (oid, base, typmod, required) AS (
    SELECT oid, typbasetype, typtypmod, typnotnull FROM pg_type WHERE typtype = 'd'
    UNION ALL SELECT s.oid, t.typbasetype, t.typtypmod, s.required OR t.typnotnull FROM domain_step s JOIN pg_type t ON t.oid = s.base AND t.typtype = 'd'),
  domain AS (SELECT s.* FROM domain_step s JOIN pg_type b ON b.oid = s.base AND b.typtype <> 'd')`;

const IS_ARRAY = (t: string): string => `(${t}.typelem <> 0 AND ${t}.typsubscript = 'array_subscript_handler'::regproc)`;

export const COLUMNS = `
  WITH RECURSIVE ${DOMAINS}, rel AS (${RELATIONS}),
  labels AS (SELECT enumtypid, array_agg(enumlabel::text ORDER BY enumsortorder) AS labels FROM pg_enum GROUP BY enumtypid)
  SELECT a.attrelid::int8::float8 AS relation, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, t.typname AS "typeName",
    CASE WHEN ${IS_ARRAY("t")} THEN 'array' ELSE
      CASE t.typtype WHEN 'b' THEN 'base' WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'c' THEN 'composite'
        WHEN 'r' THEN 'range' WHEN 'm' THEN 'multirange' ELSE 'other' END END AS "typeKind",
    n.nspname AS "typeSchema", b.typname AS "baseTypeName",
    a.attnotnull OR coalesce(d.required, false) AS "notNull",
    CASE a.attgenerated WHEN 's' THEN 'stored' WHEN 'v' THEN 'virtual' END AS generated,
    CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END AS identity,
    a.atthasdef AND a.attgenerated = '' AS "hasDefault",
    (SELECT c.collname::text FROM pg_collation c WHERE c.oid = a.attcollation AND c.collname <> 'default') AS collation,
    (SELECT labels FROM labels WHERE enumtypid IN (b.oid, CASE WHEN ${IS_ARRAY("b")} THEN b.typelem END)) AS "enumLabels"
  FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN domain d ON d.oid = t.oid
  JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN d.base WHEN ${IS_ARRAY("t")} THEN t.typelem ELSE t.oid END
  ORDER BY a.attrelid, a.attnum`;

export const UNIQUE_INDEXES = `
  WITH rel AS (${RELATIONS})
  SELECT i.indrelid::int8::float8 AS relation, x.relname AS name, k.columns, i.indisprimary AS primary,
    NOT i.indimmediate AS deferrable, i.indpred IS NOT NULL OR i.indexprs IS NOT NULL AS partial,
    i.indisvalid AND i.indisready AND i.indislive AS valid, k."allNotNull", i.indisreplident AS "replicaIdentity"
  FROM rel JOIN pg_index i ON i.indrelid = rel.oid AND i.indisunique AND NOT i.indisexclusion
  JOIN pg_class x ON x.oid = i.indexrelid
  CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(a.attname::text ORDER BY u.ord) FILTER (WHERE a.attname IS NOT NULL), '{}') AS columns,
      bool_and(coalesce(a.attnotnull, false)) AS "allNotNull"
    FROM unnest(i.indkey::int2[]) WITH ORDINALITY u(attnum, ord) LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
    WHERE u.ord <= i.indnkeyatts) k
  ORDER BY i.indrelid, i.indisprimary DESC, x.relname`;

export const CONSTRAINTS = `
  WITH rel AS (${RELATIONS})
  SELECT k.conrelid::int8::float8 AS relation, CASE k.contype WHEN 'f' THEN 'f' ELSE 'x' END AS kind, k.conname AS name,
    fn.nspname AS schema, f.relname AS table, k.condeferrable AS deferrable,
    CASE k.confdeltype WHEN 'a' THEN 'no action' WHEN 'r' THEN 'restrict' WHEN 'c' THEN 'cascade' WHEN 'n' THEN 'set null' WHEN 'd' THEN 'set default' ELSE '' END AS "onDelete"
  FROM rel JOIN pg_constraint k ON k.conrelid = rel.oid AND (k.contype IN ('f', 'x')
    OR k.contype IN ('p', 'u') AND EXISTS (SELECT 1 FROM pg_index i WHERE i.indexrelid = k.conindid AND i.indisexclusion))
  LEFT JOIN pg_class f ON f.oid = k.confrelid LEFT JOIN pg_namespace fn ON fn.oid = f.relnamespace
  WHERE k.contype <> 'f' OR k.conparentid = 0
  ORDER BY k.conrelid, k.conname`;

/** Without dualrun's own guards, which let the mirror through. */
export const TRIGGERS = `
  WITH rel AS (${RELATIONS})
  SELECT t.tgrelid::int8::float8 AS relation, t.tgname AS name, t.tgenabled::text AS mode
  FROM rel JOIN pg_trigger t ON t.tgrelid = rel.oid AND NOT t.tgisinternal
    AND NOT EXISTS (SELECT 1 FROM pg_proc f WHERE f.oid = t.tgfoid AND f.pronamespace = to_regnamespace('dualrun'))
  ORDER BY t.tgrelid, t.tgname`;

export const ROLES = `
  SELECT ARRAY(SELECT rolname::text FROM pg_roles WHERE pg_has_role(current_user, oid, 'USAGE') ORDER BY 1) AS "memberOf",
    ARRAY(SELECT rolname::text FROM pg_roles WHERE rolsuper ORDER BY 1) AS superusers,
    has_database_privilege(current_database(), 'TEMP') AS temporary,
    (SELECT count(*)::int FROM pg_replication_slots WHERE database = current_database() AND slot_name ~ '^dualrun') AS "ownSlots",
    (SELECT count(*)::int FROM pg_replication_origin) AS origins`;

export const SCHEMAS = `
  SELECT n.nspname AS name, has_schema_privilege(n.oid, 'USAGE') AS usage, has_schema_privilege(n.oid, 'CREATE') AS create
  FROM pg_namespace n WHERE n.nspname = 'dualrun' OR ${USER_SCHEMA}`;

export const PARTITIONS = `
  WITH rel AS (${RELATIONS})
  SELECT r.nspname AS "rootSchema", r.relname AS "rootName", n.nspname AS schema, l.relname AS name
  FROM rel r CROSS JOIN LATERAL pg_partition_tree(r.oid) t JOIN pg_class l ON l.oid = t.relid JOIN pg_namespace n ON n.oid = l.relnamespace
  WHERE r.relkind = 'p' AND t.isleaf ORDER BY 1, 2, 3, 4`;

/** Tables that inherit without being partitions. */
export const HEIRS = `
  SELECT pn.nspname AS "parentSchema", p.relname AS "parentName", n.nspname AS schema, c.relname AS name
  FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent AND p.relkind <> 'p' JOIN pg_namespace pn ON pn.oid = p.relnamespace
  JOIN pg_class c ON c.oid = h.inhrelid AND c.relkind IN ('r', 'f') JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2, 3, 4`;

export const TYPES = `
  WITH RECURSIVE ${DOMAINS}
  SELECT n.nspname || '.' || t.typname AS name, CASE t.typtype
    WHEN 'd' THEN (SELECT format_type(d.base, d.typmod) FROM domain d WHERE d.oid = t.oid)
    WHEN 'c' THEN (SELECT coalesce(string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum), '')
      FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
    ELSE (SELECT format_type(r.rngsubtype, NULL) FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)) END AS definition
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
  WHERE t.typtype IN ('d', 'c', 'r', 'm') AND ${USER_SCHEMA}`;

export const PUBLICATIONS = `
  SELECT p.pubname AS name, pg_get_userbyid(p.pubowner) AS owner, p.puballtables AS "allTables",
    ARRAY(SELECT t.schemaname || '.' || t.tablename FROM pg_publication_tables t WHERE t.pubname = p.pubname ORDER BY 1) AS tables
  FROM pg_publication p`;
