/** The least that the source's role needs, as statements for an administrator. */
import type { Catalogue, RecordClass, ServerFacts } from "../../src/core/index.ts";
import { quoteAccount, quoteGrantedDatabase, quoteTable } from "./identifiers.ts";

/** On our own database, where marks are written into the log. */
export const OWN_DATABASE = "dualrun";
export const OWN_PRIVILEGES = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP"] as const;

/** For the log, and to ask where it ends. */
export function logPrivileges(engine: ServerFacts["engine"]): readonly string[] {
  return ["REPLICATION SLAVE", engine === "mariadb" ? "BINLOG MONITOR" : "REPLICATION CLIENT"];
}

/** MySQL's exact cut locks the mapped tables for a moment; MariaDB's needs no lock. */
export function locksForCut(engine: ServerFacts["engine"]): boolean {
  return engine === "mysql";
}

/** What `dualrun check` prints for a source. */
export function sourceGrants(classes: readonly RecordClass[], { server }: Catalogue): string[] {
  const role = quoteAccount(server.role.name);
  const databases = [...new Set(classes.map((cls) => cls.source.schema))];
  return [
    `GRANT ${logPrivileges(server.engine).join(", ")} ON *.* TO ${role};`,
    ...[...new Set(classes.map((cls) => quoteTable(cls.source)))].map((name) => `GRANT SELECT ON ${name} TO ${role};`),
    ...(locksForCut(server.engine) ? databases.map((name) => `GRANT LOCK TABLES ON ${quoteGrantedDatabase(name)}.* TO ${role};`) : []),
    `GRANT ${OWN_PRIVILEGES.join(", ")} ON ${quoteGrantedDatabase(OWN_DATABASE)}.* TO ${role};`,
  ];
}
