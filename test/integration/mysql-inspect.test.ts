/** MySQL and MariaDB as sources: what the catalogue says, what preflight finds, and that its statements mend it. */
import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, onTestFinished, test, vi } from "vitest";

import { connect } from "../../connectors/mysql/connection.ts";
import { sourceGrants } from "../../connectors/mysql/grants.ts";
import { quoteIdent, quoteTable } from "../../connectors/mysql/identifiers.ts";
import { inspectEndpoint, mysqlFacts, versionNumberOf, type MysqlCatalogue } from "../../connectors/mysql/inspect.ts";
import { preflightSource } from "../../connectors/mysql/preflight.ts";
import { holds } from "../../connectors/mysql/privileges.ts";
import { findTable, type CommonType, type Finding, type RecordClass, type TableFacts } from "../../src/core/index.ts";
import { mysqlRows, mysqlValue, requireMysql } from "../support/mysql.ts";
import { account, APPLICATION, database, FLAVOURS, plain, run, server } from "../support/mysql-databases.ts";

vi.setConfig({ testTimeout: 180_000 });

const inspect = (url: string): Promise<MysqlCatalogue> => inspectEndpoint(plain(url), "dualrun-test");

function found(catalogue: MysqlCatalogue, schema: string, name: string): TableFacts {
  const facts = findTable(catalogue, { schema, name });
  if (facts === undefined) throw new Error(`${schema}.${name} is not in the catalogue`);
  return facts;
}

/** A class that takes every column of a table. */
function classOf({ table, columns, uniqueKeys }: TableFacts): RecordClass {
  const key = uniqueKeys.find((one) => !one.partial && one.allNotNull)?.columns ?? [];
  const mapped = columns.map(({ name }) => ({ target: name, from: name, map: null, constant: null }));
  return { name: table.name, source: table, target: table, kind: "record", columns: mapped, key, where: null, fullBeforeImage: true, money: [], occurredAt: null, occurredAtZone: null, sensitive: [] };
}

/** Findings for all tables of a database, or for those that are named. */
function findings(catalogue: MysqlCatalogue, schema: string, ...names: readonly string[]): Finding[] {
  const tables = catalogue.tables.filter(({ table }) => table.schema === schema && (names.length === 0 || names.includes(table.name)));
  return preflightSource(tables.map(classOf), catalogue);
}

const named = (all: readonly Finding[], check: string): Finding[] => all.filter((finding) => finding.check === check);
const errors = (all: readonly Finding[]): string[] => all.filter(({ severity }) => severity === "error").map(({ check, what }) => `${check}: ${what}`);

/** Tables of which rows were logged; a table can be announced without any. */
function rowEvents(events: readonly Readonly<Record<string, unknown>>[]): string[] {
  const names = new Map(events.flatMap(({ Info: info }) => [/table_id: (\d+) \(([^)]*)\)/.exec(String(info))].flatMap((match) => (match === null ? [] : [[match[1]!, match[2]!] as const]))));
  return events.filter(({ Event_type: type }) => /rows/i.test(String(type)) && !/annotate/i.test(String(type))).map(({ Info: info }) => names.get(/table_id: (\d+)/.exec(String(info))?.[1] ?? "") ?? "");
}

for (const flavour of FLAVOURS) {
  const engine = flavour.startsWith("mysql") ? "mysql" : "mariadb";

  describe(`the catalogue of ${flavour}`, () => {
    test("knows every type in common words", async (context) => {
      const { url, name } = await database(context, flavour);
      const types = { ...TYPES, ...(engine === "mysql" ? MYSQL_TYPES : MARIADB_TYPES) };
      await run(url, `CREATE TABLE types (${Object.keys(types).map((type, at) => `c${at} ${type}`).join(", ")}) CHARACTER SET utf8mb4`);
      const facts = found(await inspect(url), name, "types");
      expect(Object.fromEntries(facts.columns.map((column, at) => [Object.keys(types)[at], column.common]))).toEqual(types);
      expect(facts.columns.map(({ typeSchema }) => typeSchema)).toEqual(facts.columns.map(() => "mysql"));
    });

    test("knows columns, keys, references, triggers", async (context) => {
      const { url, name } = await database(context, flavour);
      const hidden = engine === "mysql" ? "INVISIBLE" : "IGNORED";
      await run(url,
        "CREATE TABLE parent (a int, b int, PRIMARY KEY (a, b))",
        `CREATE TABLE child (id bigint AUTO_INCREMENT PRIMARY KEY, a int NOT NULL, b int NOT NULL, code varchar(40) COLLATE utf8mb4_bin NOT NULL, note varchar(40) DEFAULT 'NULL', opt int, made int AS (opt + 1) STORED, seen int AS (opt + 2) VIRTUAL,
          inv int INVISIBLE, UNIQUE KEY whole (code), UNIQUE KEY cut (code(3)), UNIQUE KEY nullable (opt), UNIQUE KEY hidden (a, b) ${hidden}${engine === "mysql" ? ", UNIQUE KEY computed ((lower(note)))" : ""},
          CONSTRAINT up FOREIGN KEY (a, b) REFERENCES parent (a, b) ON DELETE CASCADE ON UPDATE CASCADE)`,
        "CREATE TRIGGER noticed BEFORE INSERT ON child FOR EACH ROW SET NEW.note = 'x'",
        "CREATE VIEW looking AS SELECT * FROM child", "INSERT INTO parent VALUES (1, 2), (2, 3)");
      const catalogue = await inspect(url);
      const child = found(catalogue, name, "child");
      expect(child).toMatchObject({
        kind: "table", persistence: "permanent", replicaIdentity: { kind: "full" }, triggers: [{ name: "noticed", mode: "O" }], privileges: ["select", "insert", "update", "delete", "truncate"],
        foreignKeys: [{ name: "up", references: { schema: name, name: "parent" }, onDelete: "cascade", deferrable: false }],
      });
      expect(Object.fromEntries(child.columns.map((column) => [column.name, [column.notNull, column.generated, column.identity, column.hasDefault]]))).toEqual({
        id: [true, null, "by default", false], a: [true, null, null, false], b: [true, null, null, false], code: [true, null, null, false], note: [false, null, null, true],
        opt: [false, null, null, false], made: [false, "stored", null, false], seen: [false, "virtual", null, false], inv: [false, null, null, false],
      });
      expect(Object.fromEntries(child.uniqueKeys.map((key) => [key.name, [key.columns, key.primary, key.partial, key.allNotNull]]))).toEqual({
        PRIMARY: [["id"], true, false, true], whole: [["code"], false, false, true], cut: [["code"], false, true, true], nullable: [["opt"], false, false, false], hidden: [["a", "b"], false, true, true],
        ...(engine === "mysql" ? { computed: [[], false, true, false] } : {}),
      });
      expect(mysqlFacts(catalogue).tables[`${name}.child`]).toEqual({ engine: "InnoDB", kind: "BASE TABLE", invisible: ["inv"], onUpdate: { up: "cascade" } });
      expect(found(catalogue, name, "looking").kind).toBe("view");
      expect(found(catalogue, name, "parent")).toMatchObject({ estimatedRows: 2, uniqueKeys: [{ columns: ["a", "b"] }] });
      expect(found(catalogue, name, "parent").bytes).toBeGreaterThan(0);
      expect(catalogue.tables.filter(({ table }) => ["mysql", "sys", "information_schema", "performance_schema"].includes(table.schema.toLowerCase()))).toEqual([]);
    });

    test("prints labels as they are", async (context) => {
      const { url, name } = await database(context, flavour);
      const labels = ["a,b", "it's", "back\\slash", "new\nline", 'dq"', "ü", ")"];
      const connection = await connect(plain(url), APPLICATION);
      await connection.query(`CREATE TABLE l (e enum(${labels.map((label) => `'${label.replaceAll("'", "''")}'`).join(",")}), s set('x','y''z'))`);
      await connection.end();
      const [e, s] = found(await inspect(url), name, "l").columns;
      expect([e?.enumLabels, e?.typeKind, e?.common]).toEqual([labels, "enum", { kind: "label", labels }]);
      expect([s?.enumLabels, s?.common]).toEqual([["x", "y'z"], { kind: "label set", labels: ["x", "y'z"] }]);
    });

    test("takes strange names, and what is broken, as they are", async (context) => {
      const { url, name } = await database(context, flavour);
      const [odd, column] = ["o`dd (näme) '%'", "c`1 \"x\""];
      await run(url, "CREATE TABLE p (id int PRIMARY KEY)", `CREATE TABLE ${quoteIdent(odd)} (${quoteIdent(column)} int, p int, ${quoteIdent(`${column}j`)} json, PRIMARY KEY (${quoteIdent(column)}), CONSTRAINT \`f\`\`k\` FOREIGN KEY (p) REFERENCES p (id) ON DELETE SET NULL)`,
        "CREATE TABLE gone (id int)", "CREATE VIEW broken AS SELECT id FROM gone", "DROP TABLE gone");
      const catalogue = await inspect(url);
      expect(found(catalogue, name, odd)).toMatchObject({
        columns: [{ name: column, common: { kind: "integer" } }, { name: "p" }, { name: `${column}j`, common: { kind: "json" } }], uniqueKeys: [{ name: "PRIMARY", columns: [column] }],
        foreignKeys: [{ name: "f`k", references: { schema: name, name: "p" }, onDelete: "set null" }],
      });
      expect(found(catalogue, name, "broken").kind).toBe("view");
    });

    test("shows keys that the server has made up, for the log carries them", async (context) => {
      const { url, name, server: own } = await database(context, flavour);
      if (engine === "mariadb") context.skip("MariaDB makes up no keys");
      onTestFinished(async () => run(own.url, "SET GLOBAL sql_generate_invisible_primary_key = OFF", "SET GLOBAL show_gipk_in_create_table_and_information_schema = ON"));
      await run(own.url, "SET GLOBAL sql_generate_invisible_primary_key = ON", "SET GLOBAL show_gipk_in_create_table_and_information_schema = OFF");
      await run(url, "CREATE TABLE t (v int)");
      const catalogue = await inspect(url);
      expect(found(catalogue, name, "t")).toMatchObject({ columns: [{ name: "my_row_id", identity: "by default" }, { name: "v" }], uniqueKeys: [{ primary: true, columns: ["my_row_id"], allNotNull: true }] });
      expect(mysqlFacts(catalogue).tables[`${name}.t`]?.invisible).toEqual(["my_row_id"]);
    });

    test("knows the server, and is the same server after a restart", async (context) => {
      const { url, server: own } = await database(context, flavour);
      const { server: facts, mysql } = await inspect(url);
      const [major = 0, minor = 0] = flavour.split("-")[1]!.split(".").map(Number);
      expect(Math.floor(facts.versionNumber / 100)).toBe(major * 100 + minor);
      expect(facts).toMatchObject({ engine, encoding: "utf8mb4", timeZone: "+00:00", inRecovery: false, role: { name: "root@%", superuser: true, replication: true, createInDatabase: true } });
      expect(facts.settings).toMatchObject({ log_bin: "ON", binlog_format: "ROW", binlog_row_image: "FULL", binlog_row_metadata: "FULL" });
      expect(mysql.logFilter).toEqual({ only: [], without: [] });
      expect(facts.identity).toMatch(engine === "mysql" ? /^[0-9a-f-]{36}$/ : /^\d+-\d+-[A-Za-z0-9+/=]{28}$/);
      await own.process?.stop();
      await own.process?.start();
      expect((await inspect(url)).server.identity).toBe(facts.identity);
    });

    test("tells one server from another", async (context) => {
      const own = await server(context, flavour);
      await using other = await requireMysql(context, { flavour, controllable: true, settings: { server_id: String(await mysqlValue(own.url, "SELECT @@server_id")) } });
      expect((await inspect(other.url)).server.identity).not.toBe((await inspect(own.url)).server.identity);
    });
  });

  // ------------------------------------------------------------ preflight

  describe(`preflight of ${flavour}`, () => {
    let mendAfterwards: (() => Promise<void>) | null = null;

    afterEach(async () => {
      await mendAfterwards?.();
      mendAfterwards = null;
    });

    test("finds nothing wrong with an ordinary table", async (context) => {
      const { url, name } = await database(context, flavour);
      await run(url, "CREATE TABLE t (id int PRIMARY KEY, v varchar(20)) ENGINE=InnoDB");
      expect(findings(await inspect(url), name)).toEqual([]);
    });

    const settings = [...SETTING_FAULTS, ...(engine === "mysql" ? MYSQL_SETTING_FAULTS : MARIADB_SETTING_FAULTS), ...(flavour === "mariadb-11.8" ? SPACE : [])];
    for (const [check, variable, value] of settings) {
      test(`names ${variable} = ${value}, and its statement mends it`, async (context) => {
        const { url, name, server: own } = await database(context, flavour);
        await run(url, "CREATE TABLE t (id int PRIMARY KEY)");
        const before = String(await mysqlValue(own.url, `SELECT @@GLOBAL.${variable}`));
        mendAfterwards = async () => run(own.url, `SET GLOBAL ${variable} = ${/^[\d.]+$/.test(before) ? before : `'${before}'`}`);
        await run(own.url, `SET GLOBAL ${variable} = ${value}`);
        const [finding, ...more] = findings(await inspect(url), name);
        expect([finding?.check, finding?.side, more]).toEqual([check, "source", []]);
        if (check === "in-recovery") return;
        const statements = finding!.mend.match(/SET (PERSIST|GLOBAL) [^;]+;/g) ?? [];
        expect(statements.length).toBeGreaterThan(0);
        await run(own.url, ...statements);
        expect(findings(await inspect(url), name)).toEqual([]);
        if (engine === "mysql") await run(own.url, `RESET PERSIST ${variable}`);
      });
    }

    const tables = [...TABLE_FAULTS, ...(engine === "mysql" ? MYSQL_TABLE_FAULTS : MARIADB_TABLE_FAULTS), ...(flavour === "mariadb-10.11" ? [] : VECTORS)];
    for (const [check, severity, statements, mends] of tables) {
      test(`names ${check}: ${statements.at(-1)}`, async (context) => {
        const { url, name } = await database(context, flavour);
        await run(url, ...statements);
        const about = named(findings(await inspect(url), name, "t"), check);
        expect(about.map((finding) => [finding.severity, finding.subject])).toEqual([[severity, "t"]]);
        if (!mends) return;
        await run(url, about[0]!.mend.slice(0, about[0]!.mend.indexOf(";")));
        expect(named(findings(await inspect(url), name, "t"), check)).toEqual([]);
      });
    }

    test("knows whether cascades are in the log", async (context) => {
      const { url, name, server: own } = await database(context, flavour);
      await run(url, "CREATE TABLE p (id int PRIMARY KEY)", "CREATE TABLE t (id int PRIMARY KEY, p int, CONSTRAINT up FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE)", "INSERT INTO p VALUES (1)", "INSERT INTO t VALUES (10, 1)");
      const refused = named(findings(await inspect(url), name, "t"), "cascade").length > 0;
      await run(own.url, "FLUSH BINARY LOGS");
      await run(url, "DELETE FROM p WHERE id = 1");
      expect(await mysqlValue(url, "SELECT count(*) FROM t")).toBe(0);
      const [log] = (await mysqlRows(own.url, "SHOW BINARY LOGS")).slice(-1);
      const events = await mysqlRows(own.url, `SHOW BINLOG EVENTS IN '${Object.values(log ?? {})[0]}'`);
      const tables = rowEvents(events);
      expect(tables).toContain(`${name}.p`);
      expect(tables.includes(`${name}.t`)).toBe(!refused);
    });

    test("is content with the printed grants, and misses each that is left out", async (context) => {
      const made = await database(context, flavour);
      const { url, name } = made;
      await run(url, "CREATE TABLE t (id int PRIMARY KEY, v int)", "CREATE TABLE other (id int PRIMARY KEY)");
      const user = await account(made);
      await run(url, `GRANT SELECT (id) ON ${quoteTable({ schema: name, name: "t" })} TO ${user.grantee}`);
      const whole = await inspect(url);
      const grants = sourceGrants([classOf(found(whole, name, "t"))], { ...whole, server: { ...whole.server, role: { ...whole.server.role, name: user.grantee.replaceAll("`", "") } } });
      for (const grant of grants) {
        await run(made.server.url, ...grants.filter((one) => one !== grant).map((one) => one.replace(/;$/, "")));
        const lacking = await inspect(user.url);
        expect([grant, errors(findings(lacking, name, "t"))]).toEqual([grant, [expect.stringMatching(/^grant-/)]]);
        await run(made.server.url, `REVOKE ALL PRIVILEGES, GRANT OPTION FROM ${user.grantee}`, `GRANT SELECT (id) ON ${quoteTable({ schema: name, name: "t" })} TO ${user.grantee}`);
      }
      await run(made.server.url, ...grants.map((one) => one.replace(/;$/, "")));
      const catalogue = await inspect(user.url);
      expect(findings(catalogue, name, "t")).toEqual([]);
      expect(catalogue.tables.filter(({ table }) => table.schema === name && table.name !== "t" && errors(findings(catalogue, name, table.name)).length === 0)).toEqual([]);
    });

    test("sees with the printed grants what an administrator sees", async (context) => {
      const made = await database(context, flavour);
      const { url, name } = made;
      await run(url, "CREATE TABLE p (id int PRIMARY KEY)",
        "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, p int, d int DEFAULT 3, j json, e enum('a','b'), g int AS (d + 1) STORED, u varchar(9) UNIQUE, inv int INVISIBLE, CONSTRAINT up FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE ON UPDATE SET NULL)",
        "CREATE TABLE v (id int PRIMARY KEY)", "INSERT INTO v VALUES (1)");
      const user = await account(made);
      const whole = await inspect(url);
      const classes = ["t", "v"].map((table) => classOf(found(whole, name, table)));
      const asUser = { ...whole, server: { ...whole.server, role: { ...whole.server.role, name: user.grantee.replaceAll("`", "") } } };
      await run(made.server.url, ...sourceGrants(classes, asUser).map((one) => one.replace(/;$/, "")));
      const seen = await inspect(user.url);
      expect(mysqlFacts(seen).tables[`${name}.t`]?.onUpdate).toEqual({ up: "set null" });
      for (const table of ["t", "v"]) {
        expect(found(seen, name, table)).toEqual({ ...found(whole, name, table), privileges: ["select"] });
        expect(mysqlFacts(seen).tables[`${name}.${table}`]).toEqual(mysqlFacts(whole).tables[`${name}.${table}`]);
      }
      expect(seen.server.settings).toEqual(whole.server.settings);
      expect(mysqlFacts(seen).logFilter).toEqual(mysqlFacts(whole).logFilter);
    });

    test("counts what comes through roles", async (context) => {
      const made = await database(context, flavour);
      const { url, name } = made;
      await run(url, "CREATE TABLE t (id int PRIMARY KEY)");
      const user = await account(made);
      const role = `r${randomBytes(5).toString("hex")}`;
      onTestFinished(async () => run(made.server.url, `DROP ROLE ${role}`));
      await run(made.server.url, `CREATE ROLE ${role}`, `GRANT SELECT, LOCK TABLES ON ${quoteIdent(name)}.* TO ${role}`, `GRANT ${role} TO ${user.grantee}`, `GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO ${user.grantee}`, `GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP ON dualrun.* TO ${user.grantee}`);
      await expect(inspect(user.url)).rejects.toMatchObject({ code: "DR2001" }); // not active: the database is out of sight
      await run(made.server.url, engine === "mysql" ? `SET DEFAULT ROLE ${role} TO ${user.grantee}` : `SET DEFAULT ROLE ${role} FOR ${user.grantee}`);
      const catalogue = await inspect(user.url);
      expect(findings(catalogue, name)).toEqual([]);
      expect(found(catalogue, name, "t").privileges).toEqual(["select"]);
    });

    test("takes the versions that are supported", async (context) => {
      const catalogue = await inspect((await server(context, flavour)).url);
      const versions = engine === "mysql" ? { "5.7.44": false, "8.0.11": true, "8.4.5": true, "9.7.0": true, "10.0.0": false } : { "10.6.20-MariaDB": false, "10.11.2-MariaDB": true, "11.8.9-MariaDB": true, "12.0.2-MariaDB": false };
      for (const [version, isSupported] of Object.entries(versions)) {
        const other = { ...catalogue, server: { ...catalogue.server, version, versionNumber: versionNumberOf(version) } };
        expect([version, named(preflightSource([], other), "version").length]).toEqual([version, isSupported ? 0 : 1]);
      }
    });

    test("sees what the log leaves out", async (context) => {
      await using own = await requireMysql(context, { flavour, controllable: true, durable: true, settings: { binlog_do_db: "kept", binlog_ignore_db: "hidden" } });
      await run(own.url, "CREATE DATABASE kept", "CREATE DATABASE hidden", "CREATE TABLE kept.t (id int PRIMARY KEY)", "CREATE TABLE hidden.t (id int PRIMARY KEY)");
      const catalogue = await inspect(own.url);
      expect(findings(catalogue, "kept")).toEqual([]);
      expect(named(findings(catalogue, "hidden"), "log-filter")).toHaveLength(2);
    });

    test("reads grants on databases as the server does", async (context) => {
      const made = await database(context, flavour);
      await run(made.url, "CREATE TABLE t (id int PRIMARY KEY)");
      const wild = made.name.replace("_", "%");
      const one = made.name.replaceAll("_", "\\_");
      const sets = [[[wild, "SELECT, LOCK TABLES"]], [[one, "SELECT, LOCK TABLES"]], [[wild, "LOCK TABLES"], [one, "SELECT"]], [[one, "LOCK TABLES"], [wild, "SELECT"]], [["inspect\\%", "LOCK TABLES"], [one, "SELECT"]]] as const;
      const locked: boolean[] = [];
      for (const grants of sets) {
        const user = await account(made);
        await run(made.server.url, ...grants.map(([pattern, privileges]) => `GRANT ${privileges} ON \`${pattern}\`.* TO ${user.grantee}`));
        const locks = await mysqlRows(user.url, "LOCK TABLES t READ").then(() => true, () => false);
        const { grants: read } = mysqlFacts(await inspect(user.url));
        expect([grants, ["LOCK TABLES", "SELECT"].every((privilege) => holds(read, privilege, made.name))]).toEqual([grants, locks]);
        locked.push(locks);
      }
      expect(new Set(locked)).toEqual(new Set([true, false]));
    });

    test("sees that there is no log", async (context) => {
      await using own = await requireMysql(context, { flavour, controllable: true, durable: true, settings: { disable_log_bin: "ON", ...(engine === "mariadb" ? { log_slave_updates: "OFF" } : {}), lower_case_table_names: "1" } });
      expect(preflightSource([], await inspect(own.url)).map(({ check, severity }) => [check, severity])).toEqual([["log-bin", "error"], ["table-names", "warning"]]);
    });
  });
}

describe("mysql-9.7 without GTIDs", () => {
  test("is refused, and led to them step by step", async (context) => {
    await using own = await requireMysql(context, { flavour: "mysql-9.7", controllable: true, durable: true, settings: { gtid_mode: "OFF", enforce_gtid_consistency: "OFF" } });
    const found = preflightSource([], await inspect(own.url));
    expect(found.map(({ check }) => check)).toEqual(["gtid-consistency", "gtid-mode"]);
    for (const { mend } of found) await run(own.url, ...(mend.match(/SET PERSIST [^;]+(?=;)/g) ?? []));
    expect(preflightSource([], await inspect(own.url))).toEqual([]);
  });
});

// ------------------------------------------------------------ what is tried

const TYPES: Readonly<Record<string, CommonType>> = {
  "tinyint(1)": { kind: "boolean" }, "bool": { kind: "boolean" },
  "tinyint": { kind: "integer", bits: 8, unsigned: false }, "tinyint unsigned": { kind: "integer", bits: 8, unsigned: true },
  "smallint": { kind: "integer", bits: 16, unsigned: false }, "mediumint unsigned": { kind: "integer", bits: 24, unsigned: true },
  "int(5) zerofill": { kind: "integer", bits: 32, unsigned: true }, "bigint": { kind: "integer", bits: 64, unsigned: false }, "bigint unsigned": { kind: "integer", bits: 64, unsigned: true },
  "decimal(14,2)": { kind: "decimal", precision: 14, scale: 2 }, "decimal(65,30) unsigned": { kind: "decimal", precision: 65, scale: 30 }, "decimal": { kind: "decimal", precision: 10, scale: 0 },
  "float": { kind: "float", bits: 32 }, "float(7,2)": { kind: "float", bits: 32 }, "double": { kind: "float", bits: 64 },
  "char(9)": { kind: "text", characters: 9, padded: true }, "varchar(200)": { kind: "text", characters: 200, padded: false }, "varchar(20) character set latin1": { kind: "text", characters: 20, padded: false },
  "tinytext": { kind: "text", characters: 255, padded: false }, "text": { kind: "text", characters: 65_535, padded: false }, "mediumtext": { kind: "text", characters: 16_777_215, padded: false }, "longtext": { kind: "text", characters: null, padded: false },
  "binary(16)": { kind: "bytes", length: 16, fixed: true }, "varbinary(20)": { kind: "bytes", length: 20, fixed: false }, "blob": { kind: "bytes", length: 65_535, fixed: false }, "longblob": { kind: "bytes", length: null, fixed: false },
  "bit": { kind: "bits", length: 1 }, "bit(64)": { kind: "bits", length: 64 },
  "date": { kind: "date" }, "time": { kind: "time", fraction: 0, long: true }, "time(6)": { kind: "time", fraction: 6, long: true },
  "datetime": { kind: "timestamp", fraction: 0 }, "datetime(3)": { kind: "timestamp", fraction: 3 }, "timestamp(6) null": { kind: "instant", fraction: 6 }, "year": { kind: "year" },
  "enum('a','b')": { kind: "label", labels: ["a", "b"] }, "set('a','b')": { kind: "label set", labels: ["a", "b"] },
  "geometry": { kind: "other", name: "geometry" }, "point": { kind: "other", name: "point" },
};

const MYSQL_TYPES: Readonly<Record<string, CommonType>> = { "json": { kind: "json", exact: false }, "vector(3)": { kind: "other", name: "vector(3)" } };

const MARIADB_TYPES: Readonly<Record<string, CommonType>> = {
  "json": { kind: "json", exact: true }, "longtext collate utf8mb4_bin": { kind: "text", characters: null, padded: false },
  "uuid": { kind: "uuid" }, "inet4": { kind: "address" }, "inet6": { kind: "address" },
};

type SettingFault = readonly [check: string, variable: string, value: string];

const SETTING_FAULTS: readonly SettingFault[] = [
  ["log-format", "binlog_format", "'MIXED'"],
  ["log-image", "binlog_row_image", "'MINIMAL'"],
  ["log-image", "binlog_row_image", "'NOBLOB'"],
  ["log-metadata", "binlog_row_metadata", "'MINIMAL'"],
  ["log-retention", "binlog_expire_logs_seconds", "86400"],
  ["log-durability", "sync_binlog", "0"],
  ["log-durability", "innodb_flush_log_at_trx_commit", "2"],
  ["in-recovery", "read_only", "1"],
];

const MYSQL_SETTING_FAULTS: readonly SettingFault[] = [
  ["log-compression", "binlog_transaction_compression", "1"],
  ["log-partial-json", "binlog_row_value_options", "'PARTIAL_JSON'"],
  ["gtid-mode", "gtid_mode", "ON_PERMISSIVE"],
];

const MARIADB_SETTING_FAULTS: readonly SettingFault[] = [["gtid-strict", "gtid_strict_mode", "0"]];

const SPACE: readonly SettingFault[] = [["log-space", "max_binlog_total_size", "1073741824"]];

type TableFault = readonly [check: string, severity: Finding["severity"], statements: readonly string[], mends: boolean];

const TABLE_FAULTS: readonly TableFault[] = [
  ["table-engine", "error", ["CREATE TABLE t (id int PRIMARY KEY) ENGINE=MyISAM"], true],
  ["table-engine", "error", ["CREATE TABLE t (id int PRIMARY KEY) ENGINE=MEMORY"], true],
  ["table-kind", "error", ["CREATE TABLE under (id int PRIMARY KEY)", "CREATE VIEW t AS SELECT * FROM under"], false],
  ["column-type", "error", ["CREATE TABLE t (id int PRIMARY KEY, place point)"], false],
  ["no-key", "warning", ["CREATE TABLE t (id int, v int, UNIQUE KEY (id))"], false],
  ["key-collation", "warning", ["CREATE TABLE t (id int PRIMARY KEY, email varchar(50) COLLATE utf8mb4_general_ci NOT NULL UNIQUE)"], false],
];

const MYSQL_TABLE_FAULTS: readonly TableFault[] = [];

const PARENT = "CREATE TABLE p (id int PRIMARY KEY)";

const MARIADB_TABLE_FAULTS: readonly TableFault[] = [
  ["table-engine", "error", ["CREATE TABLE t (id int PRIMARY KEY) ENGINE=Aria"], true],
  ["table-kind", "error", ["CREATE TABLE t (id int PRIMARY KEY) WITH SYSTEM VERSIONING"], true],
  ["table-kind", "error", ["CREATE SEQUENCE t"], false],
  ["cascade", "error", [PARENT, "CREATE TABLE t (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE)"], true],
  ["cascade", "error", [PARENT, "CREATE TABLE t (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES p (id) ON DELETE SET NULL)"], true],
  ["cascade", "error", [PARENT, "CREATE TABLE t (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES p (id) ON UPDATE CASCADE)"], true],
];

const VECTORS: readonly TableFault[] = [["column-type", "error", ["CREATE TABLE t (id int PRIMARY KEY, v vector(3) NOT NULL)"], false]];
