/** What must stand in the target beside the rows: checkpoints (the fence), chunk marks. Always in the same transactions as the rows. */
import type pg from "pg";
import { DualrunError, type Checkpoint, type Chunk, type ChunkMark, type Migration, type Position, type TouchRecord } from "../../src/core/index.ts";

type Queryable = Pick<pg.ClientBase, "query">;

const OWN_MIGRATIONS: readonly Migration[] = [
  {
    name: "postgres-001-checkpoints",
    statements: [
      `CREATE TABLE dualrun.checkpoints (
         stream text PRIMARY KEY,
         epoch bigint NOT NULL,
         seq bigint NOT NULL,
         position text,
         source_identity text,
         updated_at timestamptz NOT NULL DEFAULT now()
       ) WITH (fillfactor = 10)`,
      `CREATE TABLE dualrun.chunks (
         stream text NOT NULL,
         class text NOT NULL,
         ordinal integer NOT NULL,
         lower_bound text[],
         upper_bound text[],
         resumable boolean NOT NULL,
         estimated_rows bigint NOT NULL,
         estimated_bytes bigint NOT NULL,
         rows bigint NOT NULL DEFAULT 0,
         bytes bigint NOT NULL DEFAULT 0,
         refused bigint NOT NULL DEFAULT 0,
         position text,
         done_at timestamptz,
         PRIMARY KEY (stream, class, ordinal)
       )`,
      `CREATE TABLE dualrun.refused_rows (
         stream text NOT NULL,
         class text NOT NULL,
         ordinal integer NOT NULL,
         key_hash text NOT NULL,
         sqlstate text NOT NULL,
         constraint_name text
       )`,
    ],
  },
  {
    name: "postgres-002-touched",
    statements: [
      `CREATE TABLE dualrun.touched (
         id bigserial PRIMARY KEY,
         stream text NOT NULL,
         class text NOT NULL,
         generation bigint NOT NULL,
         position text NOT NULL,
         slices text[]
       )`,
      "CREATE INDEX ON dualrun.touched (stream, class, generation)",
    ],
  },
];

/** Brings dualrun's schema up to date; each migration once, in one transaction, one daemon at a time. */
export async function migrateState(client: pg.ClientBase, more: readonly Migration[]): Promise<void> {
  await client.query("BEGIN");
  try {
    await client.query("SELECT pg_advisory_xact_lock(hashtext('dualrun migrations'))");
    const { rows: schema } = await client.query("SELECT 1 FROM pg_namespace WHERE nspname = 'dualrun'");
    if (schema.length === 0) await client.query("CREATE SCHEMA dualrun");
    await client.query("CREATE TABLE IF NOT EXISTS dualrun.migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())");
    const { rows } = await client.query<{ name: string }>("SELECT name FROM dualrun.migrations");
    const applied = new Set(rows.map((row) => row.name));
    for (const migration of [...OWN_MIGRATIONS, ...more]) {
      if (applied.has(migration.name)) continue;
      for (const statement of migration.statements) await client.query(statement);
      await client.query("INSERT INTO dualrun.migrations (name) VALUES ($1)", [migration.name]);
    }
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK").catch(() => undefined); // the first error is the one to report
    throw error;
  }
}

interface CheckpointRow {
  stream: string;
  epoch: string;
  seq: string;
  position: string | null;
  source_identity: string | null;
}

const toCheckpoint = (row: CheckpointRow): Checkpoint => ({
  stream: row.stream,
  epoch: BigInt(row.epoch),
  seq: BigInt(row.seq),
  position: row.position as Position | null,
  sourceIdentity: row.source_identity,
});

const COLUMNS = "stream, epoch, seq, position, source_identity";

export async function readCheckpoint(client: Queryable, stream: string): Promise<Checkpoint | null> {
  const { rows } = await client.query<CheckpointRow>(`SELECT ${COLUMNS} FROM dualrun.checkpoints WHERE stream = $1`, [stream]);
  return rows[0] === undefined ? null : toCheckpoint(rows[0]);
}

export async function takeOver(client: Queryable, stream: string): Promise<Checkpoint> {
  const { rows } = await client.query<CheckpointRow>(
    `INSERT INTO dualrun.checkpoints AS c (stream, epoch, seq) VALUES ($1, 1, 0)
     ON CONFLICT (stream) DO UPDATE SET epoch = c.epoch + 1, updated_at = now() RETURNING ${COLUMNS}`, [stream]);
  return toCheckpoint(rows[0]!);
}

/** Moves the checkpoint; who is fenced out hits no row, nor does who read it before a commit of its own whose answer was lost. */
export async function advance(client: Queryable, held: Checkpoint, position: Position, sourceIdentity = held.sourceIdentity): Promise<Checkpoint> {
  const { rowCount } = await client.query({
    name: "dualrun advance",
    text: `UPDATE dualrun.checkpoints SET position = $1, source_identity = $2, seq = seq + 1, updated_at = now()
           WHERE stream = $3 AND epoch = $4 AND seq = $5`,
    values: [position, sourceIdentity, held.stream, held.epoch.toString(), held.seq.toString()],
  });
  if (rowCount !== 1) {
    await holdFence(client, held);
    throw new DualrunError("DR5008", `the checkpoint of stream "${held.stream}" has moved since it was read: a commit was carried out whose answer was lost`, { where: "target" });
  }
  return { ...held, position, sourceIdentity, seq: held.seq + 1n };
}

/** Beside the rows, in their transaction: which slices of their classes are to be proven again. */
export async function recordTouched(client: Queryable, stream: string, position: Position, { generation, touches }: TouchRecord): Promise<void> {
  for (const [name, slices] of touches) {
    await client.query({
      name: "dualrun touched",
      text: "INSERT INTO dualrun.touched (stream, class, generation, position, slices) VALUES ($1, $2, $3, $4, $5)",
      values: [stream, name, generation.toString(), position, slices],
    });
  }
}

/** Holds the fence for the rest of the transaction: nobody takes over before it ends. */
export async function holdFence(client: Queryable, held: Checkpoint): Promise<void> {
  const { rows } = await client.query("SELECT 1 FROM dualrun.checkpoints WHERE stream = $1 AND epoch = $2 FOR SHARE", [held.stream, held.epoch.toString()]);
  if (rows.length !== 1) throw fencedOut(held);
}

function fencedOut(held: Checkpoint): DualrunError {
  return new DualrunError("DR4001", `epoch ${held.epoch} of stream "${held.stream}" is over: another daemon writes to this target`, { where: "target" });
}

export async function insertChunks(client: pg.Client, stream: string, chunks: readonly Chunk[]): Promise<void> {
  for (const chunk of chunks) {
    await client.query(
      `INSERT INTO dualrun.chunks (stream, class, ordinal, lower_bound, upper_bound, resumable, estimated_rows, estimated_bytes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
      [stream, chunk.className, chunk.ordinal, chunk.lower, chunk.upper, chunk.resumable, Math.round(chunk.estimatedRows), Math.round(chunk.estimatedBytes)]);
  }
}

export async function markChunkDone(client: pg.Client, stream: string, chunk: Chunk, at: Position, counts: { rows: number; bytes: number; refused: number }): Promise<void> {
  await client.query(
    `UPDATE dualrun.chunks SET rows = $1, bytes = $2, refused = $3, position = $4, done_at = now() WHERE stream = $5 AND class = $6 AND ordinal = $7`,
    [counts.rows, counts.bytes, counts.refused, at, stream, chunk.className, chunk.ordinal]);
}

export async function readChunks(client: Queryable, stream: string): Promise<ChunkMark[]> {
  const { rows } = await client.query(
    `SELECT class, ordinal, lower_bound, upper_bound, resumable, estimated_rows, estimated_bytes, rows, bytes, refused, position, done_at
     FROM dualrun.chunks WHERE stream = $1 ORDER BY class, ordinal`, [stream]);
  return rows.map((row) => ({
    className: row.class, ordinal: row.ordinal, lower: row.lower_bound, upper: row.upper_bound, resumable: row.resumable,
    estimatedRows: Number(row.estimated_rows), estimatedBytes: Number(row.estimated_bytes),
    rows: Number(row.rows), bytes: Number(row.bytes), refused: Number(row.refused), position: row.position, done: row.done_at !== null,
  }));
}
