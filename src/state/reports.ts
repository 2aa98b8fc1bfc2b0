/** Reports as they were made, signatures bound to their hashes, and what the bank says. */
import { createHash } from "node:crypto";
import type { Report, ReportDocument, ReportHead, SignOff, SqlExecutor } from "../core/index.ts";
import { numbered } from "./comparisons.ts";

export class Reports {
  private readonly sql: SqlExecutor;
  private readonly stream: string;

  constructor(sql: SqlExecutor, stream: string) {
    this.sql = sql;
    this.stream = stream;
  }

  /** The latest version for a date. */
  async find(date: string): Promise<Report | null> {
    const rows = await this.sql("SELECT document, hash FROM dualrun.reports WHERE stream = $1 AND date = $2 ORDER BY version DESC LIMIT 1", [this.stream, date]);
    return rows[0] === undefined ? null : this.withSignature(rows[0]);
  }

  /** The report that was made last for an earlier date. */
  async before(date: string): Promise<Report | null> {
    const rows = await this.sql("SELECT document, hash FROM dualrun.reports WHERE stream = $1 AND date < $2 ORDER BY date DESC, version DESC LIMIT 1", [this.stream, date]);
    return rows[0] === undefined ? null : this.withSignature(rows[0]);
  }

  /** Hash of the report that was made last, whichever date it is of. */
  async lastHash(): Promise<string | null> {
    const rows = await this.sql("SELECT hash FROM dualrun.reports WHERE stream = $1 ORDER BY id DESC LIMIT 1", [this.stream]);
    return (rows[0]?.["hash"] as string | undefined) ?? null;
  }

  async save(document: ReportDocument): Promise<Report> {
    const text = JSON.stringify(document);
    const hash = reportHash(text);
    await numbered(() => this.sql(
      "INSERT INTO dualrun.reports (stream, id, date, version, created_at, hash, document) SELECT $1, coalesce(max(id), 0) + 1, $2, $3, $4, $5, $6 FROM dualrun.reports WHERE stream = $1 ON CONFLICT (stream, id) DO NOTHING RETURNING id",
      [this.stream, document.date, document.version, document.createdAt, hash, text]));
    return { document, hash, signOff: null };
  }

  async sign(date: string, hash: string, { approver, onBehalfOf, note, at }: SignOff): Promise<void> {
    await this.sql("INSERT INTO dualrun.sign_offs (stream, date, hash, approver, on_behalf_of, note, at) VALUES ($1, $2, $3, $4, $5, $6, $7)", [this.stream, date, hash, approver, onBehalfOf, note, at]);
  }

  /** The latest version of every date, newest first. */
  async heads(): Promise<ReportHead[]> {
    const rows = await this.sql(
      `SELECT r.document, r.hash, s.approver FROM dualrun.reports AS r LEFT JOIN dualrun.sign_offs AS s ON s.stream = r.stream AND s.hash = r.hash
       WHERE r.stream = $1 AND r.version = (SELECT max(n.version) FROM dualrun.reports AS n WHERE n.stream = r.stream AND n.date = r.date) ORDER BY r.date DESC`, [this.stream]);
    return rows.map((row) => {
      const { date, version, createdAt, clean, late, provisional } = JSON.parse(String(row["document"])) as ReportDocument;
      return { date, version, createdAt, clean, late, provisional, hash: String(row["hash"]), signedBy: (row["approver"] as string | null) ?? null };
    });
  }

  /** ISO time of the latest signature. */
  async lastSignature(): Promise<string | null> {
    const rows = await this.sql("SELECT max(at) AS at FROM dualrun.sign_offs WHERE stream = $1", [this.stream]);
    return (rows[0]?.["at"] as string | null) ?? null;
  }

  private async withSignature(row: Record<string, unknown>): Promise<Report> {
    const hash = String(row["hash"]);
    const [signed] = await this.sql("SELECT approver, on_behalf_of, note, at FROM dualrun.sign_offs WHERE stream = $1 AND hash = $2", [this.stream, hash]);
    const signOff = signed === undefined ? null : { approver: String(signed["approver"]), onBehalfOf: (signed["on_behalf_of"] as string | null) ?? null, note: String(signed["note"]), at: String(signed["at"]) };
    return { document: JSON.parse(String(row["document"])) as ReportDocument, hash, signOff };
  }
}

export function reportHash(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

export interface BankLine {
  readonly date: string;
  readonly currency: string;
  readonly account: string;
  readonly amount: string;
}

export class BankTotals {
  private readonly sql: SqlExecutor;
  private readonly stream: string;

  constructor(sql: SqlExecutor, stream: string) {
    this.sql = sql;
    this.stream = stream;
  }

  /** All lines or none; a line that was imported before is replaced. */
  async import(lines: readonly BankLine[]): Promise<void> {
    const column = (name: keyof BankLine): string[] => lines.map((line) => line[name]);
    await this.sql(
      `INSERT INTO dualrun.bank_totals (stream, date, currency, account, amount, imported_at)
       SELECT $1, l.date, l.currency, l.account, l.amount::numeric, $2 FROM unnest($3::text[], $4::text[], $5::text[], $6::text[]) AS l (date, currency, account, amount)
       ON CONFLICT (stream, date, currency, account) DO UPDATE SET amount = excluded.amount, imported_at = excluded.imported_at`,
      [this.stream, new Date().toISOString(), column("date"), column("currency"), column("account"), column("amount")]);
  }

  /** Totals over all accounts by currency; a currency that the bank does not name is absent. */
  async of(date: string): Promise<Map<string, string>> {
    const rows = await this.sql("SELECT currency, sum(amount)::text AS total FROM dualrun.bank_totals WHERE stream = $1 AND date = $2 GROUP BY currency", [this.stream, date]);
    return new Map(rows.map((row) => [String(row["currency"]), String(row["total"])]));
  }
}

/** Rows that the snapshot set aside, by class and reason. */
export async function refusedRows(sql: SqlExecutor, stream: string): Promise<{ readonly className: string; readonly reason: string; readonly rows: string }[]> {
  const rows = await sql("SELECT class, sqlstate, constraint_name, count(*)::text AS n FROM dualrun.refused_rows WHERE stream = $1 GROUP BY class, sqlstate, constraint_name", [stream]);
  return rows.map((row) => ({
    className: String(row["class"]), rows: String(row["n"]),
    reason: `refused by the target, SQLSTATE ${String(row["sqlstate"])}${row["constraint_name"] === null ? "" : `, constraint ${String(row["constraint_name"])}`}`,
  }));
}
