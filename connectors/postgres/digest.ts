/** Counts, sums and hashes of one side, read in one snapshot. */
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import {
  NO_LANES, NotComparable, addLanes, dayName, mergeTotals, totalsByCurrency,
  type BusinessDays, type ComparedClass, type CutReader, type DayCount, type Lanes, type LeftOut, type MoneyTotal, type ReadLimits, type RowDigest, type RowText, type Side,
  type SliceKind, type Totals, type TotalsRequest,
} from "../../src/core/index.ts";
import { sqlState } from "./connection.ts";
import { project, sliceKindOf } from "./canonical.ts";
import { quoteIdent, quoteLiteral } from "./identifiers.ts";
import type { Projection } from "./projection.ts";

const GROUP_MASK = 4095;
/** Shares and groups are taken from different bits of the same number. */
const SHARE_SHIFT = 24;
const SHARE_MASK = 63;
const SLICES_AT_ONCE = 5_000;
const KEYS_AT_ONCE = 2_000;
const PAGE_BYTES = 8192;

export class PostgresCutReader implements CutReader {
  readonly side: Side;
  private readonly client: pg.Client;
  private readonly limits: ReadLimits;
  private readonly versionNumber: number;
  private readonly projections = new Map<ComparedClass, Projection>();
  private leftOut: LeftOut = new Map();

  constructor(side: Side, client: pg.Client, versionNumber: number, limits: ReadLimits) {
    this.side = side;
    this.client = client;
    this.versionNumber = versionNumber;
    this.limits = limits;
  }

  leaveOut(slices: LeftOut): void {
    this.leftOut = slices;
    this.projections.clear();
  }

  sliceKind(compared: ComparedClass): SliceKind {
    return sliceKindOf(compared);
  }

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
      lanes = addLanes(lanes, await this.lanesOfSlices(projection, slices.slice(at, at + SLICES_AT_ONCE)));
    }
    return lanes;
  }

  async groups(compared: ComparedClass): Promise<Map<number, Lanes>> {
    const projection = this.project(compared);
    const merged = new Map<number, Lanes>();
    for await (const piece of this.pieces(projection)) {
      const inner = `SELECT (${projection.spread} & ${GROUP_MASK})::int AS g, sha256(${projection.row}) AS h ${from(projection, piece)} OFFSET 0`;
      const rows = await this.query(`SELECT g, ${this.lanes()} FROM (${inner}) AS q GROUP BY g`);
      for (const row of rows) merged.set(Number(row["g"]), addLanes(merged.get(Number(row["g"])) ?? NO_LANES, toLanes(row)));
    }
    return merged;
  }

  async rows(compared: ComparedClass, groups: readonly number[]): Promise<RowDigest[]> {
    const projection = this.project(compared);
    const key = projection.key.map((text, i) => `${text} AS k${i}`);
    const digests: RowDigest[] = [];
    for await (const piece of this.pieces(projection)) {
      const rows = await this.query(
        `SELECT ${[...key, `encode(substring(sha256(${projection.row}), 1, 16), 'hex') AS digest`].join(", ")} ${from(projection, piece, `(${projection.spread} & ${GROUP_MASK}) = ANY($1::bigint[])`)}`, [groups]);
      for (const row of rows) {
        const digest = String(row["digest"]);
        digests.push({ key: key.length === 0 ? [digest] : key.map((_, i) => String(row[`k${i}`])), digest });
      }
    }
    return digests;
  }

  async rowsByKey(compared: ComparedClass, keys: readonly (readonly string[])[]): Promise<(RowText | null)[]> {
    const projection = this.project(compared);
    const found: (RowText | null)[] = [];
    for (let at = 0; at < keys.length; at += KEYS_AT_ONCE) found.push(...(await this.rowsOfKeys(projection, keys.slice(at, at + KEYS_AT_ONCE))));
    return found;
  }

  /** Between two PostgreSQL servers the form for comparing is the type's own text. */
  writableByKey(compared: ComparedClass, keys: readonly (readonly string[])[]): Promise<(RowText | null)[]> {
    return this.rowsByKey(compared, keys);
  }

  async digestCounts(compared: ComparedClass, digests: readonly string[]): Promise<Map<string, number>> {
    const projection = this.project(compared);
    const rows = await this.query(
      `SELECT digest, count(*) AS n FROM (SELECT encode(substring(sha256(${projection.row}), 1, 16), 'hex') AS digest ${from(projection, null)} OFFSET 0) AS q WHERE digest = ANY($1::text[]) GROUP BY digest`, [digests]);
    return new Map(rows.map((row) => [String(row["digest"]), Number(row["n"])]));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.end().catch(() => undefined); // its snapshot goes with it
  }

  // ------------------------------------------------------------ totals

  private async totalsOf(compared: ComparedClass, projection: Projection, request: TotalsRequest, piece: string | null): Promise<Totals> {
    const grouping: Omit<Grouping, "currency"> = { day: dayExpression(compared, projection, request.days), days: request.days };
    const totals = await totalsByCurrency(compared.cls, (currency, money) => this.figures(projection, { ...grouping, currency }, money, piece));
    return { ...totals, lanes: await this.lanesOfShares(projection, request.shares, piece) };
  }

  /** The cheap way sums what is there; where that meets NaN or an infinity, they are told apart at twice the cost. */
  private async figures(projection: Projection, grouping: Grouping, money: readonly string[], piece: string | null): Promise<Totals> {
    const rows = await this.query(figuresSql(projection, grouping, money, piece));
    const special = rows.some((row) => money.some((_, i) => [row[`sum${i}`], row[`min${i}`], row[`max${i}`]].some((text) => text !== null && /[NI]/.test(String(text)))));
    return readTotals(special ? await this.query(carefulFiguresSql(projection, grouping, money, piece)) : rows, projection, money, grouping.days);
  }

  private async lanesOfShares(projection: Projection, shares: TotalsRequest["shares"], piece: string | null): Promise<Lanes> {
    if (shares === "none" || shares.length === 0) return NO_LANES;
    const condition = shares === "all" ? null : `((${projection.spread} >> ${SHARE_SHIFT}) & ${SHARE_MASK}) IN (${shares.join(", ")})`;
    return toLanes((await this.query(`SELECT ${this.lanes()} FROM (SELECT sha256(${projection.row}) AS h ${from(projection, piece, condition)} OFFSET 0) AS q`))[0]!);
  }

  // ------------------------------------------------------------ by key

  private async lanesOfSlices(projection: Projection, slices: readonly string[]): Promise<Lanes> {
    const { kind, column, type } = projection.slice;
    const bounds = kind === "integer"
      ? `SELECT (s::bigint << 5)::${type} AS lo, ((s::bigint << 5) + 31)::${type} AS hi FROM unnest($1::text[]) AS s`
      : "SELECT rpad(s, 32, '0')::uuid AS lo, rpad(s, 32, 'f')::uuid AS hi FROM unnest($1::text[]) AS s";
    const condition = projection.condition === null ? "" : ` AND (${projection.condition})`;
    const inner = `SELECT sha256(${projection.row}) AS h FROM (${bounds}) AS b JOIN ${projection.table} AS t ON ${column} BETWEEN b.lo AND b.hi${condition} OFFSET 0`;
    return toLanes((await this.query(`SELECT ${this.lanes()} FROM (${inner}) AS q`, [slices]))[0]!);
  }

  private async rowsOfKeys(projection: Projection, keys: readonly (readonly string[])[]): Promise<(RowText | null)[]> {
    const texts = [...projection.texts];
    const columns = texts.map(([, text], i) => `${text} AS c${i}`).join(", ");
    const byNumber = new Map<number, RowText>();
    const rows = projection.key.length === 0
      ? await this.query(`SELECT DISTINCT ON (w.n) w.n, ${columns} FROM unnest($1::text[]) WITH ORDINALITY AS w (digest, n) JOIN ${projection.table} AS t ON encode(substring(sha256(${projection.row}), 1, 16), 'hex') = w.digest${and(projection)}`, [keys.map((key) => key[0])])
      : await this.query(this.byKeySql(projection, columns), projection.keyColumns.map((_, i) => keys.map((key) => key[i])));
    for (const row of rows) byNumber.set(Number(row["n"]), Object.fromEntries(texts.map(([name], i) => [name, (row[`c${i}`] as string | null) ?? null])));
    return keys.map((_, i) => byNumber.get(i + 1) ?? null);
  }

  private byKeySql(projection: Projection, columns: string): string {
    const names = projection.keyColumns.map((_, i) => `k${i}`);
    const equal = projection.keyColumns.map(({ expression, type }, i) => `${expression} = w.k${i}::${type}`).join(" AND ");
    return `SELECT w.n, ${columns} FROM unnest(${names.map((_, i) => `$${i + 1}::text[]`).join(", ")}) WITH ORDINALITY AS w (${names.join(", ")}, n) JOIN ${projection.table} AS t ON ${equal}${and(projection)}`;
  }

  // ------------------------------------------------------------ reading

  private project(compared: ComparedClass): Projection {
    let projection = this.projections.get(compared);
    if (projection === undefined) this.projections.set(compared, (projection = withoutSlices(project(this.side, compared), this.slicesWithout(compared))));
    return projection;
  }

  private slicesWithout(compared: ComparedClass): readonly string[] {
    const slices = this.leftOut.get(compared.cls.name);
    if (slices === null) throw new NotComparable("the class as a whole was left out at this cut");
    return slices ?? [];
  }

  /** Two 64-bit words of the hash, summed; cheaper where the server turns bytes into numbers by itself. */
  private lanes(): string {
    const word = (at: number): string => (this.versionNumber >= 180_000
      ? `substring(h, ${at + 1}, 8)::bigint`
      : Array.from({ length: 8 }, (_, i) => `(get_byte(h, ${at + i})::bigint << ${56 - 8 * i})`).join(" | "));
    return `count(*) AS n, coalesce(sum(${word(0)}), 0)::text AS a, coalesce(sum(${word(8)}), 0)::text AS b`;
  }

  protected async query(text: string, values: readonly unknown[] = []): Promise<Record<string, unknown>[]> {
    try {
      return (await this.client.query<Record<string, unknown>>(text, [...values])).rows;
    } catch (error) {
      if (sqlState(error) === "55P03") throw new NotComparable(`a table on the ${this.side} is locked by somebody else`, { cause: error });
      if (sqlState(error) !== "57014") throw error;
      throw new NotComparable(`a statement on the ${this.side} took longer than comparison.statementTimeout (${this.limits.statementTimeout} ms), or was cancelled there`, { cause: error });
    }
  }

  /** The whole table at once; under a throttle, ranges of pages with a pause after each. */
  private async *pieces(projection: Projection): AsyncGenerator<string | null> {
    const { maxRowsPerSecond } = this.limits;
    if (maxRowsPerSecond === 0) {
      yield null;
      return;
    }
    const { pages, rows } = await this.size(projection);
    const step = Math.max(1, Math.floor((maxRowsPerSecond * pages) / Math.max(1, rows)));
    for (let page = 0; page < pages; page += step) {
      const started = performance.now();
      yield `t.ctid >= '(${page},0)'::tid${page + step < pages ? ` AND t.ctid < '(${page + step},0)'::tid` : ""}`;
      await sleep(Math.max(0, 1000 - (performance.now() - started)));
    }
    if (pages === 0) yield null;
  }

  private async size(projection: Projection): Promise<{ pages: number; rows: number }> {
    const [row] = await this.query(`
      SELECT max(pg_relation_size(relid)) / ${PAGE_BYTES} AS pages, sum(greatest(c.reltuples, 0)) AS rows
      FROM (SELECT relid FROM pg_partition_tree($1::regclass) WHERE isleaf UNION SELECT $1::regclass) AS tree JOIN pg_class AS c ON c.oid = tree.relid`, [projection.table]);
    const pages = Number(row!["pages"]);
    return { pages, rows: Number(row!["rows"]) || pages * 50 };
  }
}

// ---------------------------------------------------------------- pieces of SQL

function withoutSlices(projection: Projection, slices: readonly string[]): Projection {
  if (slices.length === 0) return projection;
  const { kind, column } = projection.slice;
  const [type, slice] = kind === "integer" ? ["bigint", `(${column}::bigint >> 5)`] : ["text", `left(replace(${column}::text, '-', ''), 12)`];
  const elsewhere = `NOT EXISTS (SELECT FROM unnest('{${slices.join(",")}}'::${type}[]) AS absent (slice) WHERE absent.slice = ${slice})`;
  return { ...projection, condition: projection.condition === null ? elsewhere : `(${projection.condition}) AND ${elsewhere}` };
}

function from(projection: Projection, piece: string | null, more: string | null = null): string {
  const conditions = [projection.condition, piece, more].filter((condition) => condition !== null);
  return `FROM ${projection.table} AS t${conditions.length === 0 ? "" : ` WHERE ${conditions.map((condition) => `(${condition})`).join(" AND ")}`}`;
}

function and(projection: Projection): string {
  return projection.condition === null ? "" : ` AND (${projection.condition})`;
}

/** What figures are grouped by. */
interface Grouping {
  /** Number of the business date as SQL; null: not grouped by it. */
  readonly day: string | null;
  readonly days: BusinessDays | null;
  /** A column, or a literal in single quotes; null: no money. */
  readonly currency: string | null;
}

const TEXTUAL: ReadonlySet<string> = new Set(["text", "varchar", "bpchar", "citext", "name"]);

/** Compared bytewise, whatever the column's collation takes for equal. */
function currencyExpression(projection: Projection, currency: string): string {
  if (currency.startsWith("'")) return quoteLiteral(currency.slice(1, -1));
  const value = projection.value(currency);
  return TEXTUAL.has(projection.typeOf(currency).baseTypeName) ? `(${value} COLLATE "C")` : value;
}

function figuresSql(projection: Projection, { day, currency }: Grouping, money: readonly string[], piece: string | null): string {
  const of = currency === null ? null : currencyExpression(projection, currency);
  const isColumn = of !== null && !currency!.startsWith("'");
  const figures = [
    ...(day === null ? [] : [`${day} AS d`]), ...(of === null ? [] : [`${of} AS currency`]), "count(*) AS rows",
    ...money.flatMap((column, i) => {
      const value = projection.value(column);
      return [`count(*) - count(${value}) AS nulls${i}`, `sum(${value})::text AS sum${i}`, `min(${value})::text AS min${i}`, `max(${value})::text AS max${i}`, `${declaredScale(projection, column) ?? `max(scale(${value}))`} AS scale${i}`];
    }),
  ];
  const groups = [...(day === null ? [] : ["1"]), ...(isColumn ? [of] : [])];
  const grouped = `SELECT ${figures.join(", ")} ${from(projection, piece)}${groups.length === 0 ? "" : ` GROUP BY ${groups.join(", ")}`}`;
  return of === null ? grouped : `SELECT g.*, g.currency::text AS c FROM (${grouped}) AS g`;
}

function carefulFiguresSql(projection: Projection, { day, currency }: Grouping, money: readonly string[], piece: string | null): string {
  const inner = [
    ...(day === null ? [] : [`${day} AS d`]), ...(currency === null ? [] : [`${currencyExpression(projection, currency)}::text AS c`]),
    ...money.map((column, i) => `(${projection.value(column)})::numeric AS m${i}`),
  ];
  const finite = money.map((_, i) => `CASE WHEN m${i} < 'Infinity' AND m${i} > '-Infinity' THEN m${i} END AS f${i}`);
  const group = [...(day === null ? [] : ["d"]), ...(currency === null ? [] : ["c"])];
  const rows = `SELECT ${inner.join(", ")} ${from(projection, piece)} OFFSET 0`;
  return `SELECT ${[...group, "count(*) AS rows", ...money.flatMap((_, i) => specialFigures(i))].join(", ")} FROM (SELECT q.*, ${finite.join(", ")} FROM (${rows}) AS q) AS p${group.length === 0 ? "" : ` GROUP BY ${group.join(", ")}`}`;
}

/** Every value of such a column has the same scale. */
function declaredScale(projection: Projection, column: string): string | null {
  const { baseTypeName, type } = projection.typeOf(column);
  if (baseTypeName !== "numeric") return "0";
  const declared = /^numeric\(\d+,(\d+)\)$/.exec(type)?.[1];
  return declared === undefined ? null : declared;
}

function dayExpression(compared: ComparedClass, projection: Projection, days: BusinessDays | null): string | null {
  const { occurredAt } = compared.cls;
  if (occurredAt === null || days === null) return null;
  const type = projection.typeOf(occurredAt).baseTypeName;
  const bounds = type === "date" ? days.dates : type === "timestamp" ? days.wallClock : days.moments;
  const form = type === "date" ? "date" : type === "timestamp" ? "timestamp" : "timestamptz";
  return `width_bucket((${projection.value(occurredAt)})::${form}, ${quoteLiteral(`{${bounds.join(",")}}`)}::${form}[])`;
}

function specialFigures(i: number): string[] {
  const special = (name: string, value: string): string => `count(*) FILTER (WHERE f${i} IS NULL AND m${i} = '${value}') AS ${quoteIdent(`${name}${i}`)}`;
  return [
    `count(*) - count(m${i}) AS nulls${i}`, special("nan", "NaN"), special("inf", "Infinity"), special("neg", "-Infinity"),
    `sum(f${i})::text AS sum${i}`, `min(f${i})::text AS min${i}`, `max(f${i})::text AS max${i}`, `max(scale(f${i})) AS scale${i}`,
  ];
}

// ---------------------------------------------------------------- reading figures

function toLanes(row: Record<string, unknown>): Lanes {
  return { count: big(row["n"]), a: big(row["a"]), b: big(row["b"]) };
}

const big = (value: unknown): bigint => BigInt(String(value));

function readTotals(rows: readonly Record<string, unknown>[], projection: Projection, money: readonly string[], days: BusinessDays | null): Totals {
  const pieces = rows.map((row): Totals => {
    const day = "d" in row ? dayName(row["d"] as number | null, days!) : null;
    return { count: big(row["rows"]), days: [{ day, rows: big(row["rows"]) } satisfies DayCount], money: money.map((column, i) => readMoney(row, projection, column, i, day)), lanes: NO_LANES };
  });
  return mergeTotals(pieces);
}

function readMoney(row: Record<string, unknown>, projection: Projection, column: string, i: number, day: string | null): MoneyTotal {
  const text = (name: string): string | null => (row[`${name}${i}`] === null || row[`${name}${i}`] === undefined ? null : String(row[`${name}${i}`]));
  const scale = text("scale");
  return {
    column, day, currency: (row["c"] as string | null) ?? null, rows: big(row["rows"]), nulls: big(text("nulls")), nan: big(text("nan") ?? 0), infinite: big(text("inf") ?? 0), negativeInfinite: big(text("neg") ?? 0),
    sum: text("sum") ?? zeroOf(projection, column), min: text("min"), max: text("max"), scale: scale === null ? null : Number(scale),
  };
}

/** The sum of no value at all, in the column's scale. */
function zeroOf(projection: Projection, column: string): string {
  const scale = Number(declaredScale(projection, column) ?? 0);
  return scale === 0 ? "0" : `0.${"0".repeat(scale)}`;
}
