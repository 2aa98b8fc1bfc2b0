/** The least that the two roles need, as statements for a superuser. */
import { findTable, tableKey, type Catalogue, type RecordClass, type Side } from "../../src/core/index.ts";
import { ORIGIN_FUNCTIONS } from "./inspect-sql.ts";
import { quoteIdent, quoteTable } from "./identifiers.ts";
import { postgresFacts } from "./inspect.ts";

export function sourceGrants(classes: readonly RecordClass[], { server }: Catalogue): string[] {
  const role = quoteIdent(server.role.name);
  return [
    `ALTER ROLE ${role} WITH REPLICATION;`,
    `GRANT CONNECT, CREATE, TEMPORARY ON DATABASE ${quoteIdent(server.database)} TO ${role};`,
    ...schemas(classes.map((cls) => cls.source.schema)).map((schema) => `GRANT USAGE ON SCHEMA ${schema} TO ${role};`),
    ...tables(classes.map((cls) => quoteTable(cls.source))).map((name) => `GRANT SELECT ON ${name} TO ${role};`),
    `-- only with source.readReplica: GRANT EXECUTE ON FUNCTION pg_catalog.pg_wal_replay_pause(), pg_catalog.pg_wal_replay_resume() TO ${role};`,
    "-- a publication may only hold tables that its maker owns: make it as their owner, or let the role be a member of the owner",
  ];
}

export function targetGrants(classes: readonly RecordClass[], { server }: Catalogue): string[] {
  const role = quoteIdent(server.role.name);
  return [
    `GRANT CONNECT, CREATE, TEMPORARY ON DATABASE ${quoteIdent(server.database)} TO ${role};`,
    ...schemas(classes.map((cls) => cls.target.schema)).map((schema) => `GRANT USAGE ON SCHEMA ${schema} TO ${role};`),
    ...tables(classes.map((cls) => quoteTable(cls.target))).map((name) => `GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ${name} TO ${role};`),
    server.versionNumber >= 150_000 ? `GRANT SET ON PARAMETER session_replication_role TO ${role};` : `ALTER ROLE ${role} WITH SUPERUSER; -- before PostgreSQL 15 session_replication_role cannot be granted`,
    ...originGrants(role),
  ];
}

/** For the freeze of the tables on one side, and for what numbers them. */
export function cutoverGrants(classes: readonly RecordClass[], catalogue: Catalogue, side: Side): string[] {
  const { server } = catalogue;
  const role = quoteIdent(server.role.name);
  const names = classes.map((cls) => cls[side]);
  const { leaves, memberOf } = postgresFacts(catalogue);
  const owners = new Set(names.flatMap((name) => [name, ...(leaves[tableKey(name)] ?? [])]).map((name) => findTable(catalogue, name)?.owner));
  return [
    `GRANT CREATE ON DATABASE ${quoteIdent(server.database)} TO ${role};`,
    ...[...owners].filter((owner) => owner !== undefined && !memberOf.includes(owner)).map((owner) => `GRANT ${quoteIdent(owner!)} TO ${role}; -- guards belong to a table's owner`),
    `GRANT pg_read_all_stats, pg_signal_backend TO ${role}; -- to name sessions and end them; those of superusers only a superuser ends`,
    ...(server.versionNumber >= 150_000 ? [`GRANT SET ON PARAMETER deadlock_timeout TO ${role}; -- so that vacuums which the server runs by itself give way at once`] : []),
    ...schemas(names.map(({ schema }) => schema)).map((schema) => `GRANT ${side === "source" ? "SELECT" : "SELECT, UPDATE"} ON ALL SEQUENCES IN SCHEMA ${schema} TO ${role};`),
  ];
}

/** For replication origins, by which the mirror's own writes are told from foreign ones. */
export function originGrants(role: string): string[] {
  return ORIGIN_FUNCTIONS.map((signature) => `GRANT EXECUTE ON FUNCTION pg_catalog.${signature.replace(/^pg_catalog\./, "")} TO ${role};`);
}

function schemas(names: readonly string[]): string[] {
  return [...new Set(names)].map(quoteIdent);
}

function tables(names: readonly string[]): string[] {
  return [...new Set(names)];
}
