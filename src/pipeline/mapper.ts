/** From rows of the source's table to rows of a class. The same rules stand in SQL in the connector's copy. */
import {
  CONVERSIONS, DualrunError, OP, compileWhere, readTuple, tableKey,
  type ClassPlan, type RecordClass, type StreamTable, type WhereType,
} from "../core/index.ts";

/** Decides whether a before or after image belongs to the class; images are tuples in the stream's buffer. */
type Filter = (source: Buffer, tuple: number, fallback: number) => boolean;

export interface Mapping {
  readonly plan: ClassPlan;
  readonly filter: Filter | null;
}

/** Compiles the class against the layout in which the stream brings its table. */
export function compileMapping(cls: RecordClass, table: StreamTable, typeOf: (column: string) => WhereType): Mapping {
  const indexOf = (column: string): number => {
    const index = table.columns.indexOf(column);
    if (index < 0) throw new DualrunError("DR5001", `column "${column}" of ${tableKey(table.table)} is not in the change stream`, { where: `class ${cls.name}` });
    return index;
  };
  const from = Int32Array.from(cls.columns, (column) => (column.from === null ? -1 : indexOf(column.from)));
  const maps = cls.columns.map((column) => (column.map !== null ? compileMap(cls.name, column.target, column.map) : column.conversion !== undefined ? CONVERSIONS[column.conversion] : null));
  const keyNames = cls.key.length > 0 ? cls.key : cls.columns.map((column) => column.target);
  const plan: ClassPlan = {
    cls,
    from,
    constants: cls.columns.map((column) => (column.constant === null ? null : Buffer.from(column.constant))),
    maps,
    identity: from.length === table.columns.length && from.every((origin, i) => origin === i) && maps.every((map) => map === null),
    keyColumns: Int32Array.from(keyNames, (name) => cls.columns.findIndex((column) => column.target === name)),
    fullBeforeImage: table.fullBeforeImage,
  };
  return { plan, filter: cls.where === null ? null : compileFilter(cls, table, typeOf) };
}

function compileMap(className: string, column: string, map: ReadonlyMap<string, string>): (value: Buffer) => Buffer {
  const byValue = new Map([...map].map(([from, to]) => [from, Buffer.from(to)]));
  return (value) => {
    const mapped = byValue.get(value.toString("utf8"));
    if (mapped === undefined) throw new DualrunError("DR5006", `column "${column}" holds a value that its map does not know`, { where: `class ${className}` });
    return mapped;
  };
}

function compileFilter(cls: RecordClass, table: StreamTable, typeOf: (column: string) => WhereType): Filter {
  const holds = compileWhere(cls.where!, typeOf);
  return (source, tuple, fallback) => {
    const values = readTuple(source, tuple);
    const before = fallback < 0 ? [] : readTuple(source, fallback);
    const result = holds((column) => {
      const index = table.columns.indexOf(column);
      const value = values[index] === undefined ? before[index] : values[index];
      if (value === undefined) throw new DualrunError("DR5007", `the log does not carry column "${column}", which the filter needs`, { where: `class ${cls.name}` });
      return value === null ? null : value.toString("utf8");
    });
    return result === true;
  };
}

/** What a change of the table is for the class: a row that leaves is a delete, one that enters is an insert. */
export interface ClassChange {
  readonly op: number;
  readonly next: number;
  readonly previous: number;
}

/** null: the change does not concern the class. */
export function filterChange(mapping: Mapping, className: string, op: number, source: Buffer, next: number, previous: number): ClassChange | null {
  const { filter } = mapping;
  if (filter === null) return { op, next, previous };
  if (op === OP.insert) return filter(source, next, -1) ? { op, next, previous } : null;
  if (previous < 0 || !mapping.plan.fullBeforeImage) {
    throw new DualrunError("DR5007", "a filtered class needs the whole before image of a row", { where: `class ${className}` });
  }
  const was = filter(source, previous, -1);
  if (op === OP.delete) return was ? { op, next, previous } : null;
  const is = filter(source, next, previous);
  if (was && is) return { op, next, previous };
  if (was) return { op: OP.delete, next: -1, previous };
  return is ? { op: OP.insert, next, previous } : null;
}
