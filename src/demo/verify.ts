/** Compares tables row by row, as multisets, over the sorted text of their rows. */
import pg from "pg";

export interface TableVerdict {
  readonly table: string;
  readonly sourceRows: number;
  readonly targetRows: number;
  /** Rows that only one side has. */
  readonly missing: number;
  readonly extra: number;
}

const FETCH = 5_000;
const SETTINGS = "-c timezone=UTC -c datestyle=ISO -c extra_float_digits=3 -c intervalstyle=postgres";

/** Both sides must be still. Rows are merged in bytewise order, so memory stays bounded. */
export async function verifyTables(sourceUrl: string, targetUrl: string, tables: readonly string[]): Promise<TableVerdict[]> {
  const source = await open(sourceUrl);
  const target = await open(targetUrl);
  try {
    const verdicts: TableVerdict[] = [];
    for (const table of tables) verdicts.push(await verifyTable(source, target, table));
    return verdicts;
  } finally {
    await Promise.allSettled([source.end(), target.end()]);
  }
}

export function isEqual(verdict: TableVerdict): boolean {
  return verdict.missing === 0 && verdict.extra === 0;
}

async function open(connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString, options: SETTINGS });
  await client.connect();
  await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  return client;
}

async function verifyTable(source: pg.Client, target: pg.Client, table: string): Promise<TableVerdict> {
  return compareSorted(table, rowsOf(source, table), rowsOf(target, table));
}

/** Merges the rows of both sides, each in the bytewise order of its text. */
export async function compareSorted(table: string, left: AsyncIterator<string, undefined>, right: AsyncIterator<string, undefined>): Promise<TableVerdict> {
  let sourceRows = 0, targetRows = 0, missing = 0, extra = 0;
  let a = await left.next();
  let b = await right.next();
  while (!a.done || !b.done) {
    const order = a.done ? 1 : b.done ? -1 : Buffer.compare(Buffer.from(a.value), Buffer.from(b.value));
    if (order < 0) missing += 1;
    if (order > 0) extra += 1;
    if (order <= 0) {
      sourceRows += 1;
      a = await left.next();
    }
    if (order >= 0) {
      targetRows += 1;
      b = await right.next();
    }
  }
  return { table, sourceRows, targetRows, missing, extra };
}

async function* rowsOf(client: pg.Client, table: string): AsyncGenerator<string, undefined> {
  await client.query(`DECLARE rows_of CURSOR FOR SELECT dualrun_row::text AS image FROM ${table} AS dualrun_row ORDER BY dualrun_row::text COLLATE "C"`);
  while (true) {
    const { rows } = await client.query<{ image: string }>(`FETCH ${FETCH} FROM rows_of`);
    for (const row of rows) yield row.image;
    if (rows.length < FETCH) break;
  }
  await client.query("CLOSE rows_of");
  return undefined;
}
