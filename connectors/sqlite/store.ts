/** The file: its tables, and every statement that writes to it. Synchronous; lives in the writing thread. */
import { randomUUID } from "node:crypto";
import { closeSync, openSync, statSync } from "node:fs";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { DualrunError, failpoint, formatTable, isDualrunError, parseTableDescription, type JournalRecord, type StreamTable } from "../../src/core/index.ts";
import { Seal, checksumOf, recordPlace, tablePlace } from "./seal.ts";

const FORMAT = "1";
/** `DRJL`, so that a file of something else is not taken for a journal. */
const APPLICATION = 0x4452_4a4c;
export const PAGE_BYTES = 16 << 10;
/** The log of SQLite itself is written back to the file at about this size, or at a sixteenth of the bound: what was trimmed and used again meanwhile is written once. */
const LOG_PAGES_MOST = 4_000;
const LOG_PAGES_LEAST = 16;
const KEY_PROOF = "dualrun journal";

const SCHEMA = `
  CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE tables (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
  CREATE TABLE records (
    seq INTEGER PRIMARY KEY,
    ended TEXT,
    transactions INTEGER NOT NULL,
    committed_at REAL NOT NULL,
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL
  );`;

export interface StoreOptions {
  readonly path: string;
  /** Bytes that the file may take. */
  readonly maxBytes: number;
  /** Whose changes it keeps. */
  readonly owner: string;
  /** 32 bytes, or null: rows stand in it as they are. */
  readonly key: Uint8Array | null;
}

/** Where the journal stands after it was opened, or written to. */
export interface StoreState {
  readonly fileId: string;
  /** Everything up to this record is gone; its position. */
  readonly startSeq: number;
  readonly start: string | null;
  /** The last record behind which nothing is in flight, and where it ends. */
  readonly committedSeq: number;
  readonly durable: string | null;
  readonly tables: readonly StreamTable[];
  readonly bytes: number;
}

export interface NewRecord extends JournalRecord {
  readonly seq: number;
}

/** One writer per file, for as long as the process lives; kill -9 lets go of it too. DR5104 when somebody else has it. */
export function lockJournal(path: string): Disposable {
  try {
    const lock = new DatabaseSync(`${path}.lock`);
    lock.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
    return { [Symbol.dispose]: () => lock.close() };
  } catch (error) {
    const busy = errcodeOf(error) === SQLITE_BUSY;
    throw new DualrunError("DR5104", busy ? "another process uses it" : (error as Error).message, { where: path, cause: error });
  }
}

export class Store {
  private readonly db: DatabaseSync;
  private readonly path: string;
  private readonly seal: Seal;
  readonly fileId: string;
  private readonly insert: StatementSync;

  /** Makes the file when there is none. DR5101, DR5103, DR5104. */
  constructor({ path, maxBytes, owner, key }: StoreOptions) {
    this.path = path;
    this.db = openFile(path);
    try {
      const logPages = Math.round(Math.min(LOG_PAGES_MOST, Math.max(LOG_PAGES_LEAST, maxBytes / 16 / PAGE_BYTES)));
      this.db.exec(`PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = ${logPages}; PRAGMA busy_timeout = 10000`);
      this.fileId = this.recognise(owner);
      this.seal = new Seal(key, this.fileId);
      this.proveKey();
      this.insert = this.db.prepare("INSERT INTO records (seq, ended, transactions, committed_at, checksum, body) VALUES (?, ?, ?, ?, ?, ?)");
    } catch (error) {
      this.db.close();
      throw storeError(error, path);
    }
  }

  /** What was not appended to its end is cut off. */
  recover(): StoreState {
    const { seq: startSeq, position: start } = this.startMark();
    const last = this.db.prepare("SELECT seq, ended FROM records WHERE ended IS NOT NULL ORDER BY seq DESC LIMIT 1").get() as { seq: number; ended: string } | undefined;
    const committedSeq = last?.seq ?? startSeq;
    this.cut(committedSeq);
    const tables = this.db.prepare("SELECT id, body FROM tables ORDER BY id").all() as unknown as { id: number; body: Uint8Array }[];
    return {
      fileId: this.fileId, startSeq, start, committedSeq, durable: last?.ended ?? start,
      tables: tables.map(({ id, body }) => parseTableDescription(Buffer.from(this.seal.open(body, tablePlace(id))).toString("utf8"))),
      bytes: this.bytes(),
    };
  }

  append(records: readonly NewRecord[], tables: readonly { readonly id: number; readonly table: StreamTable }[]): void {
    this.transaction(() => {
      for (const { id, table } of tables) {
        this.db.prepare("INSERT INTO tables (id, body) VALUES (?, ?)").run(id, this.seal.close(Buffer.from(formatTable(table)), tablePlace(id)));
      }
      for (const record of records) this.write(record);
      failpoint("journal.before-commit");
    });
    failpoint("journal.after-commit");
  }

  /** Forgets everything up to a record, which ends at `position`. */
  trim(seq: number, position: string): void {
    this.transaction(() => {
      this.db.prepare("DELETE FROM records WHERE seq <= ?").run(seq);
      this.setStart(seq, position);
      failpoint("journal.before-trim");
    });
    failpoint("journal.after-trim");
  }

  cut(seq: number): void {
    this.db.prepare("DELETE FROM records WHERE seq > ?").run(seq);
  }

  /** Empties it. Numbers of records go on, so that none is ever given twice in a file's life. */
  begin(seq: number, position: string): void {
    this.transaction(() => {
      this.db.exec("DELETE FROM records");
      this.setStart(seq, position);
    });
  }

  /** Pages in use and the log beside them. */
  bytes(): number {
    const number = (pragma: string): number => Number(Object.values(this.db.prepare(`PRAGMA ${pragma}`).get()!)[0]);
    const log = statSync(`${this.path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
    return (number("page_count") - number("freelist_count")) * PAGE_BYTES + log;
  }

  close(): void {
    this.db.close();
  }

  private write({ seq, body, end, transactions, committedAt }: NewRecord): void {
    const row = { seq, ended: end, transactions, committed_at: committedAt, body: this.seal.close(body, recordPlace(seq)) };
    this.insert.run(seq, end, transactions, committedAt, checksumOf(row), row.body);
  }

  private transaction(work: () => void): void {
    this.db.exec("BEGIN IMMEDIATE");
    try {
      work();
      this.db.exec("COMMIT");
    } catch (error) {
      if (this.db.isTransaction) this.db.exec("ROLLBACK");
      throw error;
    }
  }

  private recognise(owner: string): string {
    const found = Number(Object.values(this.db.prepare("PRAGMA application_id").get()!)[0]);
    const there = this.db.prepare("SELECT count(*) AS n FROM sqlite_schema").get()!["n"] as number;
    if (there === 0) return this.make(owner);
    if (found !== APPLICATION) throw new DualrunError("DR5104", "the file is no journal of dualrun", { where: this.path });
    const format = this.meta("format");
    if (format !== FORMAT) throw new DualrunError("DR5104", `the journal is of format ${format}, this program reads format ${FORMAT}`, { where: this.path });
    if (this.meta("owner") !== owner) throw new DualrunError("DR5103", `the journal keeps changes of ${ownerName(this.meta("owner")!)}, not of ${ownerName(owner)} with this target`, { where: this.path });
    return this.meta("id")!;
  }

  private make(owner: string): string {
    const id = randomUUID();
    this.transaction(() => {
      this.db.exec(`PRAGMA application_id = ${APPLICATION}`);
      this.db.exec(SCHEMA);
      for (const [name, value] of [["format", FORMAT], ["id", id], ["owner", owner], ["start-seq", "0"]]) this.setMeta(name!, value!);
    });
    return id;
  }

  /** A wrong key must be told from damage. */
  private proveKey(): void {
    const proof = this.meta("key-proof");
    if (proof === null) {
      this.setMeta("key-proof", Buffer.from(this.seal.close(Buffer.from(KEY_PROOF), "key")).toString("base64"));
      return;
    }
    if (!keyFits(this.seal, proof)) throw new DualrunError("DR5104", "the key is not the one that the journal was written with", { where: this.path });
  }

  private startMark(): { seq: number; position: string | null } {
    return { seq: Number(this.meta("start-seq")), position: this.meta("start") };
  }

  private setStart(seq: number, position: string): void {
    this.setMeta("start-seq", String(seq));
    this.setMeta("start", position);
  }

  private meta(name: string): string | null {
    return readMeta(this.db, name);
  }

  private setMeta(name: string, value: string): void {
    this.db.prepare("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value").run(name, value);
  }
}

export function readMeta(db: DatabaseSync, name: string): string | null {
  return (db.prepare("SELECT value FROM meta WHERE name = ?").get(name)?.["value"] as string | undefined) ?? null;
}

/** The proof is the known text, sealed; without a key the text itself. */
export function keyFits(seal: Seal, proof: string): boolean {
  try {
    return Buffer.from(seal.open(Buffer.from(proof, "base64"), "key")).toString() === KEY_PROOF;
  } catch (error) {
    if (isDualrunError(error)) return false;
    throw error;
  }
}

/** The migration's name; what follows it tells targets apart. */
export const ownerName = (owner: string): string => `migration ${owner.split(" ")[0]}`;

/** Readable for this user only; what SQLite puts beside it inherits that. */
function openFile(path: string): DatabaseSync {
  try {
    closeSync(openSync(path, "a", 0o600));
    const db = new DatabaseSync(path);
    db.exec(`PRAGMA page_size = ${PAGE_BYTES}; PRAGMA journal_mode = WAL`);
    return db;
  } catch (error) {
    throw storeError(error, path);
  }
}

export const SQLITE_BUSY = 5;
const SQLITE_IOERR = 10;
const SQLITE_CORRUPT = 11;
const SQLITE_FULL = 13;
const SQLITE_NOTADB = 26;

/** SQLite's primary result code; null for other errors. */
export function errcodeOf(error: unknown): number | null {
  const { errcode } = (error ?? {}) as { errcode?: unknown };
  return typeof errcode === "number" ? errcode & 0xff : null;
}

/** The same work can succeed when there is room again. */
export function isOutOfRoom(error: unknown): boolean {
  const code = errcodeOf(error);
  return code === SQLITE_FULL || code === SQLITE_IOERR || code === SQLITE_BUSY;
}

/** What SQLite says, as an error with a code. */
export function storeError(error: unknown, path: string): unknown {
  if (isDualrunError(error)) return error;
  const message = error instanceof Error ? error.message : String(error);
  const code = errcodeOf(error);
  if (code === SQLITE_CORRUPT || code === SQLITE_NOTADB) return new DualrunError("DR5101", message, { where: path, cause: error });
  return new DualrunError("DR5104", message, { where: path, cause: error });
}
