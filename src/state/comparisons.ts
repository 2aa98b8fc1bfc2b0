/** What comparisons leave behind: marks to be proven again, proofs, results, breaks. */
import {
  DualrunError, SHARES,
  type BreakCategory, type BreakDocument, type BreakResolution, type ClassComparison, type ComparisonDocument, type MoneyComparison, type RowDifference, type SqlExecutor,
} from "../core/index.ts";

/** Inserts under the next number; of two that come at once, the later takes the number after. */
export async function numbered(insert: () => Promise<Record<string, unknown>[]>): Promise<string> {
  for (let attempt = 1; attempt <= NUMBERING_TRIES; attempt++) {
    const [row] = await insert();
    if (row !== undefined) return String(row["id"]);
  }
  throw new DualrunError("DR9001", "dualrun's own tables could not be written", { where: "target" });
}

const NUMBERING_TRIES = 20;

/** Slices that were touched up to a cut. */
export interface TouchedSlices {
  /** null: everywhere. */
  readonly slices: readonly string[] | null;
  /** What to forget once the slices are proven. */
  readonly upTo: string;
}

/** What the pipeline has recorded beside the rows. */
export class TouchMarks {
  private readonly sql: SqlExecutor;
  private readonly stream: string;

  constructor(sql: SqlExecutor, stream: string) {
    this.sql = sql;
    this.stream = stream;
  }

  /** The generation that a new session begins with: later than every mark that there is or ever was, as a comparison that is still running may forget those. */
  async nextGeneration(): Promise<bigint> {
    const rows = await this.sql("SELECT greatest(coalesce(max(generation), 0) + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS next FROM dualrun.touched WHERE stream = $1", [this.stream]);
    return BigInt(String(rows[0]!["next"]));
  }

  /** Marks of a class up to a generation. */
  async upTo(className: string, generation: bigint): Promise<TouchedSlices> {
    const rows = await this.sql(
      "SELECT id, slices FROM dualrun.touched WHERE stream = $1 AND class = $2 AND generation <= $3 ORDER BY id", [this.stream, className, generation.toString()]);
    const lists = rows.map((row) => row["slices"] as readonly string[] | null);
    return {
      slices: lists.includes(null) ? null : [...new Set(lists.flatMap((list) => list ?? []))],
      upTo: String(rows.at(-1)?.["id"] ?? 0),
    };
  }

  /** `kept` slices stay marked. */
  async forget(className: string, generation: bigint, upTo: string, kept: readonly string[]): Promise<void> {
    if (kept.length > 0) {
      await this.sql("INSERT INTO dualrun.touched (stream, class, generation, position, slices) SELECT $1, $2, $3, max(position), $4::text[] FROM dualrun.touched WHERE stream = $1 AND class = $2", [this.stream, className, generation.toString(), kept]);
    }
    await this.sql("DELETE FROM dualrun.touched WHERE stream = $1 AND class = $2 AND generation <= $3 AND id <= $4", [this.stream, className, generation.toString(), upTo]);
  }
}

/** When each share of a class was proven equal. */
export class Proofs {
  private readonly sql: SqlExecutor;
  private readonly stream: string;

  constructor(sql: SqlExecutor, stream: string) {
    this.sql = sql;
    this.stream = stream;
  }

  /** ISO times by share; shares that were never proven are absent. */
  async of(className: string): Promise<Map<number, string>> {
    const rows = await this.sql("SELECT share, proven_at FROM dualrun.proofs WHERE stream = $1 AND class = $2", [this.stream, className]);
    return new Map(rows.map((row) => [Number(row["share"]), String(row["proven_at"])]));
  }

  async record(className: string, shares: readonly number[], at: string): Promise<void> {
    for (const share of shares) {
      await this.sql(
        `INSERT INTO dualrun.proofs (stream, class, share, proven_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (stream, class, share) DO UPDATE SET proven_at = excluded.proven_at`, [this.stream, className, share, at]);
    }
  }

  /** Nothing of the class counts as proven any more; null: of all classes. */
  async forget(className: string | null): Promise<void> {
    await this.sql("DELETE FROM dualrun.proofs WHERE stream = $1 AND ($2::text IS NULL OR class = $2)", [this.stream, className]);
  }
}

/** The oldest proof of a class; null while some share was never proven. */
export function oldestProof(proofs: ReadonlyMap<number, string>): string | null {
  return proofs.size < SHARES ? null : [...proofs.values()].reduce((oldest, at) => (at < oldest ? at : oldest));
}

/** Every comparison, as it was. */
export class Comparisons {
  private readonly sql: SqlExecutor;
  private readonly stream: string;

  constructor(sql: SqlExecutor, stream: string) {
    this.sql = sql;
    this.stream = stream;
  }

  /** A comparison that is going to be made: it has an id and no result yet. */
  async reserve(kind: ComparisonDocument["kind"], full: boolean): Promise<string> {
    const startedAt = new Date().toISOString();
    const head = { kind, full, startedAt, finishedAt: null, position: null, cutAt: null, cutBy: null, holdMs: null, waitMs: null, seconds: 0, verdict: "not_comparable" };
    return numbered(() => this.sql(
      `INSERT INTO dualrun.comparisons (stream, id, kind, started_at, verdict, document)
       SELECT $1, coalesce(max(id), 0) + 1, $2, $3, 'not_comparable', $4 FROM dualrun.comparisons WHERE stream = $1 ON CONFLICT DO NOTHING RETURNING id`, [this.stream, kind, startedAt, JSON.stringify(head)]));
  }

  /** Those that a daemon that is gone has left without a result end now, without one. */
  async closeAbandoned(): Promise<void> {
    await this.sql(
      `UPDATE dualrun.comparisons SET finished_at = $2, document = jsonb_set(document::jsonb, '{finishedAt}', to_jsonb($2::text))::text WHERE stream = $1 AND finished_at IS NULL`,
      [this.stream, new Date().toISOString()]);
  }

  /** It ended without a result. */
  async abandon(id: string): Promise<void> {
    await this.sql(
      `UPDATE dualrun.comparisons SET finished_at = $3, document = jsonb_set(document::jsonb, '{finishedAt}', to_jsonb($3::text))::text WHERE stream = $1 AND id = $2 AND finished_at IS NULL`,
      [this.stream, id, new Date().toISOString()]);
  }

  async save(document: ComparisonDocument): Promise<void> {
    const { classes, ...head } = document;
    await this.sql(
      `INSERT INTO dualrun.comparisons (stream, id, kind, started_at, finished_at, verdict, document) VALUES ($1, $2, $3, $4, $5, $6, $7)
       ON CONFLICT (stream, id) DO UPDATE SET finished_at = excluded.finished_at, verdict = excluded.verdict, document = excluded.document`,
      [this.stream, document.id, document.kind, document.startedAt, document.finishedAt, document.verdict, JSON.stringify(head)]);
    for (const result of classes) {
      await this.sql(
        `INSERT INTO dualrun.comparison_classes (stream, id, class, at, verdict, document) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (stream, id, class) DO UPDATE SET verdict = excluded.verdict, document = excluded.document`,
        [this.stream, document.id, result.class, result.at ?? document.startedAt, result.verdict, JSON.stringify(result)]);
    }
  }

  async find(id: string): Promise<ComparisonDocument | null> {
    const heads = await this.sql("SELECT document FROM dualrun.comparisons WHERE stream = $1 AND id = $2", [this.stream, id]);
    if (heads[0] === undefined) return null;
    const rows = await this.sql("SELECT document FROM dualrun.comparison_classes WHERE stream = $1 AND id = $2 ORDER BY class", [this.stream, id]);
    return { ...(JSON.parse(String(heads[0]["document"])) as Omit<ComparisonDocument, "classes">), id, classes: rows.map((row) => JSON.parse(String(row["document"])) as ClassComparison) };
  }

  /** Newest first, without their classes; of one class where it is named, with that class. */
  async list(options: { readonly className?: string | undefined; readonly from?: string | undefined; readonly limit: number }): Promise<ComparisonDocument[]> {
    const { className = null, from = null, limit } = options;
    const rows = await this.sql(
      `SELECT c.id, c.document AS head, k.document AS class FROM dualrun.comparisons AS c
       LEFT JOIN dualrun.comparison_classes AS k ON k.stream = c.stream AND k.id = c.id AND k.class = $2
       WHERE c.stream = $1 AND ($2::text IS NULL OR k.class IS NOT NULL) AND ($3::text IS NULL OR c.started_at >= $3) ORDER BY c.id DESC LIMIT ${Math.trunc(limit)}`,
      [this.stream, className, from]);
    return rows.map((row) => ({ ...(JSON.parse(String(row["head"])) as ComparisonDocument), id: String(row["id"]), classes: row["class"] === null ? [] : [JSON.parse(String(row["class"])) as ClassComparison] }));
  }

  /** The latest comparison of all rows of all classes that was made at a cut, with them; empty when there is none. */
  async latestWhole(): Promise<ComparisonDocument[]> {
    const rows = await this.sql(
      `SELECT c.id FROM dualrun.comparisons AS c WHERE c.stream = $1 AND c.finished_at IS NOT NULL AND c.document::jsonb ->> 'cutAt' IS NOT NULL AND c.document::jsonb ->> 'whole' = 'true'
         AND NOT EXISTS (SELECT FROM dualrun.comparison_classes AS k WHERE k.stream = c.stream AND k.id = c.id AND (k.document::jsonb ->> 'leftOut')::int > 0)
       ORDER BY c.id DESC LIMIT 1`, [this.stream]);
    const found = rows[0] === undefined ? null : await this.find(String(rows[0]["id"]));
    return found === null ? [] : [found];
  }

  /** Records on the source at the last comparisons of each class, oldest first; null where it was not looked at. */
  async trends(length: number): Promise<Map<string, (number | null)[]>> {
    const rows = await this.sql(
      `SELECT k.class, CASE WHEN k.document::jsonb ->> 'leftOut' > '0' THEN NULL ELSE k.document::jsonb ->> 'sourceRows' END AS records FROM dualrun.comparison_classes AS k
       WHERE k.stream = $1 AND k.id > (SELECT max(n.id) FROM dualrun.comparison_classes AS n WHERE n.stream = k.stream) - $2::bigint ORDER BY k.id`, [this.stream, length]);
    const trends = new Map<string, (number | null)[]>();
    for (const row of rows) trends.set(String(row["class"]), [...(trends.get(String(row["class"])) ?? []), row["records"] === null ? null : Number(row["records"])]);
    return trends;
  }

  /** The latest result of every class. */
  async latest(): Promise<ClassComparison[]> {
    const rows = await this.sql(
      `SELECT k.document FROM dualrun.comparison_classes AS k
       WHERE k.stream = $1 AND k.id = (SELECT max(n.id) FROM dualrun.comparison_classes AS n WHERE n.stream = k.stream AND n.class = k.class)`, [this.stream]);
    return rows.map((row) => JSON.parse(String(row["document"])) as ClassComparison);
  }
}

/** What a comparison, or the applier, has seen of a class in one category. */
export interface BreakSighting {
  readonly className: string;
  readonly category: BreakCategory;
  readonly rows: number;
  readonly money: readonly MoneyComparison[];
  readonly sample: readonly RowDifference[];
}

/** One break is open per class and category; it goes on until it is resolved, whatever later comparisons see. */
export class Breaks {
  private readonly sql: SqlExecutor;
  private readonly stream: string;

  constructor(sql: SqlExecutor, stream: string) {
    this.sql = sql;
    this.stream = stream;
  }

  /** Opens a break, or adds to the one that is open. Returns its id and whether it is new. */
  async see(sighting: BreakSighting, at: string, comparison: string | null): Promise<{ readonly id: string; readonly opened: boolean }> {
    const evidence = JSON.stringify({ money: sighting.money, sample: sighting.sample.slice(0, 100).map(({ kind, keyHash, columns, times }) => ({ kind, keyHash, columns, times })) });
    const [open] = await this.sql("SELECT id FROM dualrun.breaks WHERE stream = $1 AND class = $2 AND category = $3 AND resolved_at IS NULL", [this.stream, sighting.className, sighting.category]);
    if (open !== undefined) {
      await this.sql(
        `UPDATE dualrun.breaks SET last_seen_at = $3, clean_since = NULL, comparison = coalesce($4, comparison), document = $5,
           rows = CASE WHEN $4::bigint IS NULL THEN rows + $6 ELSE $6 END WHERE stream = $1 AND id = $2`,
        [this.stream, open["id"], at, comparison, evidence, sighting.rows]);
      return { id: String(open["id"]), opened: false };
    }
    const id = await numbered(() => this.sql(
      `INSERT INTO dualrun.breaks (stream, id, class, category, opened_at, last_seen_at, comparison, rows, document)
       SELECT $1, coalesce(max(id), 0) + 1, $2, $3, $4, $4, $5, $6, $7 FROM dualrun.breaks WHERE stream = $1 ON CONFLICT DO NOTHING RETURNING id`,
      [this.stream, sighting.className, sighting.category, at, comparison, sighting.rows, evidence]));
    return { id, opened: true };
  }

  /** A comparison has seen the class equal: its breaks are clean since then, and stay open. */
  async seenClean(className: string, at: string): Promise<void> {
    await this.sql("UPDATE dualrun.breaks SET clean_since = $3 WHERE stream = $1 AND class = $2 AND resolved_at IS NULL AND clean_since IS NULL", [this.stream, className, at]);
  }

  async list(options: { readonly open?: boolean | undefined; readonly className?: string | undefined } = {}): Promise<BreakDocument[]> {
    const rows = await this.sql(
      "SELECT * FROM dualrun.breaks WHERE stream = $1 AND ($2::text IS NULL OR class = $2) AND (NOT $3::boolean OR resolved_at IS NULL) ORDER BY id DESC",
      [this.stream, options.className ?? null, options.open === true]);
    return rows.map(toBreak);
  }

  async find(id: string): Promise<BreakDocument | null> {
    const rows = await this.sql("SELECT * FROM dualrun.breaks WHERE stream = $1 AND id = $2", [this.stream, id]);
    return rows[0] === undefined ? null : toBreak(rows[0]);
  }

  async resolve(id: string, resolution: BreakResolution, by: string, note: string): Promise<void> {
    await this.sql(
      "UPDATE dualrun.breaks SET resolution = $3, resolved_at = $4, resolved_by = $5, note = $6 WHERE stream = $1 AND id = $2 AND resolved_at IS NULL",
      [this.stream, id, resolution, new Date().toISOString(), by, note]);
  }

  async assign(id: string, owner: string): Promise<void> {
    await this.sql("UPDATE dualrun.breaks SET owner = $3 WHERE stream = $1 AND id = $2 AND resolved_at IS NULL", [this.stream, id, owner]);
  }
}

function toBreak(row: Record<string, unknown>): BreakDocument {
  const text = (name: string): string | null => (row[name] === null || row[name] === undefined ? null : String(row[name]));
  return {
    id: text("id")!, class: text("class")!, category: text("category") as BreakCategory, openedAt: text("opened_at")!, lastSeenAt: text("last_seen_at")!,
    cleanSince: text("clean_since"), comparison: text("comparison"), rows: Number(row["rows"]),
    ...(JSON.parse(text("document")!) as Pick<BreakDocument, "money" | "sample">),
    owner: text("owner"), note: text("note"), resolution: text("resolution") as BreakResolution | null, resolvedAt: text("resolved_at"), resolvedBy: text("resolved_by"),
  };
}
