/** The change stream: pg-logical-replication holds the connection, frames are decoded where they lie. */
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { LogicalReplicationService } from "pg-logical-replication";
import { BlockQueue, DualrunError, type ChangeBlock, type ChangeStream, type Endpoint, type Position, type ValueFormat } from "../../src/core/index.ts";
import { clientConfig, isTransient, sqlState, unreachable } from "./connection.ts";
import { driverConnection, tapWholeFrames } from "./frames.ts";
import { formatLsn } from "./lsn.ts";
import { PgOutputDecoder, type Layouts } from "./pgoutput.ts";

/** Decoded bytes that may wait for the pipeline before the socket is paused. */
const QUEUE_HIGH_WATER = 2 << 20;
/**
 * The server sends message by message. Under load a reader that waits in the poller is woken for each of them;
 * one that naps for a moment takes what has gathered and leaves the processor to the server.
 * Pausing the socket instead closes the receive window, and TCP may take 200 ms to open it again.
 */
const SMALL_CHUNK = 32 << 10;
const NAP_MS = 0.25;
/** Chunks that follow each other faster than this mean load. */
const LOAD_MS = 0.5;
const NAP = new Int32Array(new SharedArrayBuffer(4));
/** A status update at least this often keeps the server from giving up, however long the target takes. */
const STATUS_INTERVAL_MS = 5_000;
/** Acknowledgements are gathered for this long. */
const ACKNOWLEDGE_DELAY_MS = 100;
const BUSY_RETRIES = 150;

/**
 * The library as a connection that starts a slot and nothing more. Its own acknowledgements are off for good:
 * they confirm one byte too many and what was received rather than what is durable.
 */
class ReplicationConnection extends LogicalReplicationService {
  private connection: { sendCopyFromChunk(chunk: Buffer): void } | null = null;

  constructor(config: pg.ClientConfig) {
    super(config, { acknowledge: { auto: false, timeoutSeconds: 0 } });
  }

  /** Resolves when the stream has ended; `ready` is called with the driver before the slot starts. */
  run(statement: (slot: string, lsn: string) => string, slot: string, lsn: string, ready: (client: pg.Client) => void): Promise<unknown> {
    const plugin = {
      name: "pgoutput",
      options: {},
      parse: (): null => null,
      start: (client: pg.Client): Promise<unknown> => {
        this.connection = driverConnection(client);
        ready(client);
        return client.query(statement(slot, lsn));
      },
    };
    return this.subscribe(plugin as never, slot, lsn);
  }

  /** Confirms exactly `durable`; `received` only tells the server how far the socket was read. */
  confirm(received: { high: number; low: number }, durable: { high: number; low: number }): void {
    const update = Buffer.alloc(34);
    update[0] = 0x72;
    update.writeUInt32BE(received.high, 1);
    update.writeUInt32BE(received.low, 5);
    for (const at of [9, 17]) {
      update.writeUInt32BE(durable.high, at);
      update.writeUInt32BE(durable.low, at + 4);
    }
    update.writeBigInt64BE((BigInt(Date.now()) - 946_684_800_000n) * 1000n, 25);
    this.connection?.sendCopyFromChunk(update);
  }

  override async acknowledge(): Promise<boolean> {
    return false;
  }
}

export interface StreamOptions {
  readonly slot: string;
  readonly publication: string;
  readonly after: Position;
  readonly format: ValueFormat;
  readonly layouts: Layouts;
  readonly signal: AbortSignal;
}

const parts = (lsn: Position): { high: number; low: number } => {
  const [high, low] = lsn.split("/");
  return { high: parseInt(high!, 16), low: parseInt(low!, 16) };
};

/** Starts the slot and returns its stream; waits a while for a predecessor to let go of the slot. */
export async function openPostgresStream(endpoint: Endpoint, options: StreamOptions): Promise<PostgresStream> {
  for (let attempt = 0; ; attempt++) {
    const stream = new PostgresStream(endpoint, options);
    try {
      await stream.started;
      return stream;
    } catch (error) {
      await stream[Symbol.asyncDispose]();
      if (sqlState(error) !== "55006" || attempt >= BUSY_RETRIES) throw streamError(endpoint, options, error);
      await sleep(200, undefined, { signal: options.signal });
    }
  }
}

export class PostgresStream implements ChangeStream {
  readonly started: Promise<void>;
  private readonly replication: ReplicationConnection;
  private readonly decoder: PgOutputDecoder;
  private readonly options: StreamOptions;
  private readonly endpoint: Endpoint;
  private readonly queue = new BlockQueue(QUEUE_HIGH_WATER, () => void this.socket?.resume());
  private read = 0;
  private socket: { pause(): unknown; resume(): unknown } | null = null;
  private lastChunkAt = 0;
  private durable: { high: number; low: number };
  private statusTimer: NodeJS.Timeout | null = null;
  private acknowledgeTimer: NodeJS.Timeout | null = null;
  private ended = false;
  private failure: unknown = null;

  constructor(endpoint: Endpoint, options: StreamOptions) {
    this.endpoint = endpoint;
    this.options = options;
    this.durable = parts(options.after);
    this.decoder = new PgOutputDecoder(options.layouts, () => this.sendStatus());
    this.replication = new ReplicationConnection(clientConfig(endpoint, { application: `dualrun ${options.slot}`, replication: true }));
    this.replication.on("error", (error: Error) => this.end(error));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.started = promise;
    this.replication.on("start", () => {
      if (!this.ended) this.statusTimer = setInterval(() => this.sendStatus(), STATUS_INTERVAL_MS);
      resolve();
    });
    void this.replication
      .run((slot, lsn) => this.statement(slot, lsn), options.slot, options.after, (client) => this.attach(client))
      .then(() => this.end(new Error("the server ended the replication stream")), (error: unknown) => this.end(error))
      .then(() => reject(this.failure));
    options.signal.addEventListener("abort", this.onAbort, { once: true });
  }

  get tables(): ChangeStream["tables"] {
    return this.decoder.tables;
  }

  head(): Position {
    return formatLsn(this.decoder.headHigh, this.decoder.headLow);
  }

  bytesRead(): number {
    return this.read;
  }

  async *blocks(): AsyncGenerator<ChangeBlock, void, undefined> {
    yield* this.queue.blocks();
    if (!this.options.signal.aborted) throw streamError(this.endpoint, this.options, this.failure);
  }

  acknowledge(durable: Position): void {
    this.durable = parts(durable);
    this.acknowledgeTimer ??= setTimeout(() => this.sendStatus(), ACKNOWLEDGE_DELAY_MS);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.options.signal.removeEventListener("abort", this.onAbort);
    if (this.acknowledgeTimer !== null && !this.ended) this.sendStatus();
    this.end(new Error("closed"));
    await this.replication.stop().catch(() => undefined); // the connection may be gone already
  }

  private readonly onAbort = (): void => this.end(this.options.signal.reason);

  private statement(slot: string, lsn: string): string {
    const binary = this.options.format === "binary" ? ", binary 'true'" : "";
    return `START_REPLICATION SLOT "${slot}" LOGICAL ${lsn} (proto_version '1', publication_names '"${this.options.publication}"', messages 'true'${binary})`;
  }

  private attach(client: pg.Client): void {
    const { stream } = driverConnection(client);
    this.socket = stream;
    tapWholeFrames(stream, (chunk, from, to) => this.receive(chunk, from, to));
  }

  private receive(chunk: Buffer, from: number, to: number): void {
    if (this.ended) return;
    try {
      const block = this.decoder.decode(chunk, from, to);
      this.read += to - from;
      if (block.count === 0) return;
      this.queue.push(block, chunk.length);
    } catch (error) {
      this.end(error);
      return;
    }
    if (this.queue.isFull) this.socket?.pause();
    else if (chunk.length < SMALL_CHUNK) this.gather();
  }

  private gather(): void {
    if (performance.now() - this.lastChunkAt < LOAD_MS) Atomics.wait(NAP, 0, 0, NAP_MS);
    this.lastChunkAt = performance.now();
  }

  private sendStatus(): void {
    if (this.acknowledgeTimer !== null) clearTimeout(this.acknowledgeTimer);
    this.acknowledgeTimer = null;
    if (!this.ended) this.replication.confirm({ high: this.decoder.headHigh, low: this.decoder.headLow }, this.durable);
  }

  private end(error: unknown): void {
    if (this.ended) return;
    this.ended = true;
    this.failure = error;
    if (this.statusTimer !== null) clearInterval(this.statusTimer);
    if (this.acknowledgeTimer !== null) clearTimeout(this.acknowledgeTimer);
    this.queue.end();
  }
}

const SLOT_LOST = new Set(["42704", "55000"]);

function streamError(endpoint: Endpoint, options: StreamOptions, error: unknown): unknown {
  if (error instanceof DualrunError) return error;
  const state = sqlState(error);
  if (state !== null && SLOT_LOST.has(state)) {
    const message = error instanceof Error ? error.message : String(error);
    return new DualrunError("DR4004", `slot "${options.slot}" cannot be read from ${options.after}: ${message}`, { where: "source", cause: error });
  }
  if (state === null || isTransient(error)) return unreachable(endpoint, error);
  return error;
}
