/** Counts, sums and hashes of MySQL's or MariaDB's side, read in one snapshot. connectors/postgres/canonical-across.ts is the other side. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "mariadb";
import {
  NO_LANES, NotComparable, addLanes, canonicalForm, dayName, mergeTotals, sliceKindAcross, totalsByCurrency,
  type BusinessDays, type CanonicalForm, type ColumnFacts, type ComparedClass, type CutReader, type DayCount, type Lanes, type MappedColumn, type MoneyTotal, type ReadLimits, type RowDigest, type RowText,
  type Side, type SliceKind, type Totals, type TotalsRequest,
} from "../../src/core/index.ts";
import { errorNumber, query, type Row } from "./connection.ts";
import { quoteIdent, quoteLiteral, quoteTable } from "./identifiers.ts";
import { commonText, factsOf, valueText, wherePredicate } from "./select.ts";

const GROUP_MASK = 4095;
const SHARE_SHIFT = 24;
const SHARE_MASK = 63;
const SLICES_AT_ONCE = 500;
const KEYS_AT_ONCE = 500;
const TWO_64 = 1n << 64n;
/** A statement took too long, or was cancelled. */
const INTERRUPTED: ReadonlySet<number> = new Set([1317, 1969, 3024]);

export class MysqlCutReader implements CutReader {
  readonly side: Side;
  private readonly connection: Connection;
  private readonly limits: ReadLimits;
  private readonly projections = new Map<ComparedClass, Projection>();

  constructor(side: Side, connection: Connection, limits: ReadLimits) {
    this.side = side;
    this.connection = connection;
    this.limits = limits;
  }

  sliceKind(compared: ComparedClass): SliceKind {
    return sliceKindAcross(compared);
  }

  /** Cuts on these engines show every row: there is nothing that a cut could leave out. */
  leaveOut(): void {}

  async totals(compared: ComparedClass, request: TotalsRequest): Promise<Totals> {
    const projection = this.project(compared);
    const pieces: Totals[] = [];
    for await (const piece of this.pieces(projection)) pieces.push(await this.totalsOf(compared, projection, request, piece));
    return mergeTotals(pieces);
  }

  async slices(compared: ComparedClass, slices: readonly string[]): Promise<Lanes> {
    const projection = this.project(compared);
    let lanes: Lanes = NO_LANES;
    for (let at = 0; at < slices.length; at += SLICES_AT_ONCE) {
      const ranges = slices.slice(at, at + SLICES_AT_ONCE).map((slice) => `${projection.leading} BETWEEN ${BigInt(slice) << 5n} AND ${(BigInt(slice) << 5n) + 31n}`);
      lanes = addLanes(lanes, await this.lanes(projection, ranges.join(" OR ")));
    }
    return lanes;
  }

  async groups(compared: ComparedClass): Promise<Map<number, Lanes>> {
    const projection = this.project(compared);
    const merged = new Map<number, Lanes>();
    for await (const piece of this.pieces(projection)) {
      const rows = await this.query(`SELECT g, ${LANES} FROM (SELECT ${projection.spread} & ${GROUP_MASK} AS g, SHA2(${projection.row}, 256) AS h ${from(projection, piece)}) AS q GROUP BY g`);
      for (const row of rows) merged.set(Number(row["g"]), addLanes(merged.get(Number(row["g"])) ?? NO_LANES, toLanes(row)));
    }
    return merged;
  }

  async rows(compared: ComparedClass, groups: readonly number[]): Promise<RowDigest[]> {
    const projection = this.project(compared);
    const key = projection.key.map((text, i) => `${text} AS k${i}`);
    const digests: RowDigest[] = [];
    for await (const piece of this.pieces(projection)) {
      const rows = await this.query(`SELECT ${[...key, `${DIGEST(projection)} AS digest`].join(", ")} ${from(projection, piece, `(${projection.spread} & ${GROUP_MASK}) IN (${groups.join(", ")})`)}`);
      for (const row of rows) {
        const digest = String(row["digest"]);
        digests.push({ key: key.length === 0 ? [digest] : key.map((_, i) => String(row[`k${i}`])), digest });
      }
    }
    return digests;
  }

  rowsByKey(compared: ComparedClass, keys: readonly (readonly string[])[]): Promise<(RowText | null)[]> {
    const projection = this.project(compared);
    return this.rowsOfKeys(projection, projection.texts, keys);
  }

  writableByKey(compared: ComparedClass, keys: readonly (readonly string[])[]): Promise<(RowText | null)[]> {
    const projection = this.project(compared);
    return this.rowsOfKeys(projection, new Map(compared.cls.columns.map((column) => [column.target, writableText(column, compared, projection)])), keys);
  }

  async digestCounts(compared: ComparedClass, digests: readonly string[]): Promise<Map<string, number>> {
    if (digests.length === 0) return new Map();
    const projection = this.project(compared);
    const rows = await this.query(`SELECT digest, COUNT(*) AS n FROM (SELECT ${DIGEST(projection)} AS digest ${from(projection, null)}) AS q WHERE digest IN (${digests.map(quoteLiteral).join(", ")}) GROUP BY digest`);
    return new Map(rows.map((row) => [String(row["digest"]), Number(row["n"])]));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.connection.destroy(); // its snapshot goes with it
  }

  // ------------------------------------------------------------ totals

  private async totalsOf(compared: ComparedClass, projection: Projection, request: TotalsRequest, piece: string | null): Promise<Totals> {
    const totals = await totalsByCurrency(compared.cls, (currency, money) => this.figures(compared, projection, currency, money, request.days, piece));
    return { ...totals, lanes: await this.lanesOfShares(projection, request.shares, piece) };
  }

  private async figures(compared: ComparedClass, projection: Projection, currency: string | null, money: readonly string[], days: BusinessDays | null, piece: string | null): Promise<Totals> {
    const day = dayExpression(compared, projection, days);
    const of = currency === null ? null : currency.startsWith("'") ? quoteLiteral(currency.slice(1, -1)) : `CAST(${currencyText(projection, currency)} AS BINARY)`;
    const inner = [...(day === null ? [] : [`${day} AS d`]), ...(of === null ? [] : [`${of} AS c`]), ...money.map((column, i) => `${projection.value(column)} AS m${i}`), "1 AS one"];
    const groups = [...(day === null ? [] : ["d"]), ...(of === null ? [] : ["c"])];
    const figures = money.flatMap((_, i) => [`COUNT(*) - COUNT(m${i}) AS nulls${i}`, `CAST(SUM(m${i}) AS CHAR) AS sum${i}`, `CAST(MIN(m${i}) AS CHAR) AS min${i}`, `CAST(MAX(m${i}) AS CHAR) AS max${i}`]);
    const rows = await this.query(`SELECT ${[...groups, "COUNT(*) AS total", ...figures].join(", ")} FROM (SELECT ${inner.join(", ")} ${from(projection, piece)}) AS q${groups.length === 0 ? "" : ` GROUP BY ${groups.join(", ")}`}`);
    return mergeTotals(rows.map((row) => readTotals(row, projection, money, days)));
  }

  private async lanesOfShares(projection: Projection, shares: TotalsRequest["shares"], piece: string | null): Promise<Lanes> {
    if (shares === "none" || shares.length === 0) return NO_LANES;
    return this.lanes(projection, shares === "all" ? null : `((${projection.spread} >> ${SHARE_SHIFT}) & ${SHARE_MASK}) IN (${shares.join(", ")})`, piece);
  }

  private async lanes(projection: Projection, condition: string | null, piece: string | null = null): Promise<Lanes> {
    return toLanes((await this.query(`SELECT ${LANES} FROM (SELECT SHA2(${projection.row}, 256) AS h ${from(projection, piece, condition)}) AS q`))[0]!);
  }

  // ------------------------------------------------------------ by key

  private async rowsOfKeys(projection: Projection, texts: ReadonlyMap<string, string>, keys: readonly (readonly string[])[]): Promise<(RowText | null)[]> {
    const found: (RowText | null)[] = [];
    for (let at = 0; at < keys.length; at += KEYS_AT_ONCE) found.push(...(await this.someOfKeys(projection, [...texts], keys.slice(at, at + KEYS_AT_ONCE))));
    return found;
  }

  private async someOfKeys(projection: Projection, texts: readonly (readonly [string, string])[], keys: readonly (readonly string[])[]): Promise<(RowText | null)[]> {
    const names = projection.key.length === 0 ? [DIGEST(projection)] : projection.key;
    const wanted = keys.map((key) => `(${key.map((text) => `CAST(${quoteLiteral(text)} AS BINARY)`).join(", ")})`).join(", ");
    const rows = await this.query(`SELECT ${[...names.map((name, i) => `${name} AS k${i}`), ...texts.map(([, text], i) => `${text} AS c${i}`)].join(", ")} ${from(projection, null, `(${names.map((name) => `CAST(${name} AS BINARY)`).join(", ")}) IN (${wanted})`)}`);
    const byKey = new Map(rows.map((row) => [JSON.stringify(names.map((_, i) => String(row[`k${i}`]))), Object.fromEntries(texts.map(([name], i) => [name, textOf(row[`c${i}`])]))]));
    return keys.map((key) => byKey.get(JSON.stringify(key)) ?? null);
  }

  // ------------------------------------------------------------ reading

  private project(compared: ComparedClass): Projection {
    let projection = this.projections.get(compared);
    if (projection === undefined) this.projections.set(compared, (projection = project(this.side, compared)));
    return projection;
  }

  private async query(text: string): Promise<Row[]> {
    try {
      return await query(this.connection, text);
    } catch (error) {
      if (!INTERRUPTED.has(errorNumber(error) ?? 0)) throw error;
      throw new NotComparable(`a statement on the ${this.side} took longer than comparison.statementTimeout (${this.limits.statementTimeout} ms), or was cancelled there`, { cause: error });
    }
  }

  /** The whole table at once; under a throttle, ranges of an integer key with a pause after each. */
  private async *pieces(projection: Projection): AsyncGenerator<string | null> {
    const { maxRowsPerSecond } = this.limits;
    if (maxRowsPerSecond === 0 || projection.leading === null) {
      yield null;
      return;
    }
    const [extent] = await this.query(`SELECT CAST(MIN(${projection.leading}) AS CHAR) AS least, CAST(MAX(${projection.leading}) AS CHAR) AS most, COUNT(*) AS n FROM ${projection.table}`);
    if (extent!["least"] === null) {
      yield null;
      return;
    }
    const [least, most, rows] = [big(extent!["least"]), big(extent!["most"]), big(extent!["n"])];
    const step = ((most - least + 1n) * BigInt(maxRowsPerSecond)) / rows + 1n;
    for (let at = least; at <= most; at += step) {
      const started = performance.now();
      yield `${projection.leading} >= ${at} AND ${projection.leading} < ${at + step}`;
      await sleep(Math.max(0, 1000 - (performance.now() - started)));
    }
  }
}

// ---------------------------------------------------------------- canonical rows

interface Projection {
  readonly table: string;
  readonly condition: string | null;
  readonly row: string;
  readonly spread: string;
  readonly key: readonly string[];
  readonly texts: ReadonlyMap<string, string>;
  /** The leading key column where it is an integer. */
  readonly leading: string | null;
  value(column: string): string;
  typeOf(column: string): ColumnFacts;
}

function project(side: Side, compared: ComparedClass): Projection {
  const { cls } = compared;
  const facts = compared[side];
  const own = (target: string): ColumnFacts => factsOf(facts, side === "target" ? target : cls.columns.find((column) => column.target === target)?.from ?? target);
  const texts = new Map(cls.columns.map((column) => [column.target, columnText(side, column, compared)]));
  const row = framed([...texts.values()]);
  const key = cls.key.map((name) => texts.get(name)!);
  return {
    key, texts, row,
    table: quoteTable(side === "source" ? cls.source : cls.target),
    condition: side === "source" && cls.where !== null ? wherePredicate(cls.where, facts) : null,
    spread: `CAST(CONV(SUBSTR(SHA2(${key.length === 0 ? row : framed(key)}, 256), 1, 15), 16, 10) AS UNSIGNED)`,
    leading: sliceKindAcross(compared) === "integer" ? quoteIdent(own(cls.key[0]!).name) : null,
    value: (name) => quoteIdent(own(name).name),
    typeOf: own,
  };
}

function framed(texts: readonly string[]): string {
  return `CONCAT(${texts.map((text) => `IF(${text} IS NULL, 'N', CONCAT(CHAR_LENGTH(${text}), ':', ${text}))`).join(", ")})`;
}

function columnText(side: Side, column: MappedColumn, compared: ComparedClass): string {
  const to = factsOf(compared.target, column.target);
  if (column.from === null) return side === "source" ? "'='" : constantText(to, column.constant);
  const from_ = factsOf(compared.source, column.from);
  const own = side === "source" ? from_ : to;
  if (column.map !== null) return side === "target" ? commonText(own) : mappedText(own, column.map);
  return canonicalText(own, canonicalForm(from_.common, to.common));
}

/** As a copy would write it; a value that a map does not know stays marked. */
function writableText(column: MappedColumn, compared: ComparedClass, projection: Projection): string {
  return column.map === null ? valueText(column, compared.source) : projection.texts.get(column.target)!;
}

function constantText(facts: ColumnFacts, constant: string | null): string {
  const text = commonText(facts);
  const same = constant === null ? `${text} IS NULL` : `CAST(${text} AS BINARY) = CAST(${quoteLiteral(constant)} AS BINARY)`;
  return `IF(${same}, '=', CONCAT('!', IFNULL(${text}, '')))`;
}

/** A value that the map does not know shows as a difference. */
function mappedText(facts: ColumnFacts, map: ReadonlyMap<string, string>): string {
  const text = commonText(facts);
  const cases = [...map].map(([from_, to]) => `WHEN CAST(${text} AS BINARY) = CAST(${quoteLiteral(from_)} AS BINARY) THEN ${quoteLiteral(to)}`).join(" ");
  return `CASE ${cases} ELSE CONCAT(CHAR(1 USING utf8mb4), ${text}) END`;
}

/** A value of a column in a canonical form. */
export function canonicalText(facts: ColumnFacts, form: CanonicalForm): string {
  const value = quoteIdent(facts.name);
  const { kind } = facts.common;
  switch (form.form) {
    case "integer": return kind === "bits" ? `CAST(${value} + 0 AS CHAR)` : `CAST(${value} AS CHAR)`;
    case "decimal": return `CAST(CAST(${value} AS DECIMAL(65, ${form.scale})) AS CHAR)`;
    case "double": return doubleBytes(value);
    case "text": return commonText(facts);
    case "unpadded text": return `TRIM(TRAILING ' ' FROM ${commonText(facts)})`;
    case "hex": return kind === "bytes" ? `LOWER(HEX(${value}))` : `LOWER(REPLACE(${commonText(facts)}, '-', ''))`;
    case "date": return `CAST(${value} AS CHAR)`;
    case "microseconds": return `CAST(IF(${value} < 0, -1, 1) * (TRUNCATE(ABS(TIME_TO_SEC(${value})), 0) * 1000000 + MICROSECOND(${value})) AS CHAR)`;
    case "timestamp": return `CAST(CAST(${value} AS DATETIME(6)) AS CHAR)`;
    case "bits": return commonText(facts);
    case "presence": return `IF(${value} IS NULL, NULL, '?')`;
  }
}

/** The bytes of a number, highest first: a point's coordinates are the only place where the server shows them. */
function doubleBytes(value: string): string {
  const point = `HEX(ST_AsWKB(POINT(${value}, 0)))`;
  return `LOWER(CONCAT(${[25, 23, 21, 19, 17, 15, 13, 11].map((at) => `SUBSTR(${point}, ${at}, 2)`).join(", ")}))`;
}

// ---------------------------------------------------------------- pieces of SQL

const DIGEST = ({ row }: Projection): string => `SUBSTR(SHA2(${row}, 256), 1, 32)`;

/** Sums of unsigned words, and how many of them have their highest bit set: PostgreSQL sums them signed. */
const LANES = [
  "COUNT(*) AS n", "COUNT(h) AS hashed",
  ...[1, 17].flatMap((at, i) => [`CAST(COALESCE(SUM(CAST(CONV(SUBSTR(h, ${at}, 16), 16, 10) AS UNSIGNED)), 0) AS CHAR) AS w${i}`, `COALESCE(SUM(SUBSTR(h, ${at}, 1) >= '8'), 0) AS s${i}`]),
].join(", ");

function from(projection: Projection, piece: string | null, more: string | null = null): string {
  const conditions = [projection.condition, piece, more].filter((condition) => condition !== null);
  return `FROM ${projection.table}${conditions.length === 0 ? "" : ` WHERE ${conditions.map((condition) => `(${condition})`).join(" AND ")}`}`;
}

function currencyText(projection: Projection, column: string): string {
  return projection.texts.get(column) ?? commonText(projection.typeOf(column));
}

/** Number of the business date: −1 undated, 0 earlier. */
function dayExpression(compared: ComparedClass, projection: Projection, days: BusinessDays | null): string | null {
  const { occurredAt } = compared.cls;
  if (occurredAt === null || days === null) return null;
  const facts = projection.typeOf(occurredAt);
  const value = quoteIdent(facts.name);
  if (facts.common.kind === "date") return `INTERVAL(TO_DAYS(${value}), ${days.dates.map((date) => `TO_DAYS('${date}')`).join(", ")})`;
  const bounds = facts.common.kind === "timestamp" ? days.wallClock.map((clock) => Date.parse(`${clock}Z`)) : days.moments.map((moment) => Date.parse(moment));
  return `INTERVAL(TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', CAST(${value} AS DATETIME(6))), ${bounds.map((ms) => `${ms}000`).join(", ")})`;
}

// ---------------------------------------------------------------- reading figures

const big = (value: unknown): bigint => BigInt(String(value));
const textOf = (value: unknown): string | null => (value === null || value === undefined ? null : String(value));

function toLanes(row: Row): Lanes {
  const count = big(row["n"]);
  if (count !== big(row["hashed"])) throw new NotComparable("a row is larger than max_allowed_packet of its server, which cannot render it");
  const lane = (i: number): bigint => big(row[`w${i}`]) - big(row[`s${i}`]) * TWO_64;
  return { count, a: lane(0), b: lane(1) };
}

function readTotals(row: Row, projection: Projection, money: readonly string[], days: BusinessDays | null): Totals {
  const day = "d" in row ? dayName(row["d"] === "-1" ? null : Number(row["d"]), days!) : null;
  const rows = big(row["total"]);
  return { count: rows, days: [{ day, rows } satisfies DayCount], money: money.map((column, i) => readMoney(row, projection, column, i, day)), lanes: NO_LANES };
}

function readMoney(row: Row, projection: Projection, column: string, i: number, day: string | null): MoneyTotal {
  const { common } = projection.typeOf(column);
  return {
    column, day, currency: textOf(row["c"]), rows: big(row["total"]), nulls: big(row[`nulls${i}`]), nan: 0n, infinite: 0n, negativeInfinite: 0n,
    sum: textOf(row[`sum${i}`]) ?? "0", min: textOf(row[`min${i}`]), max: textOf(row[`max${i}`]), scale: common.kind === "decimal" ? common.scale : 0,
  };
}
