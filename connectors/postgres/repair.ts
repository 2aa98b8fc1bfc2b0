/** Makes rows of the target what the source's are: as statements to read, and as their execution. */
import type pg from "pg";
import { CONVERSIONS, DualrunError, type ComparedClass, type RowRepair, type RowText } from "../../src/core/index.ts";
import { project } from "./canonical.ts";
import { quoteIdent, quoteLiteral, quoteTable } from "./identifiers.ts";

/** A statement and its values, each the text of one column. */
interface Statement {
  /** `$1`, `$2` … stand for the values. */
  readonly text: string;
  readonly values: readonly { readonly column: string; readonly value: string | null }[];
}

/** Statements as an operator reads them; what must not be shown is left out by name. */
export function repairStatements(compared: ComparedClass, repairs: readonly RowRepair[], masked: ReadonlySet<string>): string[] {
  return repairs.flatMap((repair) => statementsOf(compared, repair)).map(({ text, values }) => {
    const shown = values.map(({ column, value }) => (value === null ? "NULL" : masked.has(column) ? `/* ${column} is masked */` : quoteLiteral(value)));
    return `${text.replaceAll(/\$(\d+)/g, (_, n: string) => shown[Number(n) - 1]!)};`;
  });
}

/** Within the caller's transaction. Every statement must hit exactly the rows that it is meant for. */
export async function executeRepairs(client: pg.ClientBase, compared: ComparedClass, repairs: readonly RowRepair[]): Promise<void> {
  for (const repair of repairs) {
    for (const { text, values } of statementsOf(compared, repair)) {
      const { rowCount } = await client.query(text, values.map(({ value }) => value));
      if (rowCount === repair.times) continue;
      throw new DualrunError("DR5003", `a repair was meant for ${repair.times} rows and met ${rowCount}`, { where: `class ${compared.cls.name}` });
    }
  }
}

function statementsOf(compared: ComparedClass, repair: RowRepair): Statement[] {
  switch (repair.kind) {
    case "missing": return [insert(compared, repair.row!, repair.times)];
    case "extra": return [compared.cls.key.length === 0 ? removeEqual(compared, repair) : remove(compared, repair)];
    case "mismatched": return [update(compared, repair)];
  }
}

function insert(compared: ComparedClass, row: RowText, times: number): Statement {
  const columns = Object.keys(row);
  return {
    text: `INSERT INTO ${quoteTable(compared.cls.target)} (${columns.map(quoteIdent).join(", ")}) OVERRIDING SYSTEM VALUE SELECT ${columns.map((column, i) => `$${i + 1}::${typeOf(compared, column)}`).join(", ")}${times === 1 ? "" : ` FROM generate_series(1, ${times})`}`,
    values: columns.map((column) => ({ column, value: row[column]! })),
  };
}

function update(compared: ComparedClass, { row, columns, key }: RowRepair): Statement {
  const set = columns.map((column, i) => `${quoteIdent(column)} = $${i + 1}::${typeOf(compared, column)}`);
  return {
    text: `UPDATE ${quoteTable(compared.cls.target)} SET ${set.join(", ")} WHERE ${keyIs(compared, columns.length)}`,
    values: [...columns.map((column) => ({ column, value: row![column]! })), ...keyValues(compared, key)],
  };
}

function remove(compared: ComparedClass, { key }: RowRepair): Statement {
  return { text: `DELETE FROM ${quoteTable(compared.cls.target)} WHERE ${keyIs(compared, 0)}`, values: keyValues(compared, key) };
}

/** Of equal rows as many as are too many; rows are named by their digest. */
function removeEqual(compared: ComparedClass, { key, times }: RowRepair): Statement {
  const { table, row } = project("target", compared);
  return {
    text: `DELETE FROM ${table} WHERE (tableoid, ctid) IN (SELECT t.tableoid, t.ctid FROM ${table} AS t WHERE encode(substring(sha256(${row}), 1, 16), 'hex') = $1 LIMIT ${times})`,
    values: [{ column: "", value: key[0]! }],
  };
}

function keyIs(compared: ComparedClass, offset: number): string {
  return compared.cls.key.map((column, i) => `${quoteIdent(column)} = $${offset + i + 1}::${typeOf(compared, column)}`).join(" AND ");
}

function keyValues(compared: ComparedClass, key: readonly string[]): Statement["values"] {
  return compared.cls.key.map((column, i) => ({ column, value: asTaken(compared, column, key[i]!) }));
}

/** A key as it is compared, in the text that its column takes. */
function asTaken({ cls }: ComparedClass, column: string, text: string): string {
  const conversion = cls.columns.find(({ target }) => target === column)?.conversion;
  return conversion === undefined ? text : CONVERSIONS[conversion](Buffer.from(text)).toString();
}

function typeOf(compared: ComparedClass, column: string): string {
  return compared.target.columns.find((facts) => facts.name === column)!.type;
}
