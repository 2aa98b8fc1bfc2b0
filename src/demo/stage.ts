/** What the demo is played on: two servers of our own, the business on one of them, and what tells whether the other has it too. */
import pg from "pg";
import type { DemoClass } from "./schema.ts";
import { startEmbeddedPostgres, type EmbeddedServer } from "./servers.ts";
import type { TableVerdict } from "./verify.ts";
import type { Workload } from "./workload.ts";

/** One side. */
export interface DemoServer {
  readonly engine: "postgres" | "mysql" | "mariadb";
  /** For example `PostgreSQL 18.4`. */
  readonly name: string;
  /** With credentials, of somebody who may do everything. */
  readonly url: string;
}

/** Two servers that stand, empty at first. Whoever made it ends them. */
export interface DemoStage {
  readonly source: DemoServer;
  readonly target: DemoServer;
  readonly classes: readonly DemoClass[];
  /** Makes the tables on both sides and fills the source's; resolves to the number of rows. */
  furnish(scale: number): Promise<number>;
  /** Connects and begins to write to the source. */
  startWorkload(transactionsPerSecond: number): Promise<Workload>;
  /** Compares both sides row by row, without dualrun's own comparison; both have to be still. */
  verify(): Promise<TableVerdict[]>;
}

/** Starts the servers of a demo; they end with `stack`. */
export type StageMaker = (stack: AsyncDisposableStack) => Promise<DemoStage>;

const SETTINGS = { max_wal_size: "2GB", shared_buffers: "256MB" };

/** A PostgreSQL server that ends with `stack`. */
export async function startPostgres(stack: AsyncDisposableStack): Promise<EmbeddedServer> {
  return stack.use(await startEmbeddedPostgres({ settings: SETTINGS }));
}

/** How it is announced and configured. */
export function postgresServer({ version, url }: EmbeddedServer): DemoServer {
  return { engine: "postgres", name: `PostgreSQL ${version}`, url };
}

/** Waits for both even when one fails, so that what the other has begun is known to its stack. */
export async function both<A, B>(a: Promise<A>, b: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([a, b]);
  return Promise.all([a, b]);
}

/** Work on a connection of its own. */
export async function withClient<T>(connectionString: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
