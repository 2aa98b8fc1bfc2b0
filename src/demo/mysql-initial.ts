/** The first statements of a new server: MariaDB's system tables, and the one user. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { DualrunError } from "../core/errors.ts";
import type { MysqlBinaries } from "./mysql-binaries.ts";

/** As MariaDB's packages name them, after `mysql_` before 11 and `mariadb_` since. */
const SYSTEM_TABLES = ["system_tables", "performance_tables", "system_tables_data", "sys_schema"];

/**
 * What MySQL takes as the init file of `--initialize-insecure`, and MariaDB as the input of `--bootstrap`: afterwards `user`,
 * from everywhere and with `password` (letters and digits), is the only one who can enter, and may do everything.
 * @throws DualrunError DR2001 when MariaDB's system tables are not among its files.
 */
export async function initialStatements(binaries: MysqlBinaries, user: string, password: string): Promise<string> {
  const account = [`CREATE USER ${user}@'%' IDENTIFIED BY '${password}';`, `GRANT ALL ON *.* TO ${user}@'%' WITH GRANT OPTION;`];
  if (binaries.engine === "mysql") return lines([...account, "DROP USER root@localhost;"]);
  const tables = await Promise.all(SYSTEM_TABLES.map((name) => systemTables(binaries, name)));
  const nobody = ["FLUSH PRIVILEGES;", "DELETE FROM mysql.global_priv WHERE User IN ('root', '');", "DELETE FROM mysql.proxies_priv;", "FLUSH PRIVILEGES;"];
  return lines(["CREATE DATABASE mysql;", "USE mysql;", "SET @auth_root_socket = NULL;", ...tables, ...nobody, ...account]);
}

function lines(statements: readonly string[]): string {
  return `${statements.join("\n")}\n`;
}

async function systemTables({ share, server }: MysqlBinaries, name: string): Promise<string> {
  const file = ["mariadb", "mysql"].map((prefix) => join(share ?? "/", `${prefix}_${name}.sql`)).find((path) => existsSync(path));
  if (file === undefined) throw new DualrunError("DR2001", "MariaDB's system tables are not there", { where: share ?? server, next: "Install MariaDB's server package as a whole." });
  return readFile(file, "utf8");
}
