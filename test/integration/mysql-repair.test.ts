/** What somebody did to a PostgreSQL target is mended with the values of a MySQL or MariaDB source, as the target takes them. */
import { describe, expect, test } from "vitest";
import { CrossMirror } from "../support/cross.ts";

const FLAVOURS = ["mysql-9.7", "mariadb-10.11"] as const;

const SOURCE = `
CREATE TABLE things (id int PRIMARY KEY, raw varbinary(40), at timestamp(6) NULL, clock datetime(6), span time(6), ratio double, small float, amount decimal(20,4), ok boolean, flags bit(5), tag enum('a','b'), day date, document json, printed json, code char(8), ref binary(16)) CHARACTER SET utf8mb4;
INSERT INTO things VALUES
 (1, x'00ff5c78', '2026-11-21 01:02:03.000004', '1999-12-31 23:59:59.999999', '-100:00:00.5', 0.1, 0.1, 12.3400, 1, 21, 'b', '2024-02-29', '{"a": [1, "é"]}', '{"z": "\\\\t"}', 'ab', x'0123456789abcdef0123456789abcdef'),
 (2, x'', '1970-01-01 00:00:01', '1000-01-01', '00:00:00', -1e300, 1e-40, -0.0001, 0, 0, 'a', '9999-12-31', '[]', '[]', '', x'00000000000000000000000000000000'),
 (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE named (ref binary(16), raw varbinary(20), at timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), note varchar(20), PRIMARY KEY (ref, raw, at));
INSERT INTO named VALUES (x'0123456789abcdef0123456789abcdef', x'00ff', '2026-11-21 01:02:03.5', 'one'), (x'ffffffffffffffffffffffffffffffff', x'', '2026-03-29 01:30:00', 'two');
CREATE TABLE heap (raw varbinary(20), at timestamp(6) NULL, note varchar(20));
INSERT INTO heap VALUES (x'01', '2026-11-21 01:02:03', 'twice'), (x'01', '2026-11-21 01:02:03', 'twice'), (NULL, NULL, 'once');
`;
const TARGET = `
CREATE TABLE things (id integer PRIMARY KEY, raw bytea, at timestamptz, clock timestamp, span interval, ratio double precision, small real, amount numeric(20,4), ok boolean, flags bit(5), tag text, day date, document jsonb, printed text, code char(8), ref uuid);
CREATE TABLE named (ref uuid, raw bytea, at timestamptz, note varchar(20), PRIMARY KEY (ref, raw, at));
CREATE TABLE heap (raw bytea, at timestamptz, note varchar(20));
`;
const TABLES = ["things", "named", "heap"] as const;

describe.each(FLAVOURS)("%s", (flavour) => {
  test("missing, changed and extra rows become what they were", { timeout: 120_000 }, async (context) => {
    await using mirror = await CrossMirror.make(context, { flavour }, SOURCE, TARGET);
    // Somebody's session is in another zone: times are the same moments.
    await mirror.target.query("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Pacific/Auckland''', current_database()); END $$");
    await mirror.start({ classes: mirror.tables(...TABLES), comparison: { every: "31d" } });
    await mirror.streaming();
    const rows = async (name: string): Promise<string[]> => (await mirror.target.query<{ t: string }>(`SELECT ${name}::text AS t FROM ${name} ORDER BY 1`)).rows.map(({ t }) => t);
    const before = { things: await rows("things"), named: await rows("named"), heap: await rows("heap") };
    expect(before).toMatchObject({ things: { length: 3 }, named: { length: 2 }, heap: { length: 3 } });
    for (const damage of [
      ["things", "DELETE FROM things"], ["things", "UPDATE things SET raw = '\\x01', at = now(), clock = now(), span = '1 day', ratio = 1, small = 1, amount = 1, ok = NULL, flags = B'00001', tag = 'a', day = now(), printed = NULL, code = 'x', ref = gen_random_uuid()"],
      ["things", "UPDATE things SET document = NULL, raw = NULL, at = NULL; INSERT INTO things (id) VALUES (99)"],
      ["named", "DELETE FROM named"], ["named", "UPDATE named SET note = 'changed'"], ["named", "INSERT INTO named SELECT ref, raw, at + interval '1 second', note FROM named"],
      ["heap", "DELETE FROM heap"], ["heap", "INSERT INTO heap SELECT * FROM heap"], ["heap", "UPDATE heap SET note = 'changed'"],
    ] as const) {
      const [name, sql] = damage;
      await mirror.target.query(sql);
      expect([sql, await rows(name)]).not.toEqual([sql, before[name]]);
      const { comparison } = await mirror.daemon.control.proof.repair(name, true, "test");
      expect([sql, comparison?.verdict, await rows(name)]).toEqual([sql, "in_sync", before[name]]);
    }
  });
});
