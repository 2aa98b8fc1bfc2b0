/** Connections to MySQL and MariaDB: what they hand out, how they fail, and what positions their servers stand at. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";

import { certificateExpiry, connect, connectPool, errorNumber, isTransient, query, withConnection } from "../../connectors/mysql/connection.ts";
import { canonicalPosition, mysqlPositions } from "../../connectors/mysql/positions.ts";
import type { Endpoint, Position } from "../../src/core/index.ts";
import { mysqlRows, mysqlValue } from "../support/mysql.ts";
import { APPLICATION, database, FLAVOURS, plain, run, server, withUser } from "../support/mysql-databases.ts";

vi.setConfig({ testTimeout: 180_000 });

for (const flavour of FLAVOURS) {
  const engine = flavour.startsWith("mysql") ? "mysql" : "mariadb";

  describe(`connections to ${flavour}`, () => {
    test("hand out the engine's own text, whatever the type", async (context) => {
      const { url } = await database(context, flavour);
      await run(url, "SET GLOBAL sql_mode = ''",
        "CREATE TABLE v (b bigint unsigned, d decimal(65,30), f float, g double, da date, dt datetime(6), ts timestamp(6) NULL, ti time(6), y year, bi bit(10), bl blob, bn binary(4), e enum('a','b'), s set('x','y'), j json, c char(5), t text)");
      const connection = await connect(plain(url), APPLICATION);
      try {
        await connection.query("INSERT INTO v VALUES (18446744073709551615, 12345678901234567890123456789012345.123456789012345678901234567890, 0.1, 0.1, '1000-01-01', '9999-12-31 23:59:59.999999', '2026-03-29 02:30:00.123456', '-838:59:58.000001', 1901, b'1000000001', x'00ff', 'ab', 'b', 'x,y', '{\"a\":1}', 'ab', '😀''\\n')");
        const [row] = await query(connection, "SELECT * FROM v");
        expect(row).toMatchObject({
          b: "18446744073709551615", d: "12345678901234567890123456789012345.123456789012345678901234567890", f: "0.1", g: "0.1", da: "1000-01-01",
          dt: "9999-12-31 23:59:59.999999", ts: "2026-03-29 02:30:00.123456", ti: "-838:59:58.000001", y: "1901", bi: Buffer.from([2, 1]), bl: Buffer.from([0, 255]),
          bn: Buffer.from("ab\0\0"), e: "b", s: "x,y", c: "ab", t: "😀'\\n",
        });
        expect(String(row?.["j"]).replace(" ", "")).toBe('{"a":1}');
        expect(await query(connection, "SELECT ? AS one, ? AS two, ? AS three", ["it's \\", Buffer.from([0, 39, 255]), null])).toEqual([{ one: "it's \\", two: Buffer.from([0, 39, 255]), three: null }]);
      } finally {
        await connection.end();
      }
    });

    test("have the same session, however the server is set", async (context) => {
      const { url, server: own } = await database(context, flavour);
      const hostile = { time_zone: "'+05:00'", sql_mode: engine === "mysql" ? "'ANSI_QUOTES,PAD_CHAR_TO_FULL_LENGTH'" : "'ORACLE,PAD_CHAR_TO_FULL_LENGTH'", sql_auto_is_null: "1", group_concat_max_len: "4", sql_select_limit: "1", wait_timeout: "1", transaction_isolation: "'READ-UNCOMMITTED'" };
      const names = Object.keys(hostile).map((name) => (engine === "mariadb" && name === "transaction_isolation" && flavour === "mariadb-10.11" ? "tx_isolation" : name));
      const before = Object.fromEntries((await mysqlRows(own.url, `SHOW GLOBAL VARIABLES WHERE Variable_name IN (${names.map((name) => `'${name}'`).join(",")})`)).map((row) => Object.values(row).map(String) as [string, string]));
      onTestFinished(async () => run(own.url, ...Object.entries(before).map(([name, value]) => `SET GLOBAL ${name} = ${/^\d+$/.test(value) ? value : value === "ON" || value === "OFF" ? value : `'${value}'`}`)));
      await run(own.url, ...Object.entries(hostile).map(([name, value]) => `SET GLOBAL ${engine === "mariadb" && flavour === "mariadb-10.11" && name === "transaction_isolation" ? "tx_isolation" : name} = ${value}`));
      const connection = await connect(plain(url), { ...APPLICATION, readOnly: true, statementTimeout: 1500 });
      const pool = await connectPool(plain(url), { ...APPLICATION, readOnly: true, statementTimeout: 1500 });
      try {
        for (const session of [connection, pool]) {
          await query(session, "DO SLEEP(0)");
          const [row] = await query(session, `SELECT @@time_zone AS zone, @@sql_mode AS mode, @@sql_auto_is_null AS nulls, @@group_concat_max_len AS longest, @@wait_timeout AS waits,
            @@collation_connection AS collation, ${flavour === "mariadb-10.11" ? "@@tx_isolation" : "@@transaction_isolation"} AS isolation, ${engine === "mysql" ? "@@max_execution_time" : "@@max_statement_time"} AS timeout`);
          expect(row).toEqual({
            zone: "+00:00", mode: expect.not.stringMatching(/PAD|ANSI|ORACLE/), nulls: "0", longest: "1073741824", waits: "28800", collation: "utf8mb4_bin", isolation: "REPEATABLE-READ",
            timeout: engine === "mysql" ? "1500" : "1.500000",
          });
          expect(await query(session, "SELECT 1 AS n UNION ALL SELECT 2")).toHaveLength(2);
          await expect(session.query("CREATE TABLE no (n int)").then(() => session.query("INSERT INTO no VALUES (1)"))).rejects.toSatisfy((error) => errorNumber(error) === 1792);
        }
      } finally {
        await connection.end();
        await pool.end();
      }
    });

    test("end a statement in time, and what can be tried again is known", async (context) => {
      const { url } = await database(context, flavour);
      await run(url, "CREATE TABLE t (id int PRIMARY KEY) ENGINE=InnoDB", "INSERT INTO t VALUES (1)");
      const first = await connect(plain(url), { ...APPLICATION, statementTimeout: 300 });
      const second = await connect(plain(url), { ...APPLICATION, settings: { innodb_lock_wait_timeout: 1 } });
      const fails = async (work: Promise<unknown>): Promise<unknown> => work.then(() => null, (error: unknown) => error);
      const slow = await fails(first.query("SELECT count(*) FROM information_schema.columns a, information_schema.columns b, information_schema.columns c"));
      await first.query("BEGIN");
      await first.query("UPDATE t SET id = 1 WHERE id = 1");
      await first.query("SELECT * FROM t WHERE id = 1 FOR UPDATE");
      const locked = await fails(second.query("DELETE FROM t WHERE id = 1"));
      const doubled = await fails(second.query("INSERT INTO t VALUES ('x')"));
      const wrong = await fails(second.query("SELECT nonsense"));
      await second.query(`KILL ${first.threadId}`);
      const killed = await fails(first.query("SELECT 1"));
      await second.end();
      expect([slow, locked, killed].map((error) => [error !== null, isTransient(error)])).toEqual([[true, true], [true, true], [true, true]]);
      expect([doubled, wrong].map((error) => [error !== null, isTransient(error)])).toEqual([[true, false], [true, false]]);
    });

    test("that cannot be had are DR2001 without credentials", async (context) => {
      const own = await server(context, flavour);
      const closed = new URL(own.url);
      closed.port = "1";
      for (const url of [closed.href, withUser(own.url, "nobody", "swordfish")]) {
        const error: unknown = await connect(plain(url), APPLICATION).catch((caught: unknown) => caught);
        expect(error).toMatchObject({ code: "DR2001" });
        expect(String((error as Error).message)).not.toMatch(/swordfish|[0-9a-f]{24}/);
      }
    });

    test("are used one by one, and again after a failure", async (context) => {
      const { url } = await database(context, flavour);
      const pool = await connectPool(plain(url), APPLICATION);
      await expect(withConnection(pool, async (connection) => connection.query("SELECT nonsense"))).rejects.toThrow(/nonsense/);
      expect(await Promise.all(Array.from({ length: 6 }, (_, n) => withConnection(pool, (connection) => query(connection, "SELECT ? AS n", [String(n)]))))).toEqual(Array.from({ length: 6 }, (_, n) => [{ n: String(n) }]));
      await pool.end();
    });

    test("outlive a restart of the server, which is a failure that passes", async (context) => {
      const own = await server(context, flavour);
      const pool = await connectPool(plain(own.url), APPLICATION);
      const connection = await connect(plain(own.url), APPLICATION);
      await own.process?.stop("immediate");
      const outcomes = await Promise.all([connection.query("SELECT 1"), pool.query("SELECT 1")].map((work) => work.then(() => null, (error: unknown) => error)));
      expect(outcomes.map((error) => [error !== null, isTransient(error)])).toEqual([[true, true], [true, true]]);
      await own.process?.start();
      await vi.waitFor(async () => expect(await query(pool, "SELECT @@time_zone AS zone")).toEqual([{ zone: "+00:00" }]), { timeout: 30_000, interval: 500 });
      await pool.end();
    });

    test("say whose they are", async (context) => {
      const own = await server(context, flavour);
      if (engine === "mariadb") context.skip("MariaDB has its performance schema switched off");
      const connection = await connect(plain(own.url), APPLICATION);
      expect(await query(connection, "SELECT ATTR_VALUE AS name FROM performance_schema.session_account_connect_attrs WHERE PROCESSLIST_ID = CONNECTION_ID() AND ATTR_NAME = 'program_name'")).toEqual([{ name: "dualrun-test" }]);
      await connection.end();
    });

    test("are encrypted as far as is asked for", async (context) => {
      const own = await server(context, flavour);
      const cipher = async (endpoint: Endpoint): Promise<unknown> => {
        const connection = await connect(endpoint, APPLICATION);
        const [row] = await query(connection, "SHOW SESSION STATUS LIKE 'Ssl_cipher'");
        await connection.end();
        return row?.["Value"];
      };
      expect(await cipher(plain(own.url))).toBe("");
      expect(await certificateExpiry(plain(own.url), APPLICATION)).toBeNull();
      if (flavour === "mariadb-10.11") {
        await expect(cipher({ url: own.url, tls: { mode: "require" } })).rejects.toMatchObject({ code: "DR2001", next: expect.stringMatching(/Switch TLS on/) });
        return;
      }
      expect(await cipher({ url: own.url, tls: { mode: "require" } })).toMatch(/AES|CHACHA/);
      expect((await certificateExpiry({ url: own.url, tls: { mode: "require" } }, APPLICATION))?.getTime()).toBeGreaterThan(Date.now());
      for (const mode of ["verify-ca", "verify-full"] as const) await expect(cipher({ url: own.url, tls: { mode } })).rejects.toMatchObject({ code: "DR2001" });
      if (engine === "mariadb") return; // makes a certificate for itself, without an authority
      const ca = await readFile(join(own.process?.dataDirectory ?? "", "ca.pem"), "utf8");
      expect(await cipher({ url: own.url, tls: { mode: "verify-ca", ca } })).toMatch(/AES|CHACHA/);
      await expect(cipher({ url: own.url, tls: { mode: "verify-full", ca } })).rejects.toMatchObject({ code: "DR2001", message: expect.stringMatching(/does not match|not in the cert/i) });
    });
  });
}

describe("positions", () => {
  for (const flavour of FLAVOURS) {
    test(`of ${flavour} grow with the log`, async (context) => {
      const { url, server: own } = await database(context, flavour);
      const isMysql = own.engine === "mysql";
      const read = async (): Promise<Position> => canonicalPosition(String(await mysqlValue(url, `SELECT @@GLOBAL.${isMysql ? "gtid_executed" : "gtid_binlog_pos"}`)));
      await run(url, "CREATE TABLE t (id int PRIMARY KEY)");
      const [before, same] = [await read(), await read()];
      const connection = await connect(plain(url), APPLICATION);
      await connection.query(isMysql ? "SET SESSION gtid_next = 'AUTOMATIC:dualrun'" : "SET SESSION gtid_domain_id = 7");
      await connection.query("INSERT INTO t VALUES (1)");
      await connection.end();
      const [marked] = [await read()];
      await run(url, "INSERT INTO t VALUES (2)");
      const after = await read();
      expect([mysqlPositions.relate(before, same), mysqlPositions.relate(before, marked), mysqlPositions.relate(after, marked), mysqlPositions.relate(before, after)]).toEqual(["equal", "before", "after", "before"]);
      expect(after).toMatch(isMysql ? /:dualrun:1/ : /,7-\d+-1$/);
    });
  }
});

describe("positions of mysql-9.7", () => {
  test("are ordered and printed as the server does", async (context) => {
    const { url } = await server(context, "mysql-9.7");
    const [u, v] = ["11111111-2222-3333-4444-555555555555", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"];
    const sets = ["", `${u}:1-5`, `${u}:1-3:5`, `${v}:tag:7,${u}:1-3:5:4:9-10:Tag:3:1-2`, `${u}:1-10:tag:1-9, ${v}:tag:1-8:other:1`, `${v}:1-2`, `${u}:tag:1-2`];
    for (const a of sets) {
      expect(canonicalPosition(a)).toBe(String(await mysqlValue(url, "SELECT GTID_SUBTRACT(?, '')", [a])).replaceAll("\n", ""));
      for (const b of sets) {
        const [within, holds] = [await mysqlValue(url, "SELECT GTID_SUBSET(?, ?)", [a, b]), await mysqlValue(url, "SELECT GTID_SUBSET(?, ?)", [b, a])];
        expect([a, b, mysqlPositions.relate(a as Position, b as Position)]).toEqual([a, b, within === 1 && holds === 1 ? "equal" : within === 1 ? "before" : holds === 1 ? "after" : "concurrent"]);
      }
    }
  });
});
