/** Concurrent writers on MySQL or MariaDB whose tables lie in PostgreSQL too, and a dump of both sides that owes nothing to the product. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "mariadb";
import type pg from "pg";
import { connectMysql } from "./mysql.ts";

/** Statements for the source; `;` at a line's end separates them. */
export const WORKLOAD_SOURCE = `CREATE TABLE accounts (id bigint PRIMARY KEY AUTO_INCREMENT, balance decimal(14,2) NOT NULL, note varchar(60));
CREATE TABLE audit_log (id bigint PRIMARY KEY AUTO_INCREMENT, what varchar(60) NOT NULL, at timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6));
CREATE TABLE equal_rows (a int, b varchar(20));
CREATE TABLE documents (id int PRIMARY KEY, version int NOT NULL, body mediumtext);
CREATE TABLE pairs (region varchar(10) CHARACTER SET ascii COLLATE ascii_bin, code int, label varchar(40), PRIMARY KEY (region, code));
INSERT INTO accounts (balance, note) SELECT n, CONCAT('made ', n) FROM (WITH RECURSIVE s AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT n FROM s) AS t;
INSERT INTO accounts (balance, note) SELECT balance, note FROM accounts;
INSERT INTO accounts (balance, note) SELECT balance, note FROM accounts;
INSERT INTO audit_log (what) SELECT note FROM accounts;
INSERT INTO equal_rows SELECT id MOD 5, 'same' FROM accounts;
INSERT INTO documents SELECT id, 0, REPEAT(SHA2(id, 256), 100) FROM accounts WHERE id <= 60;
INSERT INTO pairs SELECT ELT(1 + id MOD 4, 'a', 'B', 'c ', ''), id, note FROM accounts WHERE id <= 400;
`;

export const WORKLOAD_TARGET = `
  CREATE TABLE accounts (id bigint PRIMARY KEY, balance numeric(14,2) NOT NULL, note text);
  CREATE TABLE audit_log (id bigint PRIMARY KEY, what text NOT NULL, at timestamptz NOT NULL);
  CREATE TABLE equal_rows (a integer, b text);
  CREATE TABLE documents (id integer PRIMARY KEY, version integer NOT NULL, body text);
  CREATE TABLE pairs (region text, code integer, label text, PRIMARY KEY (region, code))`;

/** The same query on either engine gives the same rows, as text. */
const DUMPS = {
  accounts: ["CAST(id AS CHAR(20))", "CAST(balance AS CHAR(20))", "note"],
  audit_log: ["CAST(id AS CHAR(20))", "what"],
  equal_rows: ["CAST(a AS CHAR(20))", "b"],
  documents: ["CAST(id AS CHAR(20))", "CAST(version AS CHAR(20))", "body"],
  pairs: ["region", "CAST(code AS CHAR(20))", "label"],
} as const;

export const WORKLOAD_TABLES = Object.keys(DUMPS) as readonly (keyof typeof DUMPS)[];

/** Small, and the same for the same seed. */
export function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Tables that differ, each with the number of rows on both sides and the first difference. */
export async function differences(source: Connection, target: pg.Client): Promise<readonly string[]> {
  const found: string[] = [];
  for (const table of WORKLOAD_TABLES) {
    const [here, there] = [await sourceRows(source, table), await targetRows(target, table)];
    const first = here.findIndex((row, i) => row !== there[i]);
    if (here.length !== there.length || first >= 0) found.push(`${table}: ${here.length} rows here, ${there.length} there; first ${here[first]?.slice(0, 200)} against ${there[first]?.slice(0, 200)}`);
  }
  return found;
}

async function sourceRows(source: Connection, table: keyof typeof DUMPS): Promise<string[]> {
  const rows = await source.query<unknown[][]>({ sql: `SELECT ${DUMPS[table].join(", ")} FROM ${table}`, rowsAsArray: true });
  return rows.map((row) => JSON.stringify(row)).sort();
}

async function targetRows(target: pg.Client, table: keyof typeof DUMPS): Promise<string[]> {
  const columns = DUMPS[table].map((column) => column.replace("CHAR(20)", "text"));
  const { rows } = await target.query<unknown[]>({ text: `SELECT ${columns.join(", ")} FROM ${table}`, rowMode: "array" });
  return rows.map((row) => JSON.stringify(row)).sort();
}

/** Rows of the append-only log that were inserted more than once by whoever wrote to the target since {@link countInserts}. */
export async function insertedTwice(target: pg.Client): Promise<readonly unknown[]> {
  return (await target.query("SELECT id, count(*)::integer AS times FROM public.audit_inserts GROUP BY id HAVING count(*) > 1")).rows;
}

/** From now on every insert into the append-only log is counted. */
export async function countInserts(target: pg.Client): Promise<void> {
  await target.query(`
    CREATE TABLE public.audit_inserts (id bigint);
    CREATE FUNCTION public.count_audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit_inserts VALUES (NEW.id); RETURN NULL; END $$;
    CREATE TRIGGER count_audit AFTER INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION public.count_audit();
    ALTER TABLE audit_log ENABLE ALWAYS TRIGGER count_audit`);
}

type Random = (below: number) => number;

const TRANSACTIONS: readonly ((random: Random) => readonly string[])[] = [
  (r) => [`UPDATE accounts SET balance = balance - 1.01 WHERE id = ${1 + r(900)}`, `UPDATE accounts SET balance = balance + 1.01 WHERE id = ${1 + r(900)}`, "INSERT INTO audit_log (what) VALUES ('moved')"],
  (r) => [`INSERT INTO accounts (balance, note) VALUES (${r(1000)}, 'new'), (${r(1000)}, NULL), (${r(1000)}, 'Zoë 漢字')`, "INSERT INTO audit_log (what) VALUES ('opened'), ('opened')"],
  (r) => [`DELETE FROM accounts WHERE id > 900 AND id MOD 7 = ${r(7)}`, "INSERT INTO audit_log (what) VALUES ('closed')"],
  (r) => [`INSERT INTO equal_rows VALUES (${r(5)}, 'same'), (${r(5)}, 'same'), (${r(5)}, NULL)`, `DELETE FROM equal_rows WHERE a = ${r(5)} LIMIT 3`, `UPDATE equal_rows SET b = 'at ${r(9)}' WHERE a = ${r(5)} LIMIT 1`],
  (r) => { const id = 1 + r(60); return [`UPDATE documents SET id = id + 1000, version = version + 1 WHERE id = ${id}`, `UPDATE documents SET id = id - 1000, version = version + 1 WHERE id = ${1000 + 1 + r(60)}`]; },
  (r) => [`UPDATE documents SET version = version + 1 WHERE id MOD 10 = ${r(10)}`],
  (r) => { const code = 1 + r(400); return [`UPDATE pairs SET code = code + 10000 WHERE code = ${code}`, `UPDATE pairs SET code = code - 10000, label = 'back' WHERE code = ${10_000 + 1 + r(400)}`]; },
  (r) => [`INSERT INTO audit_log (what) VALUES ('before')`, "SAVEPOINT s", "INSERT INTO audit_log (what) VALUES ('not to be seen')", `DELETE FROM accounts WHERE id = ${1 + r(900)}`, "ROLLBACK TO SAVEPOINT s", "INSERT INTO audit_log (what) VALUES ('after')"],
  (r) => [`UPDATE accounts SET note = 'many ${r(99)}' WHERE id BETWEEN ${r(400)} AND ${400 + r(500)}`, `REPLACE INTO pairs VALUES ('a', ${1 + r(400)}, 'replaced')`],
  (r) => [`INSERT INTO pairs VALUES ('B', ${1 + r(400)}, 'once') ON DUPLICATE KEY UPDATE label = CONCAT('again ', ${r(1000)})`, `DELETE FROM pairs WHERE region = 'c ' AND code = ${1 + r(400)}`],
];

/** Errors after which a writer begins a new transaction: deadlocks, keys that are taken, servers that went away. */
const WRITERS_PAUSE_MS = 4;

export interface Writers {
  /** Ends them, and counts the transactions that were committed. */
  stop(): Promise<number>;
}

/** Write until they are stopped, reconnecting when the server goes away. */
export function startWriters(url: string, count: number, seed: number): Writers {
  const ending = new AbortController();
  const work = Array.from({ length: count }, (_, i) => write(url, randomFrom(seed * 31 + i), ending.signal));
  return {
    async stop() {
      ending.abort();
      return (await Promise.all(work)).reduce((sum, committed) => sum + committed, 0);
    },
  };
}

async function write(url: string, random: Random, signal: AbortSignal): Promise<number> {
  let committed = 0;
  while (!signal.aborted) {
    const connection = await connectMysql(url).catch(() => null);
    if (connection === null) {
      await sleep(100);
      continue;
    }
    connection.on("error", () => undefined); // it shows at the next statement
    try {
      for (; !signal.aborted; await sleep(WRITERS_PAUSE_MS)) if (await transact(connection, random)) committed += 1;
    } catch {
      await sleep(50); // the server is away: that is what these tests are about
    } finally {
      await connection.end().catch(() => undefined);
    }
  }
  return committed;
}

/** False when it was rolled back, on purpose or because another writer was in the way. */
async function transact(connection: Connection, random: Random): Promise<boolean> {
  const statements = TRANSACTIONS[random(TRANSACTIONS.length)]!(random);
  const isGivenUp = random(12) === 0;
  await connection.query("START TRANSACTION");
  try {
    for (const statement of statements) await connection.query(statement);
    await connection.query(isGivenUp ? "ROLLBACK" : "COMMIT");
    return !isGivenUp;
  } catch (error) {
    if (![1205, 1213, 1062, 1020].includes((error as { errno?: number }).errno ?? 0)) throw error;
    await connection.query("ROLLBACK");
    return false;
  }
}
