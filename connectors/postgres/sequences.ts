/** What numbers columns: read on the source, carried over to the target. */
import type pg from "pg";
import {
  DualrunError,
  type AdvancedSequence, type RecordClass, type SequenceAdvance, type SequenceFacts, type SequenceValue, type Side, type TableName,
} from "../../src/core/index.ts";
import { sqlState } from "./connection.ts";
import { quoteLiteral, quoteTable } from "./identifiers.ts";

type Queryable = Pick<pg.ClientBase, "query">;

interface ColumnRef {
  readonly className: string;
  readonly table: TableName;
  readonly column: string;
}

interface SequenceRow {
  /** Index into the columns that were asked for. */
  readonly ordinal: number;
  /** As SQL; null: the default takes its numbers from a sequence that it does not depend upon. */
  readonly name: string | null;
  readonly increment: string;
  readonly cache: string;
  readonly min: string;
  readonly max: string;
  readonly cycle: boolean;
}

/** A column's sequence, and the greatest and least numbers that the column itself holds. */
interface ColumnSequence extends SequenceFacts, ColumnRef {
  readonly room: { readonly min: bigint; readonly max: bigint } | null;
}

/**
 * $1, $2: tables as SQL and columns. Sequences that a column owns (serial, identity) or that its default depends upon.
 * A default that names a sequence by a text (`nextval('s'::text)`) depends on nothing.
 */
const COLUMN_SEQUENCES = `
  SELECT (w.ordinal - 1)::int AS ordinal, s.seqrelid::regclass::text AS name, s.seqincrement AS increment, s.seqcache AS cache, s.seqmin AS min, s.seqmax AS max, s.seqcycle AS cycle,
    format_type(a.atttypid, NULL) AS type
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (name, column_name, ordinal)
  JOIN pg_attribute AS a ON a.attrelid = to_regclass(w.name) AND a.attname = w.column_name AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = ''
  CROSS JOIN LATERAL (
    SELECT o.objid AS oid FROM pg_depend AS o
    WHERE o.classid = 'pg_class'::regclass AND o.refclassid = 'pg_class'::regclass AND o.refobjid = a.attrelid AND o.refobjsubid = a.attnum AND o.deptype IN ('a', 'i')
    UNION SELECT o.refobjid FROM pg_depend AS o WHERE o.classid = 'pg_attrdef'::regclass AND o.objid = d.oid AND o.refclassid = 'pg_class'::regclass) AS used
  JOIN pg_sequence AS s ON s.seqrelid = used.oid
  UNION ALL
  SELECT (w.ordinal - 1)::int, NULL, NULL, NULL, NULL, NULL, NULL, NULL
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (name, column_name, ordinal)
  JOIN pg_attribute AS a ON a.attrelid = to_regclass(w.name) AND a.attname = w.column_name
  JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = ''
  WHERE pg_get_expr(d.adbin, d.adrelid) ~ '\\mnextval\\(' AND NOT EXISTS (
    SELECT 1 FROM pg_depend AS o JOIN pg_sequence AS s ON s.seqrelid = o.refobjid WHERE o.classid = 'pg_attrdef'::regclass AND o.objid = d.oid AND o.refclassid = 'pg_class'::regclass)
  ORDER BY 1, 2`;

const ROOM: Readonly<Record<string, { readonly min: bigint; readonly max: bigint }>> = {
  smallint: { min: -(2n ** 15n), max: 2n ** 15n - 1n },
  integer: { min: -(2n ** 31n), max: 2n ** 31n - 1n },
  bigint: { min: -(2n ** 63n), max: 2n ** 63n - 1n },
};

/** The sequences behind mapped columns of the source, under the names of the target's columns. Values are read outside of any snapshot. */
export async function readSequences(client: Queryable, classes: readonly RecordClass[]): Promise<SequenceValue[]> {
  const mapped = classes.flatMap((cls) => cls.columns.flatMap(({ target, from }) => (from === null ? [] : [{ cls, target, from }])));
  const found = await columnSequences(client, mapped.map(({ cls, from }) => ({ className: cls.name, table: cls.source, column: from })), "source");
  return found.map(({ ordinal, sequence: { table: _, room: __, ...facts } }) => ({ ...facts, column: mapped[ordinal]!.target }));
}

/** In one transaction that holds the fence. Numbers that were taken stay taken when it is rolled back, and so do these settings. */
export async function advanceSequences(client: Queryable, classes: readonly RecordClass[], values: readonly SequenceValue[], margin: number): Promise<SequenceAdvance> {
  const columns = classes.flatMap((cls) => cls.columns.map(({ target }) => ({ className: cls.name, table: cls.target, column: target })));
  const own = (await columnSequences(client, columns, "target")).map(({ sequence }) => sequence);
  const steps = own.flatMap((sequence) => values.filter((value) => isSameColumn(value, sequence)).map((value) => planStep(value, sequence, BigInt(margin))));
  const faults = steps.flatMap(({ fault }) => (fault === null ? [] : [fault]));
  if (faults.length > 0) throw new DualrunError("DR6106", `${faults.length} sequences do not fit`, { where: "target", details: faults });
  const advanced: AdvancedSequence[] = [];
  for (const step of steps) advanced.push(await setSequence(client, step));
  return { advanced, unmatched: unmatched(values, own) };
}

const isSameColumn = (a: { className: string; column: string }, b: { className: string; column: string }): boolean => a.className === b.className && a.column === b.column;

function unmatched(values: readonly SequenceValue[], own: readonly ColumnSequence[]): SequenceAdvance["unmatched"] {
  const only = (side: Side, mine: readonly SequenceOf[], others: readonly SequenceOf[]): SequenceAdvance["unmatched"] =>
    mine.filter((one) => !others.some((other) => isSameColumn(one, other))).map(({ className, column, name }) => ({ className, column, name, only: side }));
  return [...only("source", values, own), ...only("target", own, values)];
}

type SequenceOf = Pick<SequenceValue, "className" | "column" | "name">;

interface Step {
  readonly sequence: ColumnSequence;
  readonly value: bigint;
  readonly called: boolean;
  readonly fault: string | null;
}

/** Where the target's sequence has to stand, or why it cannot. */
function planStep(source: SequenceValue, sequence: ColumnSequence, margin: bigint): Step {
  const value = source.last + margin * source.increment;
  return { sequence, value, called: source.called, fault: stepFault(source, sequence, value) };
}

function stepFault(source: SequenceValue, sequence: ColumnSequence, value: bigint): string | null {
  const named = `${source.className}.${source.column}: sequence ${sequence.name}`;
  if (Math.sign(Number(source.increment)) !== Math.sign(Number(sequence.increment))) return `${named} ${direction(sequence)}, that of the source ${direction(source)}`;
  if (source.increment !== sequence.increment) return `${named} counts by ${sequence.increment}, that of the source by ${source.increment}`;
  const bound = source.increment > 0n ? least(sequence.max, sequence.room?.max) : -least(-sequence.min, sequence.room === null ? undefined : -sequence.room.min);
  const next = source.called ? value + source.increment : value;
  const exhausted = source.increment > 0n ? next > bound : next < bound;
  if (exhausted) return `${named} would go on at ${next}, beyond ${bound}${sequence.cycle ? "; it begins again there, so it is for you to set" : ""}`;
  const before = source.increment > 0n ? value < sequence.min : value > sequence.max;
  return before ? `${named} cannot stand at ${value}: it begins at ${source.increment > 0n ? sequence.min : sequence.max}` : null;
}

const direction = ({ increment }: SequenceFacts): string => (increment > 0n ? "ascends" : "descends");
const least = (a: bigint, b: bigint | undefined): bigint => (b === undefined || a < b ? a : b);
const nextOf = (last: bigint, called: boolean, increment: bigint): bigint => (called ? last + increment : last);

/** By one statement that looks at the present value. No lock keeps others from a number between the look and the setting: nobody but the mirror writes to the target then. */
async function setSequence(client: Queryable, { sequence, value, called }: Step): Promise<AdvancedSequence> {
  const { name, increment, className, column } = sequence;
  const to = nextOf(value, called, increment);
  const { rows } = await client.query<{ last: string; called: boolean; moved: string | null }>(`
    SELECT s.last_value AS last, s.is_called AS called,
      CASE WHEN (CASE WHEN s.is_called THEN s.last_value::numeric + ${increment} ELSE s.last_value END) ${increment > 0n ? "<" : ">"} ${to} THEN setval(${quoteLiteral(name)}, ${value}, ${called}) END AS moved
    FROM ${name} AS s`);
  const row = rows[0]!;
  const from = nextOf(BigInt(row.last), row.called, increment);
  return { className, column, name, from, to: row.moved === null ? from : to };
}

async function columnSequences(client: Queryable, columns: readonly ColumnRef[], side: Side): Promise<{ ordinal: number; sequence: ColumnSequence }[]> {
  const { rows } = await client.query<SequenceRow & { type: string }>(COLUMN_SEQUENCES, [columns.map(({ table }) => quoteTable(table)), columns.map(({ column }) => column)]);
  const unclear = rows.filter(({ name }) => name === null).map(({ ordinal }) => columns[ordinal]!);
  if (unclear.length > 0) {
    throw new DualrunError("DR6106", "defaults name sequences in a way that cannot be followed", {
      where: side, details: unclear.map(({ className, table, column }) => `${className}: column "${column}" of ${quoteTable(table)} takes its numbers from a sequence that is named by a text; ALTER COLUMN … SET DEFAULT nextval('…'::regclass)`),
    });
  }
  const values = await readValues(client, [...new Set(rows.map(({ name }) => name!))], side);
  return rows.map((row) => ({
    ordinal: row.ordinal,
    sequence: {
      ...columns[row.ordinal]!, name: row.name!, ...values.get(row.name!)!, room: ROOM[row.type] ?? null,
      increment: BigInt(row.increment), cache: BigInt(row.cache), min: BigInt(row.min), max: BigInt(row.max), cycle: row.cycle,
    },
  }));
}

async function readValues(client: Queryable, names: readonly string[], side: Side): Promise<Map<string, { last: bigint; called: boolean }>> {
  if (names.length === 0) return new Map();
  const statement = names.map((name) => `SELECT ${quoteLiteral(name)} AS name, last_value AS last, is_called AS called FROM ${name}`).join(" UNION ALL ");
  const { rows } = await client.query<{ name: string; last: string; called: boolean }>(statement).catch((error: unknown) => {
    if (sqlState(error) !== "42501") throw error;
    throw new DualrunError("DR6106", (error as Error).message, { where: side, next: "GRANT SELECT, and on the target UPDATE, ON ALL SEQUENCES of that schema to dualrun's role.", cause: error });
  });
  return new Map(rows.map(({ name, last, called }) => [name, { last: BigInt(last), called }]));
}
