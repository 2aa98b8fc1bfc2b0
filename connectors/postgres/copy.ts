/** COPY out of and into PostgreSQL as bytes. */
import { once } from "node:events";
import type pg from "pg";
import type { RowBatch } from "../../src/core/index.ts";
import { driverConnection, tapBytes, type DriverConnection } from "./frames.ts";

/** Bytes that may wait between two sockets before the reading one is paused. */
const HIGH_WATER = 1 << 20;

/** The shape that the driver expects of a query object. */
class CopyQuery {
  readonly done: Promise<number>;
  private readonly sql: string;
  private readonly onReady: ((connection: DriverConnection) => void) | null;
  private settle!: { resolve(rows: number): void; reject(error: unknown): void };
  private rows = 0;
  private failure: unknown = null;

  constructor(sql: string, onReady: ((connection: DriverConnection) => void) | null) {
    this.sql = sql;
    this.onReady = onReady;
    this.done = new Promise((resolve, reject) => {
      this.settle = { resolve, reject };
    });
    this.done.catch(() => undefined);
  }

  get failed(): boolean {
    return this.failure !== null;
  }

  submit(connection: DriverConnection): void {
    connection.query(this.sql);
  }

  handleCopyInResponse(connection: DriverConnection): void {
    this.onReady?.(connection);
  }

  handleCommandComplete(message: { text: string }): void {
    this.rows = Number(/\d+$/.exec(message.text)?.[0] ?? 0);
  }

  handleError(error: unknown): void {
    this.failure ??= error;
    this.settle.reject(error);
  }

  handleReadyForQuery(): void {
    if (this.failure === null) this.settle.resolve(this.rows);
  }

  handleCopyData(): void {}
  handleRowDescription(): void {}
  handleDataRow(): void {}
  handleEmptyQuery(): void {}
  handlePortalSuspended(): void {}
}

function submit(client: pg.Client, query: CopyQuery): void {
  (client as unknown as { query(q: unknown): void }).query(query);
}

const frameHeader = (length: number): Buffer => {
  const header = Buffer.allocUnsafe(5);
  header[0] = 0x64;
  header.writeInt32BE(length + 4, 1);
  return header;
};

/** `COPY … FROM STDIN` of payload pieces that are already in the copy's format. Returns the number of rows. */
export function copyIn(client: pg.Client, sql: string, pieces: readonly Buffer[]): Promise<number> {
  const query = new CopyQuery(sql, (connection) => {
    connection.stream.cork();
    for (const piece of pieces) {
      connection.stream.write(frameHeader(piece.length));
      connection.stream.write(piece);
    }
    connection.endCopyFrom();
    process.nextTick(() => connection.stream.uncork());
  });
  submit(client, query);
  return query.done;
}

/** `COPY … FROM STDIN` of CopyData frames as another server sent them, under back pressure. Returns the number of rows. */
export async function copyFrames(client: pg.Client, sql: string, rows: AsyncIterable<RowBatch>): Promise<number> {
  const query = new CopyQuery(sql, (connection) => {
    pump(connection, rows, query).catch((error: unknown) => {
      connection.sendCopyFail("the source of the copy failed");
      query.handleError(error);
    });
  });
  submit(client, query);
  return query.done;
}

async function pump(connection: DriverConnection, rows: AsyncIterable<RowBatch>, query: CopyQuery): Promise<void> {
  for await (const batch of rows) {
    if (query.failed) return;
    if (!connection.stream.write(batch.bytes)) await Promise.race([once(connection.stream, "drain"), query.done.catch(() => undefined)]);
  }
  connection.endCopyFrom();
}

/** `COPY (…) TO STDOUT`: CopyData frames as received; ends when the copy has ended, throws what the server said. */
export async function* copyOut(client: pg.Client, sql: string, signal: AbortSignal): AsyncGenerator<RowBatch, void, undefined> {
  const { stream } = driverConnection(client);
  const queue: RowBatch[] = [];
  let queued = 0;
  let finished = false;
  let wake: () => void = () => undefined;
  const query = new CopyQuery(sql, null);
  let discarding = false;
  const detach = tapBytes(stream, (bytes, count) => {
    if (discarding) return;
    queue.push({ bytes, rows: count });
    queued += bytes.length;
    if (queued > HIGH_WATER) stream.pause();
    wake();
  });
  const end = (): void => {
    finished = true;
    wake();
  };
  query.done.then(end, end);
  stream.once("close", end);
  signal.addEventListener("abort", end, { once: true });
  try {
    submit(client, query);
    while (true) {
      const batch = queue.shift();
      if (batch !== undefined) {
        queued -= batch.bytes.length;
        if (queued < HIGH_WATER / 2) stream.resume();
        yield batch;
      } else if (finished) break;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
    signal.throwIfAborted();
    await query.done;
  } finally {
    signal.removeEventListener("abort", end);
    stream.removeListener("close", end);
    discarding = true;
    stream.resume();
    if (!signal.aborted) {
      // Who stops early leaves the rest of the rows behind: the connection is usable again when they have gone by.
      await query.done.catch(() => undefined);
      detach();
    }
  }
}
