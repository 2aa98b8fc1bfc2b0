/** Every core type comes through exactly: copied, inserted, updated, moved and deleted, as binary and as text. */
import { expect, test } from "vitest";
import { TestMirror } from "../support/mirror.ts";
import { orSkip, sharedPair } from "../support/servers.ts";

const control = Array.from({ length: 0x7f }, (_, i) => String.fromCharCode(i + 1)).join("").replaceAll("'", "''");

/** Column type → literals. */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  numeric: ["'NaN'", "'Infinity'", "'-Infinity'", `'${"9".repeat(1000)}.${"1".repeat(500)}'`, "'0.000'", "'-0.10'", "'1e-300'"],
  "numeric(20,4)": ["'12345678.9000'", "'-0.0001'"],
  smallint: ["-32768", "32767"], integer: ["-2147483648", "2147483647", "0"], bigint: ["-9223372036854775808", "9223372036854775807"],
  real: ["'NaN'", "'-0'", "'1e-45'", "'3.4028235e38'", "'0.1'"], "double precision": ["'-Infinity'", "'-0'", "'5e-324'", "'1.7976931348623157e308'", "'0.1'"],
  boolean: ["true", "false"], uuid: ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
  text: ["''", "' '", "'\\N'", "'\\.'", "E'a\\tb\\nc\\rd\\\\e'", `'${control}'`, "'日本語 🙂 ñ'", "repeat('long ', 5000)"],
  "varchar(20)": ["'x'", "'  trailing  '"], "char(10)": ["'pad'", "''"], '"char"': ["'a'", "''"], name: ["'a name'"],
  bytea: ["''", "'\\x00ff00'", "decode(repeat('deadbeef', 3000), 'hex')"],
  date: ["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'5874897-12-31'"],
  timestamp: ["'infinity'", "'4713-01-01 00:00:00 BC'", "'294276-12-31 23:59:59.999999'", "'2026-11-20 01:02:03.000001'"],
  timestamptz: ["'-infinity'", "'2026-04-05 02:30:00.123456+13'", "'0001-01-01 00:00:00+00 BC'"],
  time: ["'24:00:00'", "'00:00:00.000001'"], timetz: ["'23:59:59.999999-15:59'"], interval: ["'-1 year 2 mons -3 days 04:05:06.789'", "'178000000 years'", "'0'"],
  json: ["'{\"b\" : 12345678901234567890.123,  \"a\":1, \"a\":2}'", "'[null]'"], jsonb: ["'{\"n\": 12345678901234567890123.450}'", "'\"\\u00e9\"'", "'null'"],
  inet: ["'192.168.0.1/24'", "'::1'", "'2001:db8::/32'"], cidr: ["'10.0.0.0/8'"], macaddr: ["'08:00:2b:01:02:03'"], macaddr8: ["'08:00:2b:01:02:03:04:05'"],
  "bit(5)": ["B'10101'"], "bit varying": ["B''", "B'1011'"], money: ["'-92233720368547758.08'", "'12.34'"],
  point: ["'(1.5,-2)'"], line: ["'{1,2,3}'"], lseg: ["'[(0,0),(1,1)]'"], box: ["'(1,1),(0,0)'"], path: ["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"], polygon: ["'((0,0),(1,1),(1,0))'"], circle: ["'<(0,0),1.5>'"],
  tsvector: ["'a:1A fat:2 cat:3'"], tsquery: ["'fat & (rat | !cat)'"], pg_lsn: ["'16/B374D848'"], oid: ["4294967295"], xml: ["'<a b=\"1\">t</a>'"],
  int4range: ["'[1,10)'", "'empty'", "'(,)'"], numrange: ["'(1.10,)'"], tstzrange: ["'[2026-01-01 00:00+00,infinity)'"], int4multirange: ["'{[1,2),[5,7)}'", "'{}'"],
  "integer[]": ["'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[0:2]={1,2,3}'"], "text[]": ["'{\"\",NULL,\"null\",\"a,b\",\"q\\\"\"}'"], "numeric[]": ["'{NaN,1.10}'"],
  mood: ["'sad'", "'it''s, \"ok\"'"], "mood[]": ["'{sad,NULL}'"], positive: ["7"], pair: ["'(1,\"a,b\")'", "'(,)'"],
};

/** Those that travel as text only, so that the rest is tried in binary. */
const TEXT_ONLY = new Set(["mood[]", "pair", "xml", "tsquery"]);

const TYPES = `
  CREATE TYPE mood AS ENUM ('sad', 'it''s, "ok"');
  CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
  CREATE TYPE pair AS (a integer, b text);`;

for (const format of ["binary", "text"] as const) {
  const types = Object.entries(VALUES).filter(([type]) => format === "text" || !TEXT_ONLY.has(type));

  test(`all core types, ${format}`, { timeout: 120_000 }, async (context) => {
    const pair = await orSkip(context, sharedPair());
    const tables = types.map(([type], i) => `CREATE TABLE public.t${i} (id integer PRIMARY KEY, "Ünïcode ""v"" .🙂" ${type}, other text)`);
    await using mirror = await TestMirror.make(await pair.fresh("types"), `${TYPES}\n${tables.join(";\n")}`);
    const insert = (from: number): string[] => types.flatMap(([, values], i) => [
      ...values.map((value, n) => `INSERT INTO public.t${i} VALUES (${from + n}, ${value}, 'x')`), `INSERT INTO public.t${i} VALUES (${from + 99}, NULL, NULL)`,
    ]);
    for (const statement of insert(100)) await mirror.source.query(statement);
    await mirror.start();
    await mirror.streaming();
    expect(mirror.daemon.control.status().format).toBe(format);
    const names = types.map((_, i) => `public.t${i}`);
    expect(await mirror.differences(...names)).toEqual([]);

    const updates = types.flatMap(([, values], i) => values.map((value, n) => `UPDATE public.t${i} SET "Ünïcode ""v"" .🙂" = ${value}, other = NULL WHERE id = ${299 - (n % 2)}`));
    const moves = types.flatMap((_, i) => [`UPDATE public.t${i} SET id = id + 1000 WHERE id = 100`, `DELETE FROM public.t${i} WHERE id = 101`, `UPDATE public.t${i} SET other = other || '!' WHERE id < 300`]);
    const status = await mirror.apply(...insert(200), ...updates, ...moves);
    expect(await mirror.differences(...names)).toEqual([]);
    expect(status.classes.reduce((sum, cls) => sum + cls.conflicts, 0)).toBe(0);
    expect(status.halt).toBeNull();
  });
}

test("hstore and citext, where they are installed", async (context) => {
  const pair = await orSkip(context, sharedPair());
  const schema = `
    CREATE EXTENSION hstore; CREATE EXTENSION citext;
    CREATE TABLE stores (id integer PRIMARY KEY, attributes hstore);
    CREATE TABLE names (name citext PRIMARY KEY, alias citext, attributes hstore)`;
  await using mirror = await TestMirror.make(await pair.fresh("contrib"), schema, `
    INSERT INTO stores VALUES (1, 'a=>1, "b c"=>NULL'), (2, ''), (3, NULL), (4, '"quo\\"te"=>"x,y"');
    INSERT INTO names VALUES ('Ann', 'ANN', 'k=>v'), ('bob', NULL, NULL)`);
  await mirror.start({ comparison: { every: "31d" } });
  await mirror.streaming();
  await mirror.apply(
    "UPDATE stores SET attributes = attributes || 'z=>26' WHERE id = 1; INSERT INTO stores VALUES (5, 'ü=>\"🙂\"'); DELETE FROM stores WHERE id = 2",
    "UPDATE names SET name = 'ANN' WHERE name = 'ann'; UPDATE names SET alias = 'Bobby' WHERE name = 'BOB'; INSERT INTO names VALUES ('Zoë', 'zOË', 'a=>b'); DELETE FROM names WHERE name = 'zoë'",
    "BEGIN; UPDATE names SET name = 'x' WHERE name = 'Ann'; UPDATE names SET name = 'Ann' WHERE name = 'bob'; UPDATE names SET name = 'BOB' WHERE name = 'X'; COMMIT",
  );
  expect(await mirror.differences("stores", "names")).toEqual([]);
  const { proof } = mirror.daemon.control;
  expect((await proof.compare(null, true)).verdict).toBe("in_sync");
  await mirror.target.query("UPDATE stores SET attributes = attributes || 'z=>27' WHERE id = 1; UPDATE names SET name = 'bob' WHERE name = 'BOB'");
  const found = await proof.compare(null, true);
  expect(found.classes.map(({ class: name, verdict, rows }) => [name, verdict, rows.map(({ kind, columns }) => [kind, ...columns])])).toEqual([
    ["names", "confirmed_out_of_sync", expect.arrayContaining([["missing"], ["extra"]])], ["stores", "confirmed_out_of_sync", [["mismatched", "attributes"]]]]);
});
