/** Databases and accounts on shared servers of MySQL and MariaDB, for one test each. */
import { randomBytes } from "node:crypto";
import { onTestFinished, type TestContext } from "vitest";

import type { Endpoint } from "../../src/core/index.ts";
import type { MysqlFlavour } from "../../src/demo/mysql-binaries.ts";
import { mysqlRows, sharedMysql, type TestMysql } from "./mysql.ts";
import { orSkip, type TestDatabase } from "./servers.ts";

/** What this machine can have. */
export const FLAVOURS = ["mysql-9.7", "mariadb-10.11", "mariadb-11.8"] as const satisfies readonly MysqlFlavour[];
/** Of every connection in tests. */
export const APPLICATION = { application: "dualrun-test" };

/** The address without encryption. */
export const plain = (url: string): Endpoint => ({ url, tls: { mode: "disable" } });

/** Shared by the tests of one file; the test may stop it if it starts it again. */
export function server(context: TestContext, flavour: MysqlFlavour): Promise<TestMysql> {
  return orSkip(context, sharedMysql({ flavour, controllable: true, durable: true }));
}

/** An empty database that goes with the test. */
export async function database(context: TestContext, flavour: MysqlFlavour): Promise<TestDatabase & { server: TestMysql }> {
  const own = await server(context, flavour);
  const made = await own.createDatabase("inspect");
  onTestFinished(async () => made.drop());
  return { ...made, server: own };
}

/** Each on a connection of its own. */
export async function run(url: string, ...statements: readonly string[]): Promise<void> {
  for (const statement of statements) await mysqlRows(url, statement);
}

/** The address of somebody else. */
export function withUser(url: string, user: string, password: string): string {
  const address = new URL(url);
  address.username = user;
  address.password = password;
  return address.href;
}

/** An account with a password and no privileges; its address and its name for GRANT. */
export async function account({ server: own, url }: { server: TestMysql; url: string }): Promise<{ url: string; grantee: string }> {
  const name = `u${randomBytes(5).toString("hex")}`;
  const password = randomBytes(8).toString("hex");
  await run(own.url, `CREATE USER '${name}'@'%' IDENTIFIED BY '${password}'`);
  onTestFinished(async () => run(own.url, `DROP USER '${name}'@'%'`));
  return { url: withUser(url, name, password), grantee: `\`${name}\`@\`%\`` };
}
