/** A MySQL or MariaDB server of its own, and its binary log as the decoder reads it. */
import ZongJi from "@vlasky/zongji";
import * as mariadb from "mariadb";

import { readTuple } from "../../src/core/index.ts";
import { mysqlServer, type TestMysql } from "./mysql.ts";
import { BinlogDecoder, type DecoderOptions } from "../../connectors/mysql/decoder.ts";
import { takePackets } from "../../connectors/mysql/packets.ts";
import { ROW, type BinlogTable, type RowKind } from "../../connectors/mysql/rows.ts";
import type { BinlogEvent, EventHeader } from "../../connectors/mysql/events.ts";

export type Flavour = "mysql" | "mariadb";

const WAIT = 60_000;
let instances = 0;

type Values = readonly (string | null)[];

export interface LoggedRow {
  readonly kind: RowKind;
  readonly table: string;
  readonly before: Values | null;
  readonly after: Values | null;
}

/** What a stretch of the log says. */
export interface Log {
  readonly rows: readonly LoggedRow[];
  readonly events: readonly BinlogEvent[];
  readonly headers: readonly EventHeader[];
  readonly tables: ReadonlyMap<string, BinlogTable>;
  /** Every event as it came, with its checksum, without the packet's first byte. */
  readonly raw: readonly Buffer[];
}

/** A database of its own on one server, and a session in it. */
export class BinlogServer implements AsyncDisposable {
  readonly database: string;
  private readonly server: TestMysql;
  private readonly url: URL;
  private readonly session: mariadb.Connection;

  private constructor(server: TestMysql, url: URL, session: mariadb.Connection, database: string) {
    this.server = server;
    this.url = url;
    this.session = session;
    this.database = database;
  }

  /** @throws ServerUnavailable */
  static async start(flavour: Flavour): Promise<BinlogServer> {
    const server = await mysqlServer({ flavour: flavour === "mysql" ? "mysql-9.7" : "mariadb-11.8", controllable: true });
    const url = new URL(server.url);
    const session = await mariadb.createConnection({ ...account(url), rowsAsArray: true, charset: "utf8mb4", allowPublicKeyRetrieval: true });
    const database = `binlog_${process.pid}_${++instances}`;
    await session.query(`CREATE DATABASE ${database} CHARACTER SET utf8mb4`);
    await session.query(`USE ${database}`);
    await session.query("SET time_zone = '+00:00', sql_mode = ''");
    return new BinlogServer(server, url, session, database);
  }

  async run(...statements: string[]): Promise<void> {
    for (const statement of statements) await this.session.query(statement);
  }

  /** Rows of text; bytes are read as UTF-8. */
  async select(sql: string): Promise<(string | null)[][]> {
    const rows = await this.session.query<unknown[][]>({ sql, rowsAsArray: true, typeCast: (column) => column.string() });
    return [...rows] as (string | null)[][];
  }

  /** The log of what `work` does, up to its last statement. */
  async logOf(work: () => Promise<void>, options: Partial<DecoderOptions> = {}): Promise<Log> {
    const [file, position] = await this.head();
    await work();
    await this.run("CREATE TABLE IF NOT EXISTS end_of_log (n int)", "INSERT INTO end_of_log VALUES (1)");
    return await this.read(file, position, { wants: (schema) => schema === this.database, ...options }, (log) => log.sawEnd);
  }

  /** The log from its end on, until the server says that nothing happens; `flags` go with the request. */
  async idleLog(flags: number): Promise<Log> {
    const [file, position] = await this.head();
    return await this.read(file, position, {}, (log) => log.events.some(({ kind }) => kind === "heartbeat"), flags);
  }

  private async head(): Promise<[file: string, position: number]> {
    const logs = await this.select("SHOW BINARY LOGS");
    const [file, position] = logs.at(-1)!;
    return [file!, Number(position)];
  }

  private async read(filename: string, position: number, options: Omit<DecoderOptions, "checksum">, isEnd: (log: Collector) => boolean, flags = 0): Promise<Log> {
    const collector = new Collector();
    const zongji = new ZongJi(account(this.url));
    const done = new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("the log has no end")), WAIT);
      const settle = (error: unknown): void => {
        clearTimeout(timer);
        if (error === null) resolve();
        else reject(error as Error);
      };
      zongji.on("error", settle);
      zongji.on("ready", () => {
        setDumpFlags(zongji, flags);
        zongji.connection?.query("SET @master_heartbeat_period = 200000000");
        const decoder = new BinlogDecoder({ ...options, checksum: zongji.useChecksum }, collector.sink(() => decoder));
        takePackets(zongji, {
          onEvent: (buffer, from, to) => {
            if (isEnd(collector)) return;
            collector.raw.push(Buffer.from(buffer.subarray(from + 1, to)));
            decoder.packet(buffer, from, to);
            if (isEnd(collector)) settle(null);
          },
          onEnd: (error) => settle(error ?? new Error("the server has ended the dump")),
        });
      });
    });
    zongji.start({ serverId: 1_000_000 + process.pid * 100 + instances++, filename, position });
    try {
      await done;
      return collector;
    } finally {
      zongji.stop();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session.end();
    await this.server[Symbol.asyncDispose]();
  }
}

function account(url: URL): { host: string; port: number; user: string; password: string } {
  return { host: url.hostname, port: Number(url.port || 3306), user: decodeURIComponent(url.username), password: decodeURIComponent(url.password) };
}

const DUMP = 0x12;
const FLAGS_OFFSET = 9;

/** What the package has no option for. */
function setDumpFlags(zongji: ZongJi, flags: number): void {
  const connection = zongji.connection as unknown as { writePacket: (packet: { buffer: Buffer }) => void };
  const write = connection.writePacket.bind(connection);
  connection.writePacket = (packet) => {
    if (packet.buffer[4] === DUMP) packet.buffer[FLAGS_OFFSET]! |= flags;
    write(packet);
  };
}

class Collector implements Log {
  readonly rows: LoggedRow[] = [];
  readonly events: BinlogEvent[] = [];
  readonly headers: EventHeader[] = [];
  readonly tables = new Map<string, BinlogTable>();
  readonly raw: Buffer[] = [];
  sawEnd = false;

  sink(decoder: () => BinlogDecoder): ConstructorParameters<typeof BinlogDecoder>[1] {
    return {
      event: (event, header) => {
        this.events.push(event);
        this.headers.push(header);
      },
      row: (kind, table, before, after) => {
        const { bytes } = decoder().tuples;
        this.tables.set(table.name, table);
        if (table.name === "end_of_log") this.sawEnd = true;
        else this.rows.push({ kind, table: table.name, before: textOf(bytes, before), after: textOf(bytes, after) });
      },
    };
  }
}

function textOf(bytes: Buffer, at: number): Values | null {
  return at < 0 ? null : readTuple(bytes, at).map((value) => value?.toString("utf8") ?? null);
}

export { ROW };
