/** What the decoder reads in a real server's binary log is what the server itself prints. */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BinlogServer, ROW, SERVER_URLS, type Flavour, type LoggedRow } from "../support/binlog.ts";
import type { ColumnHint } from "../../connectors/mysql/types.ts";

const SEED = Number(process.env.DUALRUN_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
const RANDOM_VALUES = 60;

interface Column {
  readonly type: string;
  /** SQL of edge values. */
  readonly values: readonly string[];
  /** SQL of random values. */
  readonly random?: fc.Arbitrary<string>;
  /** How the server prints it: SQL for the column `c`. */
  readonly text?: string;
  readonly hint?: ColumnHint;
  /** Whether a decoded text is what the server printed, where that is not the same text. */
  readonly same?: (decoded: string, printed: string) => boolean;
  readonly only?: Flavour;
}

const AS_TEXT = "CAST(c AS CHAR)";
const AS_HEX = "LOWER(HEX(c))";

const quoted = (text: string): string => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;
const hexOf = (text: string): string => `CONVERT(x'${Buffer.from(text).toString("hex")}' USING utf8mb4)`;
const bytesOf = (bytes: Uint8Array): string => `x'${Buffer.from(bytes).toString("hex")}'`;
const pad = (value: number, digits: number): string => String(value).padStart(digits, "0");
const whole = (min: bigint, max: bigint): fc.Arbitrary<string> => fc.bigInt({ min, max }).map(String);
const binary = (max: number): fc.Arbitrary<string> => fc.uint8Array({ maxLength: max }).map(bytesOf);
const unicode = (max: number): fc.Arbitrary<string> => fc.string({ unit: "grapheme", maxLength: max }).filter((text) => [...text].length <= max).map(hexOf);
const integers = (type: string, bits: number): Column[] => {
  const half = 1n << BigInt(bits - 1);
  return [
    { type, values: [`${-half}`, `${half - 1n}`, "0", "-1", "9", "-10"], random: whole(-half, half - 1n) },
    { type: `${type} UNSIGNED`, values: ["0", `${2n * half - 1n}`, `${half}`], random: whole(0n, 2n * half - 1n) },
  ];
};

const decimalText = (precision: number, scale: number): fc.Arbitrary<string> => fc
  .tuple(fc.boolean(), fc.bigInt({ min: 0n, max: 10n ** BigInt(precision) - 1n }), fc.nat(precision))
  .map(([negative, digits, dropped]) => {
    const text = (digits / 10n ** BigInt(dropped)).toString().padStart(scale + 1, "0");
    return `${negative ? "-" : ""}${text.slice(0, text.length - scale)}${scale > 0 ? `.${text.slice(text.length - scale)}` : ""}`;
  });
const decimal = (precision: number, scale: number): Column => {
  const nines = `${"9".repeat(precision - scale) || "0"}${scale > 0 ? `.${"9".repeat(scale)}` : ""}`;
  return { type: `decimal(${precision},${scale})`, values: ["0", nines, `-${nines}`, "1", "-0.5", scale > 0 ? `-0.${"0".repeat(scale - 1)}1` : "-7"], random: decimalText(precision, scale) };
};

const DATES = ["'0000-00-00'", "'2024-02-29'", "'1000-01-01'", "'9999-12-31'", "'2024-00-00'", "'2024-05-00'", "'0001-01-01'"];
const date = fc.tuple(fc.integer({ min: 0, max: 9999 }), fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 28 }))
  .map(([y, m, d]) => `${pad(y, 4)}-${pad(m, 2)}-${pad(m === 0 ? 0 : d, 2)}`);
const clock = fc.tuple(fc.nat(23), fc.nat(59), fc.nat(59), fc.nat(999_999)).map(([h, m, s, f]) => `${pad(h, 2)}:${pad(m, 2)}:${pad(s, 2)}.${pad(f, 6)}`);
const time = fc.tuple(fc.boolean(), fc.nat(837), clock).map(([negative, hours, rest]) => `'${negative ? "-" : ""}${hours}${rest.slice(2)}'`);
const TIMES = ["'00:00:00'", "'838:59:59'", "'-838:59:59'", "'-00:00:00.4'", "'-00:00:01'", "'-00:00:00.000001'", "'-01:00:00.999999'", "'100:00:00.5'", "'23:59:59.994'"];
const DATETIMES = ["'0000-00-00 00:00:00'", "'9999-12-31 23:59:59'", "'1000-01-01 00:00:00'", "'2024-00-00 01:02:03.000004'", "'2026-11-21 09:08:07.654321'"];
const TIMESTAMPS = ["'0000-00-00 00:00:00'", "'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", "'2000-02-29 23:59:59.123456'", "'1999-12-31 23:59:59.9'", "'2024-03-01 00:00:00'", "'2106-02-07 06:28:15'"];
const timestamp = fc.tuple(fc.integer({ min: 1, max: 2 ** 31 - 2 }), fc.nat(999_999)).map(([s, f]) => `'${new Date(s * 1000).toISOString().slice(0, 19).replace("T", " ")}.${pad(f, 6)}'`);
const fractions = (type: string, values: readonly string[], random: fc.Arbitrary<string>): Column[] =>
  [0, 1, 2, 3, 4, 5, 6].map((digits) => ({ type: `${type}(${digits})${type === "timestamp" ? " NULL" : ""}`, values, random }));

const double = fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => `'${value}'`);
const DOUBLES = ["0", "'-0'", "0.1", "1e15", "1e14", "123456789012345", "1234567890123456", "123456789012345678", "1e-14", "1e-15", "1e-16", "'5e-324'", "'1.7976931348623157e308'",
  "'-2.2250738585072014e-308'", "1.5e300", "-1e100", "99999999999999.9", "0.000001234", "9007199254740993", "1e21", "1e22"];
const FLOATS = ["0", "'-0'", "0.1", "16777217", "'1e-45'", "'3.4028235e38'", "'1.17549435e-38'", "1e15", "1e-15", "999999", "1000000", "1234567", "3.14159274", "-33554432", "1e10"];
const float = fc.float({ noNaN: true, noDefaultInfinity: true }).map((value) => `'${value}'`);

const jsonText = fc.json({ maxDepth: 4 }).filter((text) => !/\\ud[89a-f]/i.test(text) && JSON.stringify(text).isWellFormed());
const DEEP = `${"[".repeat(99)}1${"]".repeat(99)}`;
const LARGE_OBJECT = JSON.stringify(Object.fromEntries(Array.from({ length: 3000 }, (_, i) => [`key ${i}`, i % 3 === 0 ? i * 100_000 : { n: -i, s: "x".repeat(i % 40) }])));
/** The server prints six digits, and then the same number as a double. Ours is the shortest that reads back, in the server's form. */
function sameFloat(decoded: string, printed: string): boolean {
  const [short = "", exact] = printed.split(" ");
  const value = Number(exact);
  if (Math.fround(Number(short)) === value) return decoded === short;
  const digits = decoded.replace(/e.*$/, "").replaceAll(/[-.]/g, "").replace(/^0+/, "").replace(/0+$/, "").length;
  return Math.fround(Number(decoded)) === value && Math.fround(Number(value.toPrecision(digits - 1))) !== value;
}

const JSON_VALUES = [
  ..."null|true|false|0|-1|127|-32768|32767|65535|-32769|65536|2147483647|-2147483648|4294967295|4294967296|-9223372036854775808|9223372036854775807|18446744073709551615".split("|"),
  "18446744073709551616", "1.0", "0.1", "-0.0", "1e300", "1.5e-300", "100000000000000000000", "123456789.123456789", '""', '"é日本🙂"', '"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f"',
  "[]", "{}", '[1,[2,[3,{}]],{"b":1,"a":[null]}]', '{"aa":1,"b":2,"":3,"c":{"x":"y"}}', LARGE_OBJECT, JSON.stringify("long ".repeat(20_000)), JSON.stringify(Array.from({ length: 20_000 }, (_, i) => i * 7919)),
].map(quoted);
const JSON_OF_SQL = [
  "JSON_ARRAY(CAST(1.50 AS DECIMAL(10,2)), CAST(-0.000000001 AS DECIMAL(65,30)), 12345678901234567890.123456789)",
  "JSON_OBJECT('d', DATE'2024-02-29', 't', TIME'-12:34:56.000789', 'dt', TIMESTAMP'2024-02-29 01:02:03.4', 'big', TIME'838:59:59')",
  "JSON_ARRAY(x'00ff10', b'101', CAST('text' AS BINARY))", `JSON_OBJECT('long', REPEAT(x'ab', 300))`, "CAST(CAST(1 AS UNSIGNED) AS JSON)", "JSON_ARRAY(ST_GeomFromText('POINT(1 2)'))",
  "JSON_ARRAY(1e0, 1e16, -0e0, 3.0e5, 1.25e0)", "JSON_ARRAY(CAST('2024-01-01 00:00:00' AS DATETIME), CAST(2024 AS YEAR))", quoted(DEEP),
];

const GEOMETRIES = ["ST_GeomFromText('POINT(1.5 -2)')", "ST_GeomFromText('LINESTRING(0 0,1 1,2 3)')", "ST_GeomFromText('POLYGON((0 0,0 3,3 3,0 0))', 4326)",
  "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')", "ST_GeomFromText('MULTIPOINT((0 0),(1 1))')"];

const SET_LABELS = Array.from({ length: 64 }, (_, i) => `m${i}`);

const COLUMNS: readonly Column[] = [
  ...integers("tinyint", 8), ...integers("smallint", 16), ...integers("mediumint", 24), ...integers("int", 32), ...integers("bigint", 64),
  decimal(65, 30), decimal(65, 0), decimal(38, 38 - 8), decimal(30, 30), decimal(10, 2), decimal(1, 0), decimal(9, 9), decimal(18, 9), decimal(19, 1), decimal(14, 4),
  { type: "decimal(20,5) UNSIGNED", values: ["0", "999999999999999.99999", "0.00001"] },
  { type: "double", values: DOUBLES, random: double, text: "c" },
  { type: "float", values: FLOATS, random: float, text: "c, c + 0e0", same: sameFloat },
  { type: "double(20,4)", values: ["1.5", "-0.00004", "1234567890123.4567", "0"], random: decimalText(15, 3), hint: { decimals: 4 } },
  { type: "float(10,2)", values: ["1.5", "-0.01", "1234567.25", "0"], random: decimalText(6, 2), hint: { decimals: 2 } },
  { type: "date", values: DATES, random: date.map((text) => `'${text}'`) }, { type: "year", values: ["0", "1901", "2155", "2026"], random: whole(1901n, 2155n) },
  ...fractions("time", TIMES, time), ...fractions("datetime", DATETIMES, fc.tuple(date, clock).map(([d, c]) => `'${d} ${c}'`)), ...fractions("timestamp", TIMESTAMPS, timestamp),
  ...[1, 7, 8, 9, 33, 64].map((bits): Column => ({ type: `bit(${bits})`, values: ["0", "1", `${(1n << BigInt(bits)) - 1n}`], random: whole(0n, (1n << BigInt(bits)) - 1n), text: `LPAD(BIN(c + 0), ${bits}, '0')` })),
  { type: "enum('a','b,c','it''s','é','日本','')", values: ["'a'", "'b,c'", "'it''s'", "'é'", "'日本'", "''", "'not a label'"] },
  { type: "enum('ä','€','x') CHARACTER SET latin1", values: ["'ä'", "'€'", "'x'"] },
  { type: `enum(${Array.from({ length: 300 }, (_, i) => `'l${i}'`).join(",")})`, values: ["'l0'", "'l254'", "'l255'", "'l299'"] },
  { type: "set('a','it''s','c d','ü') CHARACTER SET latin2", values: ["''", "'a'", "'a,it''s,c d,ü'", "'ü'", "'c d,a'"] },
  { type: `set(${SET_LABELS.map((label) => `'${label}'`).join(",")})`, values: ["''", `'${SET_LABELS.join(",")}'`, "'m63'", "'m0,m31,m32,m63'"], random: fc.subarray(SET_LABELS).map((labels) => `'${labels.join(",")}'`) },
  { type: "char(10)", values: ["''", "'x'", "'trailing  '", "'  lead'", "'日本語日本語日本語日'", "'🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂'"], random: unicode(10) },
  { type: "char(255)", values: ["''", "REPEAT('é', 255)", "REPEAT('🙂', 255)", "'x'"], random: unicode(255) },
  { type: "char(255) CHARACTER SET utf8mb3", values: ["REPEAT('日', 255)", "'x'"] },
  { type: "char(20) CHARACTER SET latin1", values: ["''", "'äöü€ß'", "'plain'"] }, { type: "char(5) CHARACTER SET ascii", values: ["'abc'", "''"] },
  { type: "char(10) CHARACTER SET ucs2", values: ["'añ日'", "''"] },
  { type: "varchar(60)", values: ["''", "' '", "'trailing  '", "'tab\\t nul\\0 quote'' \\\\ \\n'", "'日本語 🙂 ñ'"], random: unicode(60) },
  { type: "varchar(300)", values: ["''", "REPEAT('🙂', 300)", "REPEAT('x', 300)"], random: unicode(300) },
  { type: "varchar(60) CHARACTER SET utf16", values: ["'日本 🙂'", "'plain'", "''"], random: unicode(60) }, { type: "varchar(60) CHARACTER SET utf32", values: ["'日本 🙂'"], random: unicode(60) },
  { type: "varchar(60) CHARACTER SET utf16le", values: ["'日本 🙂'"], random: unicode(60) },
  { type: "varchar(60) CHARACTER SET latin1", values: ["'€ „quoted“ ÿ'", "''", "REPEAT('é', 60)"] },
  { type: "tinytext", values: ["''", "'é'", "REPEAT('x', 255)"] }, { type: "text", values: ["''", "REPEAT('ñ', 20000)"], random: unicode(200) },
  { type: "mediumtext", values: ["REPEAT('long ', 20000)", "''"] }, { type: "longtext CHARACTER SET latin1", values: ["REPEAT('ä', 70000)", "''"] },
  { type: "binary(16)", values: ["''", "x'00'", "x'00112233445566778899aabbccddee00'", "x'61'"], random: binary(16), text: AS_HEX },
  { type: "binary(255)", values: ["''", "REPEAT(x'00ff', 127)"], random: binary(255), text: AS_HEX },
  { type: "varbinary(300)", values: ["''", "x'00'", "x'610020'", "REPEAT(x'ff', 300)"], random: binary(300), text: AS_HEX },
  { type: "tinyblob", values: ["''", "x'00ff'"], text: AS_HEX }, { type: "blob", values: ["''", "REPEAT(x'deadbeef', 5000)"], random: binary(500), text: AS_HEX },
  { type: "mediumblob", values: ["x'0102'"], text: AS_HEX }, { type: "longblob", values: ["REPEAT(x'01', 70000)", "''"], text: AS_HEX },
  { type: "json", values: JSON_VALUES, random: jsonText.map(hexOf) }, { type: "json", values: JSON_OF_SQL, only: "mysql" },
  { type: "geometry", values: GEOMETRIES, text: AS_HEX }, { type: "point", values: [GEOMETRIES[0]!], text: AS_HEX },
  { type: "vector(3)", values: ["STRING_TO_VECTOR('[1,-2.5,3e10]')"], text: AS_HEX, only: "mysql" },
  { type: "uuid", values: ["'00000000-0000-0000-0000-000000000000'", "'123e4567-e89b-12d3-a456-426614174000'", "'f47ac10b-58cc-4372-a567-0e02b2c3d479'", "'01890a5d-ac96-774b-bcce-b302099a8057'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    random: fc.uuid().map((text) => `'${text}'`), hint: { kind: "uuid" }, only: "mariadb" },
  { type: "inet4", values: ["'0.0.0.0'", "'255.255.255.255'", "'192.168.0.1'", "'10.0.0.0'"], hint: { kind: "inet4" }, only: "mariadb" },
  { type: "inet6", values: ["'::'", "'::1'", "'::ffff:1.2.3.4'", "'::1.2.3.4'", "'::102'", "'2001:db8::1'", "'1:0:0:2:0:0:0:3'", "'1:0:2:0:3:0:4:0'", "'fe80::'", "'1:2:3:4:5:6:7:8'", "'::ffff'"],
    random: fc.ipV6().map((text) => `'${text}'`), hint: { kind: "inet6" }, only: "mariadb" },
  { type: "varchar(200) COMPRESSED", values: ["''", "'x'", "REPEAT('é', 200)"], random: unicode(200), only: "mariadb" },
  { type: "blob COMPRESSED", values: ["''", "REPEAT(x'00ff', 3000)", "x'01'"], text: AS_HEX, only: "mariadb" },
  { type: "longtext COMPRESSED CHARACTER SET latin1", values: ["REPEAT('ä', 5000)"], only: "mariadb" },
  { type: "varchar(20) CHARACTER SET cp1251", values: ["'привет'"] },
];

const columnsOf = (flavour: Flavour): readonly Column[] => COLUMNS.filter(({ only }) => only === undefined || only === flavour);

/** Edge values first, then random ones. */
function valuesOf(column: Column): readonly string[] {
  return column.random === undefined ? column.values : [...column.values, ...fc.sample(column.random, { seed: SEED, numRuns: RANDOM_VALUES })];
}

type Texts = readonly (string | null)[];

async function printedTexts(server: BinlogServer, { text = AS_TEXT }: Column, table: string): Promise<Texts> {
  const rows = await server.select(`SELECT ${text} FROM ${table} ORDER BY id`);
  return rows.map((row) => (row[0] === null ? null : row.join(" ")));
}

function sameTexts(column: Column, printed: Texts, decoded: Texts): boolean {
  return printed.every((text, i) => (text === null || decoded[i] === null || decoded[i] === undefined ? text === decoded[i] : (column.same ?? Object.is)(decoded[i], text)));
}

/** The decoded values of one column, by row. */
const column = (rows: readonly LoggedRow[], side: "before" | "after", at: number): Texts => rows.map((row) => row[side]?.[at] ?? null);

function differences(type: string, what: string, checked: Column, printed: Texts, decoded: Texts): string[] {
  const faults = printed.flatMap((text, i) => (sameTexts(checked, [text], [decoded[i] ?? null]) ? [] : [`${type}, ${what}: printed ${shown(text)}, decoded ${shown(decoded[i] ?? null)}`]));
  return printed.length === decoded.length ? faults : [...faults, `${type}, ${what}: ${printed.length} rows printed, ${decoded.length} decoded`];
}

const shown = (text: string | null): string => (text === null ? "NULL" : JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text));

const TAIL = "ümlaut ÿ€";

async function everyType(server: BinlogServer, columns: readonly Column[]): Promise<string[]> {
  const printed: { inserted: Texts; updated: Texts }[] = [];
  const log = await server.logOf(async () => {
    for (const [i, checked] of columns.entries()) {
      const values = valuesOf(checked);
      const rows = [...values, "NULL"].map((value, n) => `(${n}, 'é', ${value}, '${TAIL}')`);
      await server.run(`CREATE TABLE t${i} (id int PRIMARY KEY, head varchar(9) CHARACTER SET utf16, c ${checked.type}, tail varchar(20) CHARACTER SET latin1)`, `INSERT INTO t${i} VALUES ${rows.join(", ")}`);
      const inserted = await printedTexts(server, checked, `t${i}`);
      await server.run(`UPDATE t${i} SET c = ${values.at(-1)}, head = id ORDER BY id`);
      printed.push({ inserted, updated: await printedTexts(server, checked, `t${i}`) });
      await server.run(`DELETE FROM t${i} ORDER BY id`);
    }
  }, { hints: (_schema, table) => hintOf(columns[Number(table.slice(1))]) });
  return columns.flatMap((checked, i) => faultsOf(checked, log.rows.filter(({ table }) => table === `t${i}`), printed[i]!));
}

function hintOf(checked: Column | undefined): ReadonlyMap<string, ColumnHint> | undefined {
  return checked?.hint === undefined ? undefined : new Map([["c", checked.hint]]);
}

function faultsOf(checked: Column, rows: readonly LoggedRow[], printed: { inserted: Texts; updated: Texts }): string[] {
  const of = (kind: LoggedRow["kind"]): LoggedRow[] => rows.filter((row) => row.kind === kind);
  const tails = rows.flatMap(({ before, after }) => [before, after]).flatMap((row) => (row === null || row[3] === TAIL ? [] : [`${checked.type}: what stands behind it is ${shown(row[3] ?? null)}`]));
  return [
    ...differences(checked.type, "inserted", checked, printed.inserted, column(of(ROW.insert), "after", 2)),
    ...differences(checked.type, "before the update", checked, printed.inserted, column(of(ROW.update), "before", 2)),
    ...differences(checked.type, "updated", checked, printed.updated, column(of(ROW.update), "after", 2)),
    ...differences(checked.type, "deleted", checked, printed.updated, column(of(ROW.delete), "before", 2)),
    ...tails.slice(0, 1),
  ];
}

describe.each(["mysql", "mariadb"] as const)("binary log of %s", (flavour) => {
  const url = SERVER_URLS[flavour];
  describe.skipIf(url === undefined)(`of the server in DUALRUN_TEST_${flavour.toUpperCase()}_URL`, () => {
    let server: BinlogServer;
    beforeAll(async () => {
      console.log(`DUALRUN_TEST_SEED=${SEED}`);
      server = await BinlogServer.connect(url!);
    });
    afterAll(async () => {
      await server[Symbol.asyncDispose]();
    });

    test("every type, inserted, updated and deleted", { timeout: 120_000 }, async () => {
      const faults = await everyType(server, columnsOf(flavour));
      expect(faults).toEqual([]);
    });
  });
});
