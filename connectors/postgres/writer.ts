/**
 * Writes the rows of a batch.
 *
 * Set-wise: what is left of each key goes through a staging table, deletes before updates before inserts,
 * and every statement must hit exactly as many rows as the log says. Whatever does not fit (a row that is missing or
 * already there, a unique key that is violated on the way) sends that class through the log's own order, row by row,
 * where each deviation is named.
 */
import { createHash } from "node:crypto";
import type pg from "pg";
import {
  CopyAfresh, DualrunError, OP,
  type ClassBatch, type ClassChanges, type Conflict, type RecordClass, type ValueFormat, type WriteOptions, type WriteResult,
} from "../../src/core/index.ts";
import { sqlState } from "./connection.ts";
import { copyIn } from "./copy.ts";
import { quoteIdent, quoteTable } from "./identifiers.ts";
import { copyPayload, gatherColumns, gatherRows, parameters } from "./rows.ts";

/** A statement hit fewer rows than the log says. */
class RowCountMismatch extends Error {}

/** What the writer knows of a class's table, worked out once per session. */
interface ClassSql {
  readonly table: string;
  readonly columns: readonly string[];
  readonly columnList: string;
  readonly keyIndexes: readonly number[];
  /** Schema-qualified equality per key column, as the key's index uses it. */
  readonly equals: readonly string[];
  readonly stage: string;
}

/** One session's memory: staging tables and statements. */
export class WriterSession {
  readonly client: pg.Client;
  private readonly known = new Map<string, ClassSql>();
  private readonly staged = new Set<string>();
  private createdNow: string[] = [];
  /** How many of `createdNow` stood before the latest savepoint. */
  private createdBefore = 0;
  private readonly statementNames = new Map<string, string>();
  private usedNow = new Set<string>();

  constructor(client: pg.Client) {
    this.client = client;
  }

  async describe(cls: RecordClass): Promise<ClassSql> {
    const known = this.known.get(cls.name);
    if (known !== undefined) return known;
    const columns = cls.columns.map((column) => column.target);
    const sql: ClassSql = {
      table: quoteTable(cls.target),
      columns,
      columnList: columns.map(quoteIdent).join(", "),
      keyIndexes: cls.key.map((name) => columns.indexOf(name)),
      equals: await this.keyOperators(cls),
      stage: `pg_temp.dualrun_stage_${this.known.size}`,
    };
    this.known.set(cls.name, sql);
    return sql;
  }

  /** Copies rows into the class's staging table, emptied first; a new one is made with the target's types and no constraint. */
  async stage(sql: ClassSql, columns: readonly string[], rows: Buffer, format: ValueFormat): Promise<number> {
    if (!this.staged.has(sql.stage)) {
      await this.client.query(`CREATE TEMPORARY TABLE ${sql.stage.replace("pg_temp.", "")} ON COMMIT DELETE ROWS AS SELECT ${sql.columnList} FROM ${sql.table} LIMIT 0`);
      this.staged.add(sql.stage);
      this.createdNow.push(sql.stage);
    } else if (this.usedNow.has(sql.stage)) await this.client.query(`TRUNCATE ${sql.stage}`);
    this.usedNow.add(sql.stage);
    return copyIn(this.client, `COPY ${sql.stage} (${columns.map(quoteIdent).join(", ")}) FROM STDIN${formatClause(format)}`, copyPayload(rows, format));
  }

  /** After a commit staging tables are empty; after a rollback those made in it are gone. */
  transactionEnded(committed: boolean): void {
    if (!committed) for (const stage of this.createdNow) this.staged.delete(stage);
    this.createdNow = [];
    this.usedNow = new Set();
  }

  async savepoint(): Promise<void> {
    await this.client.query("SAVEPOINT dualrun_write");
    this.createdBefore = this.createdNow.length;
  }

  async rollBackToSavepoint(): Promise<void> {
    await this.client.query("ROLLBACK TO SAVEPOINT dualrun_write");
    for (const stage of this.createdNow.splice(this.createdBefore)) this.staged.delete(stage);
  }

  /** Runs a statement that will come again; returns how many rows it hit. The server tells names apart by their first 63 bytes only. */
  async execute(text: string, values: readonly unknown[] = []): Promise<number> {
    let name = this.statementNames.get(text);
    if (name === undefined) this.statementNames.set(text, (name = `dualrun ${this.statementNames.size}`));
    const { rowCount } = await this.client.query({ name, text, values: [...values] });
    return rowCount ?? 0;
  }

  private async keyOperators(cls: RecordClass): Promise<string[]> {
    if (cls.key.length === 0) return [];
    const { rows } = await this.client.query<{ column: string; operator: string }>(KEY_OPERATORS, [quoteTable(cls.target), cls.key]);
    const byColumn = new Map(rows.map((row) => [row.column, row.operator]));
    return cls.key.map((column) => byColumn.get(column) ?? "OPERATOR(pg_catalog.=)");
  }
}

/** Equality operators of a unique index that covers exactly the key. */
const KEY_OPERATORS = `
  SELECT a.attname AS column, format('OPERATOR(%I.%s)', n.nspname, o.oprname) AS operator
  FROM pg_index i
  CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS k(attnum, opclass, ord)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
  JOIN pg_opclass c ON c.oid = k.opclass
  JOIN pg_amop ao ON ao.amopfamily = c.opcfamily AND ao.amopstrategy = 3
    AND ao.amoplefttype = c.opcintype AND ao.amoprighttype = c.opcintype
  JOIN pg_operator o ON o.oid = ao.amopopr
  JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE i.indrelid = $1::regclass AND i.indisunique AND i.indpred IS NULL AND i.indnkeyatts = cardinality($2::text[])
    AND a.attname = ANY($2::text[]) AND k.ord <= i.indnkeyatts`;

export function formatClause(format: ValueFormat): string {
  return format === "binary" ? " (FORMAT binary)" : "";
}

/** Writes all classes of a batch inside the open transaction, or throws and leaves the rollback to the caller. */
export async function writeBatch(session: WriterSession, classes: readonly ClassBatch[], format: ValueFormat, options: WriteOptions): Promise<WriteResult> {
  const careful = new Set(classes.filter(({ changes }) => changes.ordered).map(({ cls }) => cls.name));
  while (true) {
    let current: RecordClass | null = null;
    await session.savepoint();
    try {
      const result = { conflicts: [] as Conflict[], ordered: [...careful] };
      for (const { cls, changes } of classes) {
        current = cls;
        await new ClassWriter(session, await session.describe(cls), cls, changes, format, options, result).write(careful.has(cls.name));
      }
      await session.client.query("RELEASE SAVEPOINT dualrun_write");
      return result;
    } catch (error) {
      if (current === null || current.key.length === 0 || careful.has(current.name) || !isDataError(error)) throw refusal(error, current);
      careful.add(current.name);
      await session.rollBackToSavepoint();
    }
  }
}

interface MutableResult {
  readonly conflicts: Conflict[];
}

class ClassWriter {
  private readonly session: WriterSession;
  private readonly sql: ClassSql;
  private readonly cls: RecordClass;
  private readonly changes: ClassChanges;
  private readonly format: ValueFormat;
  private readonly options: WriteOptions;
  private readonly result: MutableResult;

  constructor(session: WriterSession, sql: ClassSql, cls: RecordClass, changes: ClassChanges, format: ValueFormat, options: WriteOptions, result: MutableResult) {
    this.session = session;
    this.sql = sql;
    this.cls = cls;
    this.changes = changes;
    this.format = format;
    this.options = options;
    this.result = result;
  }

  async write(inOrder: boolean): Promise<void> {
    if (inOrder) await this.writeInOrder();
    else if (this.changes.insertOnly) await this.insert(this.changes.insertPayload);
    else await this.writeSetwise();
  }

  private get tolerant(): boolean {
    return this.options.tolerant.has(this.cls.name);
  }

  // ------------------------------------------------------------ set-wise

  private async writeSetwise(): Promise<void> {
    const { changes } = this;
    const fates = changes.fates();
    if (fates.deletes.length > 0) await this.deleteRows(fates.deletes);
    if (fates.updates.length > 0) await this.updateRows(fates.updates, []);
    for (const [unchanged, rows] of fates.partialUpdates) await this.updateRows(rows, unchanged.split(",").map(Number));
    if (fates.inserts.length > 0) await this.insert(gatherRows(changes.rowBytes, fates.inserts.map((row) => changes.rowAt(row))));
  }

  private insert(rows: Buffer): Promise<number> {
    const { table, columnList } = this.sql;
    return copyIn(this.session.client, `COPY ${table} (${columnList}) FROM STDIN${formatClause(this.format)}`, copyPayload(rows, this.format));
  }

  private async deleteRows(offsets: readonly number[]): Promise<void> {
    const { table, columns } = this.sql;
    const keyed = this.changes.hasKey;
    await this.session.stage(this.sql, keyed ? this.cls.key : columns, gatherRows(this.changes.keyBytes, offsets), this.format);
    const hit = keyed
      ? await this.session.execute(`DELETE FROM ${table} AS t USING ${this.sql.stage} AS s WHERE ${this.keyMatch()}`)
      : await this.deleteEqualRows();
    if (hit !== offsets.length) this.missing("delete-found-none", offsets.length - hit);
  }

  private async updateRows(rows: readonly number[], unchanged: readonly number[]): Promise<void> {
    const { columns, keyIndexes, table, stage } = this.sql;
    const written = columns.flatMap((_, i) => (unchanged.includes(i) ? [] : [i]));
    const set = written.filter((i) => !keyIndexes.includes(i));
    if (set.length === 0) return;
    const offsets = rows.map((row) => this.changes.rowAt(row));
    const payload = unchanged.length === 0 ? gatherRows(this.changes.rowBytes, offsets) : gatherColumns(this.changes.rowBytes, offsets, written);
    await this.session.stage(this.sql, written.map((i) => columns[i]!), payload, this.format);
    const assignments = set.map((i) => `${quoteIdent(columns[i]!)} = s.${quoteIdent(columns[i]!)}`).join(", ");
    const hit = await this.session.execute(`UPDATE ${table} AS t SET ${assignments} FROM ${stage} AS s WHERE ${this.keyMatch()}`);
    if (hit !== rows.length) this.missing("update-found-none", rows.length - hit);
  }

  private keyMatch(): string {
    return this.cls.key.map((column, i) => `t.${quoteIdent(column)} ${this.sql.equals[i]!} s.${quoteIdent(column)}`).join(" AND ");
  }

  /** Of equal rows exactly as many go as the log says; rows are equal when all their columns have the same text. */
  private async deleteEqualRows(): Promise<number> {
    const { table, stage, columns } = this.sql;
    const image = (alias: string): string => `ROW(${columns.map((column) => `${alias}.${quoteIdent(column)}`).join(", ")})::text`;
    await this.session.client.query("SET LOCAL enable_hashjoin = on");
    const hit = await this.session.execute(`
      WITH wanted AS (SELECT ${image("s")} AS image, count(*) AS n FROM ${stage} AS s GROUP BY 1),
      found AS (
        SELECT t.tableoid AS part, t.ctid AS place, w.n, row_number() OVER (PARTITION BY w.image) AS k
        FROM ${table} AS t JOIN wanted AS w ON ${image("t")} = w.image)
      DELETE FROM ${table} AS t USING found AS f WHERE t.ctid = f.place AND t.tableoid = f.part AND f.k <= f.n`);
    await this.session.client.query("SET LOCAL enable_hashjoin = off");
    return hit;
  }

  private missing(kind: Conflict["kind"], count: number): void {
    if (this.tolerant) return;
    if (this.changes.hasKey) throw new RowCountMismatch();
    for (let i = 0; i < count; i++) this.conflict(kind, "");
  }

  // ------------------------------------------------------------ in log order

  private async writeInOrder(): Promise<void> {
    if (!this.changes.hasKey) {
      throw new DualrunError("DR5004", "a row without a key came without its whole image", { where: `class ${this.cls.name}` });
    }
    for (let row = 0; row < this.changes.count; row++) {
      try {
        await this.writeRow(row);
      } catch (error) {
        throw refusal(error, this.cls, this.hashOf(row));
      }
    }
  }

  private async writeRow(row: number): Promise<void> {
    const op = this.changes.op(row);
    if (op === OP.delete) {
      if ((await this.deleteKey(this.oldKey(row)!)) === 0) this.conflict("delete-found-none", this.hashOf(row));
    } else if (op === OP.insert) await this.insertRow(row, true);
    else await this.updateRow(row);
  }

  private oldKey(row: number): (string | Buffer | null | undefined)[] | null {
    const at = this.changes.oldKeyAt(row);
    return at < 0 ? null : parameters(this.changes.keyBytes, at, this.format);
  }

  private values(row: number): (string | Buffer | null | undefined)[] {
    return parameters(this.changes.rowBytes, this.changes.rowAt(row), this.format);
  }

  private async updateRow(row: number): Promise<void> {
    const values = this.values(row);
    const key = this.sql.keyIndexes.map((i) => values[i]);
    const old = this.oldKey(row) ?? key;
    const moves = old.some((value, i) => !sameValue(value, key[i]));
    const partial = this.changes.isPartial(row);
    if (moves && !partial) {
      if ((await this.deleteKey(old)) === 0) this.conflict("update-found-none", this.hashOf(row));
      await this.insertRow(row, true);
    } else if ((await this.updateKey(values, old, moves)) === 0) await this.updateFoundNone(row, partial, moves);
  }

  private async updateFoundNone(row: number, partial: boolean, moves: boolean): Promise<void> {
    if (this.tolerant) {
      if (partial && moves) throw new CopyAfresh(this.cls.name);
      return;
    }
    this.conflict("update-found-none", this.hashOf(row));
    if (partial) throw new DualrunError("DR5004", `row with key hash ${this.hashOf(row)} is missing and the log does not carry it whole`, { where: `class ${this.cls.name}` });
    await this.insertRow(row, false);
  }

  private async insertRow(row: number, mustBeNew: boolean): Promise<void> {
    const { table, columnList, columns } = this.sql;
    const values = this.values(row);
    const inserted = await this.session.execute(
      `INSERT INTO ${table} (${columnList}) OVERRIDING SYSTEM VALUE VALUES (${columns.map((_, i) => `$${i + 1}`).join(", ")}) ON CONFLICT (${this.cls.key.map(quoteIdent).join(", ")}) DO NOTHING`,
      values);
    if (inserted === 1) return;
    if (mustBeNew) this.conflict("insert-found-row", this.hashOf(row));
    await this.updateKey(values, this.sql.keyIndexes.map((i) => values[i]), false);
  }

  private async updateKey(values: readonly (string | Buffer | null | undefined)[], key: readonly unknown[], moves: boolean): Promise<number> {
    const { table, columns, keyIndexes } = this.sql;
    const set = columns.flatMap((_, i) => (values[i] === undefined || (!moves && keyIndexes.includes(i)) ? [] : [i]));
    if (set.length === 0) return 1;
    const assignments = set.map((i, n) => `${quoteIdent(columns[i]!)} = $${n + 1}`).join(", ");
    return this.session.execute(`UPDATE ${table} SET ${assignments} WHERE ${this.keyIs(set.length)}`, [...set.map((i) => values[i]), ...key]);
  }

  private deleteKey(key: readonly unknown[]): Promise<number> {
    return this.session.execute(`DELETE FROM ${this.sql.table} WHERE ${this.keyIs(0)}`, key);
  }

  private keyIs(offset: number): string {
    return this.cls.key.map((column, i) => `${quoteIdent(column)} ${this.sql.equals[i]!} $${offset + i + 1}`).join(" AND ");
  }

  private hashOf(row: number): string {
    const key = this.oldKey(row) ?? this.sql.keyIndexes.map((i) => this.values(row)[i]);
    const hash = createHash("sha256");
    for (const value of key) hash.update(value === null || value === undefined ? "N" : `${value.length}:`).update(value ?? "");
    return hash.digest("hex").slice(0, 16);
  }

  private conflict(kind: Conflict["kind"], keyHash: string): void {
    if (this.tolerant) return;
    if (this.options.onConflict === "halt") {
      throw new DualrunError("DR5003", `${kind.replaceAll("-", " ")}${keyHash === "" ? "" : `, key hash ${keyHash}`}`, { where: `class ${this.cls.name}` });
    }
    this.result.conflicts.push({ className: this.cls.name, kind, keyHash });
  }
}

function sameValue(a: string | Buffer | null | undefined, b: string | Buffer | null | undefined): boolean {
  return Buffer.isBuffer(a) && Buffer.isBuffer(b) ? a.equals(b) : a === b;
}

function isDataError(error: unknown): boolean {
  return error instanceof RowCountMismatch || /^(22|23)/.test(sqlState(error) ?? "");
}

const CONDITIONS: Readonly<Record<string, string>> = {
  "23505": "unique key violated", "23502": "NULL in a NOT NULL column", "23514": "check constraint violated", "23503": "foreign key violated",
  "23P01": "exclusion constraint violated", "22001": "text too long", "22003": "number out of range", "22P02": "text does not fit the type",
  "22P03": "binary value does not fit the type", "22021": "text does not fit the encoding", "22008": "date out of range", "22P05": "character has no equivalent in the encoding",
};

/** An error of the target about a row, without the row's values. Other errors pass unchanged. */
export function refusal(error: unknown, cls: RecordClass | null, keyHash?: string): unknown {
  const state = sqlState(error);
  if (state === null || !/^(22|23)/.test(state) || cls === null) return error;
  const { constraint, column } = error as { constraint?: string; column?: string };
  const subject = constraint !== undefined ? `, constraint ${constraint}` : column !== undefined ? `, column ${column}` : "";
  const row = keyHash === undefined ? "a row" : `the row with key hash ${keyHash}`;
  return new DualrunError("DR5002", `the target refused ${row}: ${CONDITIONS[state] ?? "data error"} (SQLSTATE ${state}${subject})`, {
    where: `class ${cls.name}, table ${cls.target.schema}.${cls.target.name}`,
  });
}
