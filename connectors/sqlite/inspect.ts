/** Looks into a journal's file beside a running daemon: what stands where, and whether all of it can be read. Never a row's value. */
import { existsSync, statSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { DualrunError, asDualrunError, decodeRecord, type JournalInspection } from "../../src/core/index.ts";
import { Seal, openRecord, type RecordRow } from "./seal.ts";
import { keyFits, ownerName, readMeta, storeError, type StoreOptions } from "./store.ts";

/** DR5104 when there is no such file or the key is another one; damage is part of what is returned. */
export function inspectSqliteJournal({ path, key, maxBytes }: Omit<StoreOptions, "owner">): JournalInspection {
  if (!existsSync(path)) throw new DualrunError("DR5104", "there is no such file", { where: path, next: "The daemon makes it when it starts with `journal.kind: sqlite`." });
  const files = [path, `${path}-wal`].reduce((sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.size ?? 0), 0);
  try {
    using db = disposable(new DatabaseSync(path, { readOnly: true }));
    db.database.exec("PRAGMA busy_timeout = 10000");
    return { kind: "sqlite", path, bytes: files, maxBytes, ...new Inspector(db.database, path, key).look() };
  } catch (error) {
    throw storeError(error, path);
  }
}

function disposable(database: DatabaseSync): Disposable & { readonly database: DatabaseSync } {
  return { database, [Symbol.dispose]: () => database.close() };
}

type Found = Omit<JournalInspection, "kind" | "path" | "bytes" | "maxBytes">;

class Inspector {
  private readonly db: DatabaseSync;
  private readonly seal: Seal;
  private readonly encrypted: boolean;

  constructor(db: DatabaseSync, path: string, key: Uint8Array | null) {
    this.db = db;
    this.encrypted = key !== null;
    this.seal = new Seal(key, readMeta(db, "id") ?? "");
    if (!keyFits(this.seal, readMeta(db, "key-proof") ?? "")) throw new DualrunError("DR5104", "the key is not the one that the journal was written with", { where: path });
  }

  look(): Found {
    let [records, transactions, uncommitted, oldest, last] = [0, 0, 0, 0, readMeta(this.db, "start")];
    let fault: string | null = null;
    try {
      for (const row of this.rows()) {
        decodeRecord(openRecord(this.seal, row));
        records += 1;
        transactions += row.transactions;
        uncommitted = row.ended === null ? uncommitted + 1 : 0;
        oldest ||= row.committed_at;
        last = row.ended ?? last;
      }
    } catch (error) {
      fault = asDualrunError(storeError(error, "journal")).message;
    }
    return {
      owner: ownerName(readMeta(this.db, "owner") ?? ""), encrypted: this.encrypted, first: readMeta(this.db, "start"), last,
      records, transactions, uncommittedRecords: uncommitted, oldestCommitAt: oldest === 0 ? null : new Date(oldest).toISOString(), intact: fault === null, fault,
    };
  }

  /** One statement each, so that a daemon's own work goes on; what it trims meanwhile is passed by. */
  private *rows(): Generator<RecordRow> {
    const next = this.db.prepare("SELECT seq, ended, transactions, committed_at, checksum, body FROM records WHERE seq > ? ORDER BY seq LIMIT 1");
    for (let seq = this.startSeq(); ;) {
      const row = next.get(seq) as RecordRow | undefined;
      if (row === undefined) return;
      if (row.seq !== Math.max(seq, this.startSeq()) + 1) throw new DualrunError("DR5101", `record ${seq + 1} is missing`, { where: "journal" });
      yield row;
      seq = row.seq;
    }
  }

  private startSeq(): number {
    return Number(readMeta(this.db, "start-seq"));
  }
}
