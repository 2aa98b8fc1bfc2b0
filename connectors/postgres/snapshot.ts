/** An exported snapshot and the connections that read it. */
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import type { Catalogue, Chunk, Endpoint, Position, RecordClass, RowBatch, Snapshot, ValueFormat } from "../../src/core/index.ts";
import { connect } from "./connection.ts";
import { copyOut } from "./copy.ts";
import { quoteTable } from "./identifiers.ts";
import { chunkRange, keyOrder, selectRows, wherePredicate } from "./select.ts";
import { formatClause } from "./writer.ts";

/** A decoded commit may be in the log before it is visible; see the notes on the exact cut. */
const VISIBILITY_DELAY_MS = 100;
/** Sampled pages below which a table is simply read. */
const SAMPLE_PAGES = 800;
/** At least this many sampled rows stand between two bounds. */
const SAMPLE_ROWS = 200;

export async function openPostgresSnapshot(
  endpoint: Endpoint, application: string, catalogue: Catalogue, exported: { readonly name: string; readonly position: Position }, readers: number,
): Promise<PostgresSnapshot> {
  await sleep(VISIBILITY_DELAY_MS);
  const clients: pg.Client[] = [];
  try {
    for (let i = 0; i < readers; i++) {
      const client = await connect(endpoint, { application: `${application} copy ${i}` });
      clients.push(client);
      await client.query(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '${exported.name}'`);
    }
    const { rows } = await clients[0]!.query<{ xmin: string }>("SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS xmin");
    return new PostgresSnapshot(clients, catalogue, exported.position, `xmin ${rows[0]!.xmin}`);
  } catch (error) {
    await Promise.all(clients.map((client) => client.end().catch(() => undefined))); // the first error is the one to report
    throw error;
  }
}

export class PostgresSnapshot implements Snapshot {
  readonly position: Position;
  readonly openedAt = new Date();
  readonly holds: string;
  private readonly clients: readonly pg.Client[];
  private readonly catalogue: Catalogue;

  constructor(clients: readonly pg.Client[], catalogue: Catalogue, position: Position, holds: string) {
    this.clients = clients;
    this.catalogue = catalogue;
    this.position = position;
    this.holds = holds;
  }

  plan(cls: RecordClass, chunkRows: number): Promise<Chunk[]> {
    return cls.key.length > 0 ? this.planByKey(cls, chunkRows) : this.planByPlace(cls, chunkRows);
  }

  read(chunk: Chunk, cls: RecordClass, format: ValueFormat, reader: number, signal: AbortSignal): AsyncIterable<RowBatch> {
    const range = chunkRange(chunk, keyOrder(cls, this.catalogue));
    return copyOut(this.clients[reader]!, `COPY (${selectRows(cls, range)}) TO STDOUT${formatClause(format)}`, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.clients.map((client) => client.end().catch(() => undefined))); // a reader in the middle of a copy is simply cut off
  }

  /** Bounds from a sample of the table's pages: quick on any size, whatever the key's type and distribution. */
  private async planByKey(cls: RecordClass, chunkRows: number): Promise<Chunk[]> {
    const { pages, bytes } = await this.size(cls);
    const share = Math.min(100, Math.max((100 * SAMPLE_PAGES) / Math.max(1, pages), (100 * SAMPLE_ROWS) / chunkRows));
    const { expressions } = keyOrder(cls, this.catalogue);
    const names = expressions.map((_, i) => `k${i}`);
    const step = Math.max(1, Math.round((chunkRows * share) / 100));
    const sample = share >= 100 ? "" : ` TABLESAMPLE SYSTEM (${share})`;
    const filter = cls.where === null ? "" : ` WHERE ${wherePredicate(cls.where, cls)}`;
    const { rows } = await this.clients[0]!.query<Record<string, string>>(`
      SELECT ${names.map((name) => `${name}::text`).join(", ")}, n, total FROM (
        SELECT ${expressions.map((expression, i) => `${expression} AS k${i}`).join(", ")},
          row_number() OVER (ORDER BY ${expressions.join(", ")}) AS n, count(*) OVER () AS total
        FROM ${quoteTable(cls.source)}${sample}${filter}) AS sampled
      WHERE n % ${step} = 0 OR n = total ORDER BY n`);
    const total = Number(rows.at(-1)?.["total"] ?? 0);
    const inner = rows.filter((row) => Number(row["n"]) % step === 0 && Number(row["n"]) < total).map((row) => names.map((name) => row[name]!));
    return between(inner).map(([lower, upper], ordinal, all) => ({
      className: cls.name, ordinal, lower, upper, resumable: true,
      estimatedRows: (total * 100) / share / all.length, estimatedBytes: bytes / all.length,
    }));
  }

  /** Page ranges: they mean something in this snapshot only. */
  private async planByPlace(cls: RecordClass, chunkRows: number): Promise<Chunk[]> {
    const { pages, bytes } = await this.size(cls);
    const share = Math.min(100, (100 * SAMPLE_PAGES) / Math.max(1, pages));
    const sample = share >= 100 ? "" : ` TABLESAMPLE SYSTEM (${share})`;
    const { rows } = await this.clients[0]!.query<{ n: string }>(`SELECT count(*) AS n FROM ${quoteTable(cls.source)}${sample}`);
    const estimate = (Number(rows[0]!.n) * 100) / share;
    const chunks = Math.max(1, Math.min(pages, Math.round(estimate / chunkRows)));
    const inner = Array.from({ length: chunks - 1 }, (_, i) => [`(${Math.round(((i + 1) * pages) / chunks)},0)`]);
    return between(inner).map(([lower, upper], ordinal, all) => ({
      className: cls.name, ordinal, lower, upper, resumable: false, estimatedRows: estimate / all.length, estimatedBytes: bytes / all.length,
    }));
  }

  private async size(cls: RecordClass): Promise<{ pages: number; bytes: number }> {
    const { rows } = await this.clients[0]!.query<{ pages: string; largest: string; bytes: string }>(`
      SELECT sum(pg_relation_size(relid)) / current_setting('block_size')::bigint AS pages,
        max(pg_relation_size(relid)) / current_setting('block_size')::bigint AS largest, sum(pg_table_size(relid)) AS bytes
      FROM (SELECT relid FROM pg_partition_tree($1::regclass) WHERE isleaf UNION SELECT $1::regclass) AS tree`, [quoteTable(cls.source)]);
    const { pages, largest, bytes } = rows[0]!;
    return { pages: Number(cls.key.length > 0 ? pages : largest), bytes: Number(bytes) };
  }
}

/** The half-open ranges that n bounds make: n + 1 of them, open at both ends. */
function between(bounds: readonly (readonly string[])[]): [readonly string[] | null, readonly string[] | null][] {
  return Array.from({ length: bounds.length + 1 }, (_, i) => [bounds[i - 1] ?? null, bounds[i] ?? null]);
}
