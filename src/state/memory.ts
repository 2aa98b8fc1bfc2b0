/** What the daemon remembers across restarts, one class per table. All of it stands in the target. */
import { createHash, randomBytes } from "node:crypto";
import { DualrunError, formatAgreement, parseAgreement, type Agreement, type AuditEntry, type AuditVerification, type Conflict, type Phase, type Position, type SqlExecutor } from "../core/index.ts";

/** Small facts by name: the phase, whether the operator has paused. */
export class Settings {
  private readonly sql: SqlExecutor;
  private readonly stream: string;

  constructor(sql: SqlExecutor, stream: string) {
    this.sql = sql;
    this.stream = stream;
  }

  async phase(): Promise<Phase> {
    return ((await this.get("phase")) ?? "planned") as Phase;
  }

  setPhase(phase: Phase): Promise<void> {
    return this.set("phase", phase);
  }

  async paused(): Promise<boolean> {
    return (await this.get("paused")) === "yes";
  }

  setPaused(paused: boolean): Promise<void> {
    return this.set("paused", paused ? "yes" : "no");
  }

  /** The key of masked values: made once, so that equal values are shown alike from day to day. */
  async maskKey(): Promise<string> {
    const known = await this.get("mask-key");
    if (known !== null) return known;
    const key = randomBytes(32).toString("hex");
    await this.set("mask-key", key);
    return key;
  }

  /** Tells this target's journal from those of others; null: it has never had one. */
  journalToken(): Promise<string | null> {
    return this.get("journal-token");
  }

  async makeJournalToken(): Promise<string> {
    const known = await this.journalToken();
    if (known !== null) return known;
    const token = randomBytes(16).toString("hex");
    await this.set("journal-token", token);
    return token;
  }

  private async get(name: string): Promise<string | null> {
    const rows = await this.sql("SELECT value FROM dualrun.settings WHERE stream = $1 AND name = $2", [this.stream, name]);
    return (rows[0]?.["value"] as string | undefined) ?? null;
  }

  private async set(name: string, value: string): Promise<void> {
    await this.sql(
      "INSERT INTO dualrun.settings (stream, name, value) VALUES ($1, $2, $3) ON CONFLICT (stream, name) DO UPDATE SET value = excluded.value",
      [this.stream, name, value]);
  }
}

/** What both sides agreed upon, newest last; the mirror halts when the source leaves it. */
export class Agreements {
  private readonly sql: SqlExecutor;
  private readonly stream: string;

  constructor(sql: SqlExecutor, stream: string) {
    this.sql = sql;
    this.stream = stream;
  }

  async current(): Promise<Agreement | null> {
    const rows = await this.sql("SELECT document FROM dualrun.agreements WHERE stream = $1 ORDER BY id DESC LIMIT 1", [this.stream]);
    return rows[0] === undefined ? null : parseAgreement(String(rows[0]["document"]));
  }

  async save(agreement: Agreement): Promise<void> {
    await this.sql(
      "INSERT INTO dualrun.agreements (stream, id, document) SELECT $1, coalesce(max(id), 0) + 1, $2 FROM dualrun.agreements WHERE stream = $1",
      [this.stream, formatAgreement(agreement)]);
  }
}

/** Rows of the target that were not what the log says; settled later as breaks. */
export class Conflicts {
  private readonly sql: SqlExecutor;
  private readonly stream: string;

  constructor(sql: SqlExecutor, stream: string) {
    this.sql = sql;
    this.stream = stream;
  }

  async record(conflicts: readonly Conflict[], position: Position): Promise<void> {
    for (const { className, kind, keyHash } of conflicts) {
      await this.sql("INSERT INTO dualrun.conflicts (stream, class, kind, key_hash, position) VALUES ($1, $2, $3, $4, $5)", [this.stream, className, kind, keyHash, position]);
    }
  }

  async counts(): Promise<Map<string, number>> {
    const rows = await this.sql("SELECT class, count(*) AS n FROM dualrun.conflicts WHERE stream = $1 GROUP BY class", [this.stream]);
    return new Map(rows.map((row) => [String(row["class"]), Number(row["n"])]));
  }
}

const APPEND_TRIES = 20;
const VERIFIED_AT_ONCE = 1_000;

/** Append-only; each entry's hash covers the one before, so that nothing can be taken out or changed unseen. */
export class AuditTrail {
  private readonly sql: SqlExecutor;
  private readonly stream: string;

  constructor(sql: SqlExecutor, stream: string) {
    this.sql = sql;
    this.stream = stream;
  }

  /** Returns the hash of the new head, to be kept outside of the target as well. Of two that come at once, the later takes the next place. */
  async append(who: string, what: string, note: string | null): Promise<string> {
    for (let attempt = 1; ; attempt++) {
      const last = await this.sql("SELECT id, hash FROM dualrun.audit WHERE stream = $1 ORDER BY id DESC LIMIT 1", [this.stream]);
      const id = BigInt(String(last[0]?.["id"] ?? 0)) + 1n;
      const at = new Date().toISOString();
      const hash = entryHash(String(last[0]?.["hash"] ?? ""), { id: String(id), at, who, what, note });
      const taken = await this.sql(
        "INSERT INTO dualrun.audit (stream, id, at, who, what, note, hash) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING id", [this.stream, String(id), at, who, what, note, hash]);
      if (taken.length === 1) return hash;
      if (attempt === APPEND_TRIES) throw new DualrunError("DR9001", "the audit trail could not be written", { where: "target" });
    }
  }

  /** Follows the whole chain; names the first entry that does not stand where it was written. */
  async verify(): Promise<AuditVerification> {
    let previous = "";
    let entries = 0;
    while (true) {
      const rows = await this.sql(`SELECT id, at, who, what, note, hash FROM dualrun.audit WHERE stream = $1 AND id > $2 ORDER BY id LIMIT ${VERIFIED_AT_ONCE}`, [this.stream, entries]);
      for (const row of rows) {
        const entry = { id: String(row["id"]), at: String(row["at"]), who: String(row["who"]), what: String(row["what"]), note: (row["note"] as string | null) ?? null };
        const fault = Number(entry.id) !== entries + 1 ? `entry ${entries + 1} is missing` : entryHash(previous, entry) !== row["hash"] ? "its hash does not follow from the entry and the one before" : null;
        if (fault !== null) return { intact: false, entries, head: previous === "" ? null : previous, at: entry.id, fault };
        previous = String(row["hash"]);
        entries += 1;
      }
      if (rows.length < VERIFIED_AT_ONCE) return { intact: true, entries, head: previous === "" ? null : previous, at: null, fault: null };
    }
  }

  async list(limit = 200): Promise<AuditEntry[]> {
    const rows = await this.sql(`SELECT id, at, who, what, note FROM dualrun.audit WHERE stream = $1 ORDER BY id DESC LIMIT ${Math.trunc(limit)}`, [this.stream]);
    return rows.map((row) => ({ id: String(row["id"]), at: String(row["at"]), who: String(row["who"]), what: String(row["what"]), note: (row["note"] as string | null) ?? null }));
  }
}

function entryHash(previous: string, entry: AuditEntry): string {
  return createHash("sha256").update(previous).update(JSON.stringify([entry.id, entry.at, entry.who, entry.what, entry.note])).digest("hex");
}
