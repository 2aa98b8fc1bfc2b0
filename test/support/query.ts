/** One statement, or several, over a connection of its own. */
import pg from "pg";

/** Rows of the last statement. */
export async function query(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined); // the query that is under way rejects with it
  await client.connect();
  try {
    const results = [await client.query(text)].flat() as pg.QueryResult[];
    return results.at(-1)?.rows ?? [];
  } finally {
    await client.end();
  }
}
