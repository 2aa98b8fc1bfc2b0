/** Loads one chunk of a snapshot: rows and "chunk done" in one transaction, under the fence. */
import type pg from "pg";
import {
  failpoint,
  type Checkpoint, type Chunk, type LoadOptions, type LoadResult, type Position, type RecordClass, type RowBatch, type ValueFormat,
} from "../../src/core/index.ts";
import { copyFrames } from "./copy.ts";
import { quoteIdent, quoteLiteral, quoteTable } from "./identifiers.ts";
import { holdFence, markChunkDone } from "./state.ts";
import { formatClause, refusal } from "./writer.ts";

export async function loadChunk(
  client: pg.Client, chunk: Chunk, cls: RecordClass, format: ValueFormat, rows: AsyncIterable<RowBatch>, held: Checkpoint, at: Position, options: LoadOptions,
): Promise<LoadResult> {
  let bytes = 0;
  const counted = (async function* () {
    for await (const batch of rows) {
      bytes += batch.bytes.length;
      yield batch;
    }
  })();
  try {
    failpoint("copy.before-chunk");
    await client.query("BEGIN");
    await holdFence(client, held);
    const { copied, refused } = await fill(client, chunk, cls, format, counted, held, options);
    const counts = { rows: copied, bytes, refused };
    await markChunkDone(client, held.stream, chunk, at, counts);
    await client.query("COMMIT");
    failpoint("copy.after-chunk");
    return counts;
  } catch (error) {
    throw refusal(error, cls);
  }
}

async function fill(
  client: pg.Client, chunk: Chunk, cls: RecordClass, format: ValueFormat, rows: AsyncIterable<RowBatch>, held: Checkpoint, options: LoadOptions,
): Promise<{ copied: number; refused: number }> {
  const table = quoteTable(cls.target);
  const columns = cls.columns.map((column) => quoteIdent(column.target)).join(", ");
  if (options.careful) return fillRowByRow(client, chunk, cls, rows, held, options.merge);
  if (!options.merge) return { copied: await copyFrames(client, `COPY ${table} (${columns}) FROM STDIN${formatClause(format)}`, rows), refused: 0 };
  await client.query(`CREATE TEMPORARY TABLE dualrun_load ON COMMIT DROP AS SELECT ${columns} FROM ${table} LIMIT 0`);
  const copied = await copyFrames(client, `COPY pg_temp.dualrun_load (${columns}) FROM STDIN${formatClause(format)}`, rows);
  await client.query(`INSERT INTO ${table} (${columns}) OVERRIDING SYSTEM VALUE SELECT ${columns} FROM pg_temp.dualrun_load ${keepPresent(cls)}`);
  return { copied, refused: 0 };
}

/** A row that the stream has already brought is the same row: at the snapshot's position both stand at the same moment. */
function keepPresent(cls: RecordClass): string {
  return cls.key.length === 0 ? "" : `ON CONFLICT (${cls.key.map(quoteIdent).join(", ")}) DO NOTHING`;
}

/** Sets refused rows aside by the hash of their key; slow, and only for chunks in which a row was refused. */
async function fillRowByRow(
  client: pg.Client, chunk: Chunk, cls: RecordClass, rows: AsyncIterable<RowBatch>, held: Checkpoint, merge: boolean,
): Promise<{ copied: number; refused: number }> {
  const columns = cls.columns.map((column) => quoteIdent(column.target));
  const types = await columnTypes(client, cls);
  const key = cls.key.length > 0 ? cls.key.map(quoteIdent) : columns;
  await client.query(`CREATE TEMPORARY TABLE dualrun_load (${columns.map((column) => `${column} text`).join(", ")}) ON COMMIT DROP`);
  const copied = await copyFrames(client, `COPY pg_temp.dualrun_load (${columns.join(", ")}) FROM STDIN`, rows);
  await client.query(`
    DO $dualrun$
    DECLARE r record; state text; named text;
    BEGIN
      FOR r IN SELECT ctid AS place, encode(sha256(convert_to(ROW(${key.join(", ")})::text, 'UTF8')), 'hex') AS hash FROM pg_temp.dualrun_load LOOP
        BEGIN
          INSERT INTO ${quoteTable(cls.target)} (${columns.join(", ")}) OVERRIDING SYSTEM VALUE
          SELECT ${columns.map((column, i) => `${column}::${types[i]!}`).join(", ")} FROM pg_temp.dualrun_load WHERE ctid = r.place ${merge ? keepPresent(cls) : ""};
        EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
          GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, named = CONSTRAINT_NAME;
          INSERT INTO dualrun.refused_rows (stream, class, ordinal, key_hash, sqlstate, constraint_name)
          VALUES (${quoteLiteral(held.stream)}, ${quoteLiteral(cls.name)}, ${chunk.ordinal}, left(r.hash, 16), state, nullif(named, ''));
        END;
      END LOOP;
    END $dualrun$`);
  const { rows: counted } = await client.query<{ n: string }>(
    "SELECT count(*) AS n FROM dualrun.refused_rows WHERE stream = $1 AND class = $2 AND ordinal = $3", [held.stream, cls.name, chunk.ordinal]);
  const refused = Number(counted[0]!.n);
  return { copied: copied - refused, refused };
}

/** Without their modifiers: an explicit cast to varchar(3) cuts, an assignment refuses. */
async function columnTypes(client: pg.Client, cls: RecordClass): Promise<string[]> {
  const { rows } = await client.query<{ name: string; type: string }>(
    "SELECT attname AS name, format_type(atttypid, -1) AS type FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0", [quoteTable(cls.target)]);
  const byName = new Map(rows.map((row) => [row.name, row.type]));
  return cls.columns.map((column) => byName.get(column.target)!);
}
