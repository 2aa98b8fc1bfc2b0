/** Rows events: every changed row is written as tuples and told to a sink. */
import { malformed, refused } from "./faults.ts";
import { EVENT, inflatePayload } from "./events.ts";
import { EventReader } from "./event-reader.ts";
import type { TableMap } from "./table-map.ts";
import type { TupleWriter } from "./tuple-writer.ts";
import type { ValueDecoder } from "./values.ts";

/** What happened to a row. */
export const ROW = { insert: 0, update: 1, delete: 2 } as const;
export type RowKind = (typeof ROW)[keyof typeof ROW];

/** A table of the stream, with a decoder per column. */
export interface BinlogTable extends TableMap {
  readonly decoders: readonly ValueDecoder[];
}

/** Told of a change: offsets of the row images in the writer's bytes, -1 where there is none. */
export type OnRow = (kind: RowKind, table: BinlogTable, before: number, after: number) => void;

/** What an event type says of its rows. */
export interface RowsLayout {
  readonly kind: RowKind;
  /** Has a block of extra data before the columns. */
  readonly extra: boolean;
  readonly compressed: boolean;
}

const layout = (kind: RowKind, extra: boolean, compressed = false): RowsLayout => ({ kind, extra, compressed });

const LAYOUTS: ReadonlyMap<number, RowsLayout> = new Map([
  [EVENT.writeRowsV1, layout(ROW.insert, false)], [EVENT.updateRowsV1, layout(ROW.update, false)], [EVENT.deleteRowsV1, layout(ROW.delete, false)],
  [EVENT.writeRowsV2, layout(ROW.insert, true)], [EVENT.updateRowsV2, layout(ROW.update, true)], [EVENT.deleteRowsV2, layout(ROW.delete, true)],
  [EVENT.writeRowsCompressedV1, layout(ROW.insert, false, true)], [EVENT.updateRowsCompressedV1, layout(ROW.update, false, true)],
  [EVENT.deleteRowsCompressedV1, layout(ROW.delete, false, true)], [EVENT.writeRowsCompressed, layout(ROW.insert, true, true)],
  [EVENT.updateRowsCompressed, layout(ROW.update, true, true)], [EVENT.deleteRowsCompressed, layout(ROW.delete, true, true)],
]);

/** Undefined when the type is none of rows. */
export function rowsLayout(eventType: number): RowsLayout | undefined {
  return LAYOUTS.get(eventType);
}

/** Reads what stands behind table and flags, to the event's end. Throws DR5009 when the images are not full. */
export function readRows(input: EventReader, how: RowsLayout, table: BinlogTable, out: TupleWriter, onRow: OnRow): void {
  if (how.extra) input.take(extraBytes(input));
  requireFullImages(input, how, table);
  if (how.compressed) openPayload(input);
  const rows = ROW_READERS[how.kind];
  while (input.at < input.end) rows(input, table, out, onRow);
}

/** Their length counts itself. */
function extraBytes(input: EventReader): number {
  const length = input.u16();
  if (length < 2) throw malformed("the extra data of a rows event has no length");
  return length - 2;
}

function openPayload(input: EventReader): void {
  const rows = inflatePayload(input);
  input.open(rows, 0, rows.length);
}

function requireFullImages(input: EventReader, how: RowsLayout, table: BinlogTable): void {
  const columns = input.packed();
  if (columns !== table.columns.length) throw malformed(`its rows have ${columns} columns, it has ${table.columns.length}`);
  requireAllPresent(input, columns);
  if (how.kind === ROW.update) requireAllPresent(input, columns);
}

function requireAllPresent(input: EventReader, columns: number): void {
  const at = input.take((columns + 7) >> 3);
  for (let i = 0; i < columns; i += 8) {
    const wanted = columns - i >= 8 ? 0xff : (1 << (columns - i)) - 1;
    if ((input.buffer[at + (i >> 3)]! & wanted) !== wanted) throw partialImage();
  }
}

function partialImage(): Error {
  return refused("a change is logged without some of its columns",
    "SET GLOBAL binlog_row_image = FULL on the source, and let sessions reconnect; the table has to be copied anew.");
}

const ROW_READERS: Readonly<Record<RowKind, (input: EventReader, table: BinlogTable, out: TupleWriter, onRow: OnRow) => void>> = {
  [ROW.insert]: (input, table, out, onRow) => onRow(ROW.insert, table, -1, readImage(input, table, out)),
  [ROW.delete]: (input, table, out, onRow) => onRow(ROW.delete, table, readImage(input, table, out), -1),
  [ROW.update]: (input, table, out, onRow) => {
    const before = readImage(input, table, out);
    onRow(ROW.update, table, before, readImage(input, table, out));
  },
};

/** A bit per column that is NULL, then the values of the others. Returns the tuple's offset. */
function readImage(input: EventReader, table: BinlogTable, out: TupleWriter): number {
  const { decoders } = table;
  const columns = decoders.length;
  const nulls = input.take((columns + 7) >> 3);
  const tuple = out.row(columns);
  for (let i = 0; i < columns; i++) {
    if ((input.buffer[nulls + (i >> 3)]! & (1 << (i & 7))) !== 0) {
      out.null();
      continue;
    }
    const value = out.open();
    decoders[i]!(input, out);
    out.close(value);
  }
  return tuple;
}
