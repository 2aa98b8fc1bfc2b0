/** What the decoder reads in a real server's binary log is what the server itself prints. */
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { BinlogDecoder } from "../../connectors/mysql/decoder.ts";
import { EVENT, FLAG_IGNORABLE } from "../../connectors/mysql/events.ts";
import { DualrunError } from "../../src/core/index.ts";
import { BinlogServer, ROW, type Flavour, type LoggedRow } from "../support/binlog.ts";
import { orSkip } from "../support/servers.ts";
import type { ColumnHint } from "../../connectors/mysql/types.ts";

const SEED = Number(process.env.DUALRUN_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
const RANDOM_VALUES = Number(process.env.DUALRUN_TEST_VALUES ?? 60);

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
const unicode = (max: number): fc.Arbitrary<string> => fc.string({ unit: "grapheme", maxLength: max }).filter((text) => Array.from(text).length <= max).map(hexOf);
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
  ...[1, 7, 8, 9, 33, 64].map((bits): Column => ({ type: `bit(${bits})`, values: ["0", "1", `${(1n << BigInt(bits)) - 1n}`], random: whole(0n, (1n << BigInt(bits)) - 1n), text: "BIN(c + 0)", same: (decoded, printed) => decoded === printed.padStart(bits, "0") })),
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
  ...[255, 256].flatMap((length): Column[] => [
    { type: `varchar(${length}) CHARACTER SET latin1`, values: ["'x'", "''", `REPEAT('é', ${length})`] }, { type: `varbinary(${length})`, values: ["'x'", `REPEAT(x'80', ${length})`], text: AS_HEX },
    { type: `enum(${Array.from({ length }, (_, i) => `'l${i}'`).join(",")})`, values: ["'l0'", "'l254'", `'l${length - 1}'`] },
  ]),
  ...[63, 64, 127, 128].map((length): Column => ({ type: `char(${length})`, values: ["'x'", `REPEAT('🙂', ${length})`] })),
  ...[8, 9, 16, 17, 24, 25, 32, 33].map((length): Column => ({ type: `set(${SET_LABELS.slice(0, length).map((label) => `'${label}'`).join(",")})`, values: ["'m0'", `'m${length - 1}'`, `'m0,m7,m${length - 1}'`] })),
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

/** A row of many columns, each of them with a value of its own. */
async function wideTable(server: BinlogServer, columns: readonly Column[]): Promise<string[]> {
  const name = `wide${++wideTables}`;
  const values = columns.map(valuesOf).map((all) => all.filter((value) => value.length < 300));
  let printed: (string | null)[][] = [];
  const log = await server.logOf(async () => {
    await server.run(`CREATE TABLE ${name} (${columns.map(({ type }, i) => `c${i} ${type}`).join(", ")}, id int PRIMARY KEY) ROW_FORMAT=DYNAMIC`);
    for (let row = 0; row < 20; row++) await server.run(`INSERT INTO ${name} VALUES (${values.map((all, i) => ((row + i) % 7 === 0 ? "NULL" : all[row % all.length])).join(", ")}, ${row})`);
    printed = await server.select(`SELECT ${columns.map(({ text = AS_TEXT }, i) => text.replace(/, .*/, "").replace(/\bc\b/, `c${i}`)).join(", ")} FROM ${name} ORDER BY id`);
  }, { hints: () => new Map(columns.flatMap(({ hint }, i): [string, ColumnHint][] => (hint === undefined ? [] : [[`c${i}`, hint]]))) });
  expect(log.rows.length).toBe(20);
  return columns.flatMap((checked, i) => (checked.type === "float" ? [] : differences(checked.type, "in a wide row", checked, printed.map((row) => row[i]!), column(log.rows, "after", i))));
}

let wideTables = 0;

const SINGLE_BYTE = ["latin1", "latin2", "latin5", "latin7", "cp850", "cp852", "cp866", "cp1250", "cp1251", "cp1256", "cp1257", "koi8r", "koi8u", "greek", "hebrew", "macroman", "macce", "tis620",
  "armscii8", "dec8", "hp8", "swe7", "keybcs2", "geostd8"];
const MULTI_BYTE = ["gbk", "gb2312", "sjis", "cp932", "euckr", "ucs2", "utf16", "utf16le", "utf32", "utf8mb3"];
const ALL_BYTES = Buffer.from(Array.from({ length: 255 }, (_, i) => i + 1)).toString("hex");

/** Characters of the basic plane in pieces; private ones apart, which cp932 and gb18030 have and the decoder refuses. */
function charactersOf(charset: string): string[] {
  if (SINGLE_BYTE.includes(charset)) return [`INSERT INTO cs_${charset} VALUES (1, CONVERT(x'${ALL_BYTES}' USING ${charset}))`];
  return Array.from({ length: 128 }, (_, piece) => {
    const points = Array.from({ length: 512 }, (_, i) => piece * 512 + i).filter((point) => point > 0 && (point < 0xd800 || point > 0xf8ff));
    return `INSERT INTO cs_${charset} VALUES (${piece}, ${hexOf(String.fromCodePoint(...points))})`;
  });
}

const SILENT = { event: (): void => undefined, row: (): void => undefined };

interface Outcome {
  readonly refusedIt: boolean;
  /** What is wrong with it. */
  readonly fault: string | null;
}

const CHECKSUM = 4;
const isTableMap = (event: Buffer | undefined): boolean => event?.[4] === EVENT.tableMap;
const isFormat = (event: Buffer): boolean => event[4] === EVENT.formatDescription;

/** The event without its checksum, changed in one place. */
function withByte(event: Buffer, at: number, value: number): Buffer {
  const copy = Buffer.from(event);
  copy[at] = value;
  copy.writeUInt32LE(crc32(copy.subarray(0, -CHECKSUM)), copy.length - CHECKSUM);
  return copy;
}

/** Rows and tuples of whole events, with their checksums. */
function decodeAll(events: readonly Buffer[]): string {
  const rows: string[] = [];
  const decoder: BinlogDecoder = new BinlogDecoder({ checksum: true }, { ...SILENT, row: (kind) => rows.push(String(kind)) });
  for (const event of events) decoder.event(event, 0, event.length);
  return `${rows.join()} ${decoder.tuples.release().toString("hex")}`;
}

/** The event at `index`, cut short and with changed bytes, between zeros and between ones: both have to end alike. */
function brokenOutcomes(raw: readonly Buffer[], index: number, hints: (table: string) => ReadonlyMap<string, ColumnHint> | undefined): Outcome[] {
  const event = raw[index]!.subarray(0, -CHECKSUM);
  const before = isTableMap(raw[index - 1]) ? raw[index - 1]!.subarray(0, -CHECKSUM) : null;
  const cuts = Array.from({ length: 12 }, (_, i) => event.subarray(0, Math.floor((event.length * i) / 12)));
  const changed = fc.sample(fc.tuple(fc.nat(event.length - 1), fc.integer({ min: 1, max: 255 })), { seed: SEED + index, numRuns: 8 }).map(([at, flip]) => {
    const copy = Buffer.from(event);
    copy[at]! ^= flip;
    return copy;
  });
  return [...cuts, ...changed].map((broken) => {
    const [zeros, ones] = [0, 0xff].map((fill) => decodeBetween(before, broken, fill, hints));
    return { refusedIt: zeros!.startsWith("refused"), fault: zeros === ones && !zeros!.startsWith("threw") ? null : `${index}: ${zeros} / ${ones}` };
  });
}

function decodeBetween(before: Buffer | null, broken: Buffer, fill: number, hints: (table: string) => ReadonlyMap<string, ColumnHint> | undefined): string {
  const rows: string[] = [];
  const decoder: BinlogDecoder = new BinlogDecoder({ checksum: false, hints: (_schema, table) => hints(table) }, { ...SILENT, row: (kind) => rows.push(String(kind)) });
  try {
    for (const event of before === null ? [broken] : [before, broken]) {
      const around = Buffer.concat([Buffer.alloc(64, fill), event, Buffer.alloc(64, fill)]);
      if (event.length >= 13) around.writeUInt32LE(event.length, 64 + 9);
      decoder.event(around, 64, 64 + event.length);
    }
    return `${rows.join()} ${decoder.tuples.release().toString("hex")}`;
  } catch (error) {
    return error instanceof DualrunError ? `refused: ${error.message}` : `threw ${String(error)}`;
  }
}

describe.each(["mysql", "mariadb"] as const)("binary log of %s", (flavour) => {
  describe("of a server of its own: its global settings are changed", () => {
    let server: BinlogServer;
    let unavailable: unknown = null;
    beforeAll(async () => {
      console.log(`DUALRUN_TEST_SEED=${SEED}`);
      server = await BinlogServer.start(flavour).catch((error: unknown) => {
        unavailable = error;
        return null as never;
      });
    });
    beforeEach((context) => (unavailable === null ? undefined : orSkip(context, Promise.reject(unavailable as Error))));
    afterAll(async () => {
      if (unavailable === null) await server[Symbol.asyncDispose]();
    });

    test("every type, inserted, updated and deleted", { timeout: 120_000 }, async () => {
      const faults = await everyType(server, columnsOf(flavour));
      expect(faults).toEqual([]);
    });

    test("many types in one row, in any order", { timeout: 120_000 }, async () => {
      const faults: string[] = [];
      for (const order of fc.sample(fc.shuffledSubarray([...columnsOf(flavour)], { minLength: 25, maxLength: 25 }), { seed: SEED, numRuns: 4 })) faults.push(...await wideTable(server, order));
      expect(faults).toEqual([]);
    });

    test("every character of the single-byte character sets, and those of gbk, gb18030, gb2312, sjis, cp932 and euckr", { timeout: 120_000 }, async () => {
      const printed = new Map<string, Texts>();
      const log = await server.logOf(async () => {
        for (const charset of [...SINGLE_BYTE, ...MULTI_BYTE, ...(flavour === "mysql" ? ["gb18030"] : [])]) {
          await server.run(`CREATE TABLE cs_${charset} (id int PRIMARY KEY, c text CHARACTER SET ${charset})`, ...charactersOf(charset));
          printed.set(`cs_${charset}`, (await server.select(`SELECT CONVERT(c USING utf8mb4) FROM cs_${charset} ORDER BY id`)).flat());
        }
      });
      const decoded = (table: string): Texts => column(log.rows.filter((row) => row.table === table), "after", 1);
      expect([...printed].filter(([table, texts]) => texts.join() !== decoded(table).join()).map(([table]) => table)).toEqual([]);
      expect([...printed].flatMap(([table, texts]) => (texts.join("").length > 100 ? [] : [table]))).toEqual([]);
    });

    test("what the log says of a table: names, key, labels, invisible and generated columns", async () => {
      const log = await server.logOf(async () => {
        await server.run(`CREATE TABLE \`tëst "q"\` (\`a \`\`x\` int NOT NULL, b varchar(50) NOT NULL, hidden int INVISIBLE DEFAULT 7, e enum('x,y','it''s'), p point,
            doubled int AS (\`a \`\`x\` * 2) STORED, virt int AS (\`a \`\`x\` + 1) VIRTUAL, u bigint unsigned, PRIMARY KEY (b(10), \`a \`\`x\`)${flavour === "mysql" ? ", KEY f ((lower(b)))" : ""})`,
          "INSERT INTO `tëst \"q\"` (`a ``x`, b, hidden, e, u) VALUES (1, 'B', 2, 'it''s', 18446744073709551615)");
      });
      const table = log.tables.get('tëst "q"')!;
      expect(table.columns.map(({ name }) => name)).toEqual(["a `x", "b", "hidden", "e", "p", "doubled", "virt", "u"]);
      expect(table.primaryKey).toEqual([{ column: 1, prefix: 10 }, { column: 0, prefix: 0 }]);
      expect(table.columns.map(({ visible }) => visible)).toEqual(table.columns.map(({ name }) => (flavour === "mysql" ? name !== "hidden" : null)));
      expect(table.columns.map(({ nullable }) => nullable)).toEqual([false, false, true, true, true, true, true, true]);
      expect(table.columns.map(({ charset }) => charset).slice(0, 4)).toEqual([null, "utf8mb4", null, "utf8mb4"]);
      expect(table.columns[3]!.labels?.map(String)).toEqual(["x,y", "it's"]);
      expect([table.columns[4]!.geometryType, table.columns[7]!.unsigned, table.columns[0]!.unsigned]).toEqual([1, true, false]);
      expect(log.rows.map(({ after }) => after)).toEqual([["1", "B", "2", "it's", null, "2", "2", "18446744073709551615"]]);
    });

    test("a dropped and recreated table is read as it was", async () => {
      const log = await server.logOf(async () => {
        await server.run("CREATE TABLE swapped (a int, b varchar(9))", "INSERT INTO swapped VALUES (1, 'one')", "DROP TABLE swapped", "CREATE TABLE swapped (b varchar(9), a bigint unsigned, c int)",
          "INSERT INTO swapped VALUES ('two', 2, 3)", "DROP TABLE swapped");
      });
      expect(log.rows.map(({ after }) => after)).toEqual([["1", "one"], ["two", "2", "3"]]);
    });

    test("statements, transactions, rotation and heartbeats", { timeout: 60_000 }, async () => {
      const log = await server.logOf(async () => {
        await server.run("SET character_set_client = latin1", "CREATE TABLE q (n int) COMMENT 'é'", "SET NAMES utf8mb4", "START TRANSACTION", "INSERT INTO q VALUES (1), (2)", "UPDATE q SET n = n + 10", "COMMIT",
          "FLUSH BINARY LOGS", "TRUNCATE TABLE q", "XA START 'a', 'b', 3", "INSERT INTO q VALUES (5)", "XA END 'a', 'b', 3", "XA PREPARE 'a', 'b', 3", "XA COMMIT 'a', 'b', 3");
      });
      const queries = log.events.flatMap((event) => (event.kind === "query" ? [event] : []));
      expect(queries.filter(({ schema }) => schema === server.database).map(({ text }) => text)).toContain("CREATE TABLE q (n int) COMMENT 'é'");
      expect(queries.some(({ text }) => text.startsWith("TRUNCATE TABLE q"))).toBe(true);
      expect(log.rows.map(({ kind, before, after }) => [kind, before?.[0], after?.[0]])).toEqual([
        [ROW.insert, undefined, "1"], [ROW.insert, undefined, "2"], [ROW.update, "1", "11"], [ROW.update, "2", "12"], [ROW.insert, undefined, "5"],
      ]);
      expect(log.events.filter(({ kind }) => kind === "xid").length).toBeGreaterThanOrEqual(1);
      expect(log.events.filter(({ kind }) => kind === "xa-prepare")).toEqual([{ kind: "xa-prepare", onePhase: false, xid: "X'61',X'62',3" }]);
      const rotations = log.events.flatMap((event) => (event.kind === "rotate" ? [event] : []));
      expect(new Set(rotations.map(({ file }) => file)).size).toBe(2);
      expect(rotations.at(-1)!.position).toBe(4n);
      expect(log.events.flatMap((event) => (event.kind === "format" ? [event.isMariaDb] : []))).toEqual([flavour === "mariadb", flavour === "mariadb"]);

      for (const flags of [0, 2]) {
        const idle = await server.idleLog(flags);
        const [file, position] = (await server.select("SHOW BINARY LOGS")).at(-1)!;
        expect(idle.events.at(-1)).toEqual({ kind: "heartbeat", file, position: BigInt(position!) });
        expect(idle.headers.at(-1)!.type).toBe(flavour === "mysql" && flags === 2 ? EVENT.heartbeatV2 : EVENT.heartbeat);
      }
    });

    test("a row of more than 16 MB, one of 300 columns, partitions, and JSON that was changed in place", { timeout: 60_000 }, async () => {
      let printed: Texts = [];
      const log = await server.logOf(async () => {
        await server.run("CREATE TABLE large (a longtext, b longblob)", "INSERT INTO large VALUES (REPEAT('é', 5000000), REPEAT(x'00ff', 5000000))",
          "CREATE TABLE parts (id int PRIMARY KEY, c varchar(9)) PARTITION BY HASH (id) PARTITIONS 4", "INSERT INTO parts VALUES (1, 'one'), (2, 'two')", "UPDATE parts SET id = id + 10, c = 'moved'", "DELETE FROM parts",
          `CREATE TABLE many (${Array.from({ length: 300 }, (_, i) => `c${i} int`).join(", ")})`, `INSERT INTO many VALUES (${Array.from({ length: 300 }, (_, i) => (i % 3 === 0 ? "NULL" : i)).join(", ")})`,
          "CREATE TABLE in_place (j json)", `INSERT INTO in_place VALUES ('{"a": "${"x".repeat(100)}", "b": [1, 2, 3], "c": 123456789012}')`,
          "UPDATE in_place SET j = JSON_SET(j, '$.a', 'short', '$.c', 7)", "UPDATE in_place SET j = JSON_REMOVE(JSON_REPLACE(j, '$.b[1]', 'two'), '$.b[0]')");
        printed = (await server.select("SELECT CAST(j AS CHAR) FROM in_place")).flat();
      });
      const of = (table: string): LoggedRow[] => log.rows.filter((row) => row.table === table);
      expect(of("large").map(({ after }) => [after?.[0] === "é".repeat(5_000_000), after?.[1] === "00ff".repeat(5_000_000)])).toEqual([[true, true]]);
      expect(of("parts").map(({ kind, before, after }) => [kind, before?.join(), after?.join()])).toEqual(expect.arrayContaining([
        [ROW.insert, undefined, "1,one"], [ROW.insert, undefined, "2,two"], [ROW.update, "1,one", "11,moved"], [ROW.update, "2,two", "12,moved"], [ROW.delete, "11,moved", undefined], [ROW.delete, "12,moved", undefined],
      ]));
      expect(of("parts").length).toBe(6);
      expect(of("many")[0]!.after).toEqual(Array.from({ length: 300 }, (_, i) => (i % 3 === 0 ? null : String(i))));
      expect(of("in_place").at(-1)!.after).toEqual(printed);
    });

    test.runIf(flavour === "mysql")("GTIDs, with tags and without", async (context) => {
      const [[mode]] = await server.select("SELECT @@global.gtid_mode") as [[string]];
      if (mode !== "ON") return context.skip(`gtid_mode is ${mode}`);
      const source = crypto.randomUUID();
      const log = await server.logOf(async () => {
        await server.run("CREATE TABLE g (n int)");
        for (const gtid of [`${source}:9000000000000000001`, `${source}:my_tag:300`]) await server.run(`SET gtid_next = '${gtid}'`, "INSERT INTO g VALUES (1)", "SET gtid_next = 'AUTOMATIC'");
      });
      const gtids = log.events.flatMap((event) => (event.kind === "gtid" ? [event] : []));
      expect(gtids.map(({ gtid }) => gtid)).toEqual(expect.arrayContaining([`${source}:9000000000000000001`, `${source}:my_tag:300`]));
      expect(gtids.every(({ committedAt }) => Math.abs(committedAt! / 1000 - Date.now()) < 60_000)).toBe(true);

      await server.run("SET GLOBAL gtid_mode = ON_PERMISSIVE", "SET GLOBAL gtid_mode = OFF_PERMISSIVE");
      try {
        const anonymous = await server.logOf(() => server.run("INSERT INTO g VALUES (2)"));
        expect(anonymous.events.flatMap((event) => (event.kind === "gtid" ? [event.gtid] : []))[0]).toBeNull();
      } finally {
        await server.run("SET GLOBAL gtid_mode = ON_PERMISSIVE", "SET GLOBAL gtid_mode = ON");
      }
    });

    test.runIf(flavour === "mariadb")("MariaDB's GTIDs", async () => {
      const last: (string | null)[] = [];
      const log = await server.logOf(async () => {
        await server.run("SET gtid_domain_id = 7, server_id = 4000000000", "CREATE TABLE g (n int)");
        for (const statement of ["INSERT INTO g VALUES (1)", "TRUNCATE TABLE g"]) {
          await server.run(statement);
          last.push((await server.select("SELECT @@last_gtid"))[0]![0]!);
        }
        await server.run("FLUSH BINARY LOGS", "SET gtid_domain_id = DEFAULT, server_id = DEFAULT");
      });
      const gtids = log.events.flatMap((event) => (event.kind === "mariadb-gtid" ? [event] : []));
      const found = last.map((gtid) => gtids.find((event) => event.gtid === gtid));
      expect(found.map((gtid) => [gtid?.standalone, gtid?.ddl, gtid?.xa])).toEqual([[false, false, null], [true, true, null]]);
      expect(last.every((gtid) => gtid!.startsWith("7-4000000000-"))).toBe(true);
      const lists = log.events.flatMap((event) => (event.kind === "mariadb-gtid-list" ? [event.gtids] : []));
      expect(lists.at(-1)).toContain(last[1]);
    });

    test.runIf(flavour === "mariadb")("compressed events and the older temporal forms of MariaDB", async () => {
      const old = ["time", "datetime", "timestamp"].flatMap((type) => [0, 1, 2, 3, 4, 5, 6].map((digits) => ({ name: `${type}${digits}`, type: `${type}(${digits}) NULL`, digits })));
      const [[wasFormat, wasCompressed]] = await server.select("SELECT @@global.mysql56_temporal_format, @@global.log_bin_compress") as [[string, string]];
      let printed: (string | null)[][] = [];
      try {
        const log = await server.logOf(async () => {
          await server.run("SET GLOBAL mysql56_temporal_format = OFF", "SET GLOBAL log_bin_compress = ON", `CREATE TABLE old (${old.map(({ name, type }) => `${name} ${type}`).join(", ")}, filler text)`);
          for (const [time, moment] of [["'-12:34:56.987654'", "'2024-02-29 23:59:58.123456'"], ["'838:59:59'", "'2000-01-01 00:00:00.000001'"], ["'-00:00:00.5'", "'0000-00-00 00:00:00'"]] as const) {
            await server.run(`INSERT INTO old VALUES (${old.map(({ type }) => (type.startsWith("time(") ? time : moment)).join(", ")}, REPEAT('compressed ', 100))`);
          }
          await server.run(`UPDATE old SET filler = CONCAT(filler, 'ü') /* ${"long ".repeat(100)} */`, `CREATE TABLE long_statement (n int) COMMENT '${"x".repeat(500)}'`);
          printed = await server.select("SELECT * FROM old");
        }, { hints: () => new Map(old.map(({ name, digits }): [string, ColumnHint] => [name, { decimals: digits }])) });
        const types = log.raw.map((event) => event[4]!);
        expect(types).toEqual(expect.arrayContaining([165, 166, 167]));
        expect(log.rows.flatMap(({ kind, after }) => (kind === ROW.update ? [after] : []))).toEqual(printed);
        expect(log.events.some((event) => event.kind === "query" && event.text.endsWith(`'${"x".repeat(500)}'`))).toBe(true);
        await expect(server.logOf(() => server.run("DELETE FROM old"))).rejects.toMatchObject({ code: "DR5009", message: expect.stringContaining('"time0"') as string });
      } finally {
        await server.run(`SET GLOBAL mysql56_temporal_format = ${wasFormat}`, `SET GLOBAL log_bin_compress = ${wasCompressed}`);
      }
    });

    const refusals: readonly (readonly [name: string, only: Flavour | null, work: readonly string[], message: string])[] = [
      ["a minimal row image", null, ["SET SESSION binlog_row_image = MINIMAL", "UPDATE r SET n = 2"], "without some of its columns"],
      ["a row image without BLOBs", null, ["SET SESSION binlog_row_image = NOBLOB", "UPDATE r SET n = 3"], "without some of its columns"],
      ["a partial update of JSON", "mysql", ["SET SESSION binlog_row_value_options = PARTIAL_JSON", "UPDATE r SET j = JSON_SET(j, '$.a', 2)"], "JSON is logged in part"],
      ["a compressed transaction", "mysql", ["SET SESSION binlog_transaction_compression = ON", "UPDATE r SET n = 4"], "a transaction is compressed"],
      ["a character set that cannot be decoded", null, ["CREATE TABLE r2 (c varchar(9) CHARACTER SET big5)", "INSERT INTO r2 VALUES ('x')"], "character set big5"],
    ];
    test.each(refusals.filter(([, only]) => only === null || only === flavour))("%s is refused by name", async (_name, _only, work, message) => {
      await server.run("DROP TABLE IF EXISTS r, r2", "CREATE TABLE r (id int PRIMARY KEY, n int, j json, b blob)", `INSERT INTO r VALUES (1, 1, '{"a": 1, "b": "${"x".repeat(200)}"}', 'blob')`);
      try {
        await expect(server.logOf(() => server.run(...work))).rejects.toMatchObject({ code: "DR5009", message: expect.stringContaining(message) as string });
      } finally {
        await server.run(...work.filter((statement) => statement.startsWith("SET")).map((statement) => statement.replace(/= .*/, "= DEFAULT")));
      }
    });

    test("a log without full metadata is refused, naming the setting", async () => {
      try {
        await expect(server.logOf(() => server.run("SET GLOBAL binlog_row_metadata = MINIMAL", "CREATE TABLE m (n int)", "INSERT INTO m VALUES (1)"))).rejects
          .toMatchObject({ code: "DR5009", next: expect.stringContaining("binlog_row_metadata = FULL") as string });
      } finally {
        await server.run("SET GLOBAL binlog_row_metadata = FULL");
      }
    });

    test("truncated and corrupted events end in an error and never read what stands beside them", { timeout: 120_000 }, async () => {
      const columns = columnsOf(flavour).filter(({ values }) => values.every((value) => value.length < 500));
      const log = await server.logOf(async () => {
        for (const [i, checked] of columns.entries()) {
          await server.run(`CREATE TABLE x${i} (id int PRIMARY KEY, c ${checked.type})`, ...checked.values.slice(0, 6).map((value, n) => `INSERT INTO x${i} VALUES (${n}, ${value})`));
        }
      }, { hints: (_schema, table) => hintOf(columns[Number(table.slice(1))]) });
      const outcomes = log.raw.slice(0, 3000).flatMap((_, i) => brokenOutcomes(log.raw, i, (table) => hintOf(columns[Number(table.slice(1))])));
      expect(outcomes.filter(({ fault }) => fault !== null)).toEqual([]);
      expect(outcomes.filter(({ refusedIt }) => refusedIt).length).toBeGreaterThan(1000);
      expect(() => decodeAll([log.raw.find(isTableMap)!, log.raw.find(isFormat)!, log.raw[log.raw.findIndex(isTableMap) + 1]!])).toThrow("never described");
      expect(() => decodeAll([withByte(log.raw.find(isTableMap)!, 4, 200)])).toThrow("unknown type 200");
      expect(() => decodeAll([withByte(log.raw.find(isTableMap)!, 4, EVENT.incident)])).toThrow("INCIDENT");
      expect(decodeAll([withByte(withByte(log.raw.find(isTableMap)!, 4, 200), 17, FLAG_IGNORABLE)])).toBe(" ");
      const damaged = Buffer.from(log.raw.find(isTableMap)!);
      damaged[30]! ^= 1;
      expect(() => new BinlogDecoder({ checksum: true }, SILENT).event(damaged, 0, damaged.length)).toThrow("checksum is wrong");
    });
  });
});
