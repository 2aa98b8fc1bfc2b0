/** Every type that may cross from MySQL or MariaDB to PostgreSQL: copied and mirrored values are the source's, and the comparison says so. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CrossMirror } from "../support/cross.ts";

const SEED = Number(process.env["DUALRUN_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const RANDOM = 40;
const FLAVOURS = ["mariadb-10.11", "mysql-9.7"] as const;

interface Pair {
  readonly source: string;
  readonly target: string;
  /** SQL on the source. */
  readonly edges: readonly string[];
  readonly random?: fc.Arbitrary<string>;
  /** What the target must print, as SQL of the source's column `c`; default: the text itself. */
  readonly expected?: string;
  /** How the target prints it, as SQL of its column `c`. */
  readonly printed?: string;
  readonly only?: (typeof FLAVOURS)[number];
}

const quoted = (text: string): string => `CONVERT(x'${Buffer.from(text).toString("hex")}' USING utf8mb4)`;
const hex = (bytes: Uint8Array): string => `x'${Buffer.from(bytes).toString("hex")}'`;
const whole = (bits: number, unsigned: boolean): Pick<Pair, "edges" | "random"> => {
  const [least, most] = unsigned ? [0n, (1n << BigInt(bits)) - 1n] : [-(1n << BigInt(bits - 1)), (1n << BigInt(bits - 1)) - 1n];
  return { edges: [`${least}`, `${most}`, "0", "1"], random: fc.bigInt({ min: least, max: most }).map(String) };
};
const text = (max: number): fc.Arbitrary<string> => fc.string({ unit: "grapheme", maxLength: max }).filter((one) => Array.from(one).length <= max && !one.includes("\0")).map(quoted);
const TEXTS = ["''", "' '", "'a '", quoted("tab\tline\nreturn\r back\\slash \\N \\."), quoted("漢字 😀 é é"), quoted("'quote\" `tick"), quoted("\u0001\u007f")];
const bytes = (max: number): fc.Arbitrary<string> => fc.uint8Array({ maxLength: max }).map(hex);
const moment = fc.tuple(fc.integer({ min: 1, max: 2 ** 31 - 2 }), fc.nat(999_999)).map(([s, f]) => `'${new Date(s * 1000).toISOString().slice(0, 19).replace("T", " ")}.${String(f).padStart(6, "0")}'`);
const MOMENTS = ["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07.999999'", "'2000-02-29 23:59:59.5'"];
const decimal = fc.tuple(fc.boolean(), fc.bigInt({ min: 0n, max: 10n ** 38n - 1n })).map(([negative, digits]) => {
  const all = digits.toString().padStart(11, "0");
  return `${negative ? "-" : ""}${all.slice(0, -10)}.${all.slice(-10)}`;
});

const PAIRS: readonly Pair[] = [
  { source: "tinyint(1)", target: "boolean", edges: ["0", "1"], printed: "c::int::text" },
  { source: "tinyint", target: "smallint", ...whole(8, false) },
  { source: "tinyint unsigned", target: "smallint", ...whole(8, true) },
  { source: "smallint", target: "smallint", ...whole(16, false) },
  { source: "smallint unsigned", target: "integer", ...whole(16, true) },
  { source: "mediumint", target: "integer", ...whole(24, false) },
  { source: "int", target: "integer", ...whole(32, false) },
  { source: "int unsigned", target: "bigint", ...whole(32, true) },
  { source: "bigint", target: "bigint", ...whole(64, false) },
  { source: "bigint unsigned", target: "numeric(20,0)", ...whole(64, true) },
  { source: "bigint unsigned", target: "numeric", ...whole(64, true) },
  { source: "decimal(48,10)", target: "numeric(48,10)", edges: ["0", "-0.0000000001", "99999999999999999999999999999999999999.9999999999"], random: decimal },
  { source: "decimal(48,10)", target: "numeric(60,12)", edges: ["1.5"], random: decimal, expected: "CAST(CAST(c AS decimal(60,12)) AS CHAR)" },
  { source: "decimal(48,10)", target: "numeric", edges: ["1.50"], random: decimal },
  { source: "double", target: "double precision", edges: ["0", "-0e0", "0.1", "1e15", "123456789012345680", "1e-5", "1e-15", "1e-16", "5e-324", "1.7976931348623157e308", "1e21", "-1.5e-13", "1e33", "1e34", "2.5e-12"], random: fc.double({ noNaN: true, noDefaultInfinity: true }).map((one) => `'${one}'`), expected: "''", printed: "''" },
  { source: "float", target: "real", edges: ["0", "0.1", "16777217", "'3.4028235e38'", "'1e-45'", "3.14159274"], random: fc.float({ noNaN: true, noDefaultInfinity: true }).map((one) => `'${one}'`), expected: "''", printed: "''" },
  { source: "varchar(60)", target: "varchar(60)", edges: TEXTS, random: text(60) },
  { source: "char(20)", target: "char(20)", edges: ["''", "'abc'", quoted("漢字")], random: text(20), expected: "TRIM(TRAILING ' ' FROM c)", printed: "rtrim(c::text, ' ')" },
  { source: "longtext", target: "text", edges: TEXTS, random: text(200) },
  { source: "varchar(40) CHARACTER SET latin1", target: "text", edges: ["''", quoted("Zürich €")], expected: "CONVERT(c USING utf8mb4)" },
  { source: "enum('a','b,c','d''e','é')", target: "text", edges: ["'a'", "'b,c'", "'d''e'", "'é'"] },
  { source: "set('a','b','c')", target: "text", edges: ["''", "'a'", "'a,c'"] },
  { source: "varbinary(40)", target: "bytea", edges: ["x''", "x'00'", "x'5c780a'"], random: bytes(40), expected: "LOWER(HEX(c))", printed: "encode(c, 'hex')" },
  { source: "longblob", target: "bytea", edges: ["x''", "x'0001020304'"], random: bytes(200), expected: "LOWER(HEX(c))", printed: "encode(c, 'hex')" },
  { source: "binary(16)", target: "uuid", edges: ["x'00000000000000000000000000000000'", "x'0123456789abcdef0123456789abcdef'"], random: fc.uint8Array({ minLength: 16, maxLength: 16 }).map(hex), expected: "LOWER(HEX(c))", printed: "replace(c::text, '-', '')" },
  { source: "char(36)", target: "uuid", edges: ["'0123456789AB-CDEF'"].slice(1).concat("'00000000-0000-0000-0000-00000000000A'"), expected: "LOWER(c)", printed: "c::text" },
  { source: "bit(1)", target: "boolean", edges: ["0", "1"], expected: "CAST(c + 0 AS CHAR)", printed: "c::int::text" },
  { source: "bit(11)", target: "bit(11)", edges: ["0", "1", "2047", "1024"], expected: "LPAD(BIN(c + 0), 11, '0')" },
  { source: "date", target: "date", edges: ["'1000-01-01'", "'9999-12-31'", "'2024-02-29'"] },
  { source: "time(6)", target: "time", edges: ["'00:00:00'", "'23:59:59.999999'"], printed: "to_char(c, 'HH24:MI:SS.US')" },
  { source: "time(6)", target: "interval", edges: ["'-838:59:59'", "'-00:00:00.000001'", "'100:00:00.5'"], expected: "''", printed: "''" },
  { source: "datetime(6)", target: "timestamp", edges: ["'1000-01-01 00:00:00'", "'9999-12-31 23:59:59.999999'", ...MOMENTS], random: moment, printed: "to_char(c, 'YYYY-MM-DD HH24:MI:SS.US')" },
  { source: "timestamp(6) NULL", target: "timestamptz", edges: MOMENTS, random: moment, printed: "to_char(c AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')" },
  { source: "timestamp(3) NULL", target: "timestamp(3)", edges: MOMENTS.slice(0, 1), random: moment, printed: "to_char(c, 'YYYY-MM-DD HH24:MI:SS.MS')" },
  { source: "year", target: "smallint", edges: ["1901", "2155", "2026"] },
  { source: "json", target: "jsonb", edges: [quoted('{"a": [1, 2.5, null, "é\\n"]}'), "'[]'"], expected: "''", printed: "''", only: "mysql-9.7" },
  { source: "json", target: "json", edges: [quoted('{"b":1,  "a":[1.50]}'), "'[]'"], only: "mariadb-10.11" },
  { source: "uuid", target: "uuid", edges: ["'0123456789ab-cdef-0123-456789abcdef'"].slice(1).concat("'00000000-0000-0000-0000-00000000000a'"), only: "mariadb-10.11" },
  { source: "inet6", target: "inet", edges: ["'::1'", "'2001:db8::ff00:42:8329'"], printed: "host(c)", only: "mariadb-10.11" },
];

describe.each(FLAVOURS)("%s", (flavour) => {
  test(`every type arrives, seed ${SEED}`, { timeout: 180_000 }, async (context) => {
    const pairs = PAIRS.filter(({ only }) => only === undefined || only === flavour);
    const tables = pairs.map((_, i) => `t${i}`);
    const values = pairs.map((pair) => [...pair.edges, ...(pair.random === undefined ? [] : fc.sample(pair.random, { numRuns: RANDOM, seed: SEED })), "NULL"]);
    const insert = (i: number, from: number): string => `INSERT INTO t${i} (id, c) VALUES ${values[i]!.map((value, n) => `(${from + n}, ${value})`).join(", ")}`;
    await using mirror = await CrossMirror.make(context, { flavour },
      pairs.map(({ source }, i) => `CREATE TABLE t${i} (id int PRIMARY KEY, c ${source}) CHARACTER SET utf8mb4;\n${insert(i, 1)};\n`).join(""),
      pairs.map(({ target }, i) => `CREATE TABLE t${i} (id integer PRIMARY KEY, c ${target});`).join(""));
    await mirror.start({ classes: mirror.tables(...tables), comparison: { every: "31d" } });
    await mirror.streaming();
    await mirror.apply(...pairs.map((_, i) => insert(i, 10_001)), ...pairs.flatMap((_, i) => [`UPDATE t${i} SET c = NULL WHERE id = 10001`, `UPDATE t${i} SET id = id + 5000 WHERE id = 10002`]));
    for (const [i, pair] of pairs.entries()) {
      const here = await mirror.source.query<{ id: number; c: string | null }[]>(`SELECT id, CAST(${pair.expected ?? "c"} AS CHAR) AS c FROM t${i} ORDER BY id`);
      const there = await mirror.target.query<{ id: number; c: string | null }>(`SELECT id, ${pair.printed ?? "c::text"} AS c FROM t${i} ORDER BY id`);
      expect([pair.source, pair.target, there.rows], `seed ${SEED}`).toEqual([pair.source, pair.target, [...here]]);
    }
    const { classes } = await mirror.daemon.control.proof.compare(null, true);
    const wrong = classes.filter(({ verdict }) => verdict !== "in_sync").map(({ class: name, verdict, note, rows }) => [pairs[Number(name.slice(1))]!.source, pairs[Number(name.slice(1))]!.target, verdict, note, rows.length]);
    expect(wrong, `seed ${SEED}`).toEqual([]);
  });
});
