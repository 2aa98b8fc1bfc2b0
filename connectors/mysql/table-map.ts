/** TABLE_MAP events: what a table looked like when its rows were logged. */
import { charsetOfCollation, BINARY, textCopyOf } from "./charsets.ts";
import { malformed, refused } from "./faults.ts";
import { EventReader } from "./event-reader.ts";
import { TupleWriter } from "./tuple-writer.ts";
import { TYPE, type BinlogColumn, type ColumnHints } from "./types.ts";
import { metadataMissing } from "./values.ts";

/** A table by its names, as they stand in a TABLE_MAP event. */
export interface TableMapHead {
  readonly schema: string;
  readonly name: string;
}

/** A column of the primary key; `prefix` is in characters, 0 for the whole column. */
export interface PrimaryKeyColumn {
  readonly column: number;
  readonly prefix: number;
}

export interface TableMap extends TableMapHead {
  readonly columns: readonly BinlogColumn[];
  readonly primaryKey: readonly PrimaryKeyColumn[];
}

/** Reads the names and leaves `input` at the number of columns. */
export function readTableMapHead(input: EventReader): TableMapHead {
  const schema = input.utf8(input.u8());
  input.take(1);
  const name = input.utf8(input.u8());
  input.take(1);
  return { schema, name };
}

/** Reads the rest of the event. `isMariaDb`: its lists of character sets also name GEOMETRY columns. */
export function readTableMap(input: EventReader, head: TableMapHead, hints: ColumnHints | undefined, isMariaDb: boolean): TableMap {
  const count = input.packed();
  const types = Array.from(input.buffer.subarray(input.take(count), input.at));
  const metas = readMetas(input, types);
  const nullAt = input.take((count + 7) >> 3);
  const shapes = types.map((type, i): Shape => ({ ...realType(type, metas[i]!), nullable: bit(input.buffer, nullAt, i) }));
  const optional = readOptional(input, new ColumnGroups(shapes));
  const columns = describe(shapes, optional, hints, isMariaDb);
  return { ...head, columns, primaryKey: optional.primaryKey };
}

interface Shape {
  readonly type: number;
  readonly meta: number;
  readonly nullable: boolean;
}

const META_BYTES: ReadonlyMap<number, number> = new Map([
  [TYPE.float, 1], [TYPE.double, 1], [TYPE.varchar, 2], [TYPE.bit, 2], [TYPE.newDecimal, 2], [TYPE.blob, 1], [TYPE.tinyBlob, 1], [TYPE.mediumBlob, 1],
  [TYPE.longBlob, 1], [TYPE.geometry, 1], [TYPE.json, 1], [TYPE.vector, 1], [TYPE.string, 2], [TYPE.varString, 2], [TYPE.enum, 2], [TYPE.set, 2],
  [TYPE.timestamp2, 1], [TYPE.datetime2, 1], [TYPE.time2, 1], [TYPE.varcharCompressed, 2], [TYPE.blobCompressed, 1],
]);
const KNOWN_TYPES: ReadonlySet<number> = new Set(Object.values(TYPE));

function readMetas(input: EventReader, types: readonly number[]): number[] {
  const length = input.packed();
  const end = input.take(length) + length;
  input.at = end - length;
  const metas = types.map((type) => {
    if (!KNOWN_TYPES.has(type) || type === TYPE.typedArray) throw refused(`a table has a column of the type ${type}, which is not supported`, "Leave the table out, or convert the column.");
    const bytes = META_BYTES.get(type) ?? 0;
    return bytes === 0 ? 0 : input.lengthOf(bytes);
  });
  if (input.at !== end) throw malformed("the metadata of a table's columns has another length than it says");
  return metas;
}

/** ENUM and SET stand as STRING; the first byte of their metadata tells what they are, the second the bytes of a value. */
function realType(type: number, meta: number): { type: number; meta: number } {
  const real = meta & 0xff;
  return type === TYPE.string && (real === TYPE.enum || real === TYPE.set) ? { type: real, meta: meta >> 8 } : { type, meta };
}

const bit = (bytes: Buffer, at: number, index: number): boolean => (bytes[at + (index >> 3)]! & (1 << (index & 7))) !== 0;
const bitFromHigh = (bytes: Buffer, at: number, index: number): boolean => (bytes[at + (index >> 3)]! & (0x80 >> (index & 7))) !== 0;

const NUMERIC: ReadonlySet<number> = new Set([TYPE.tiny, TYPE.short, TYPE.int24, TYPE.long, TYPE.longlong, TYPE.newDecimal, TYPE.float, TYPE.double, TYPE.year]);
const CHARACTERS: ReadonlySet<number> = new Set([
  TYPE.varchar, TYPE.varString, TYPE.string, TYPE.blob, TYPE.tinyBlob, TYPE.mediumBlob, TYPE.longBlob, TYPE.blobCompressed, TYPE.varcharCompressed, TYPE.vector,
]);

/** Most lists of the optional metadata tell of some columns only: which, follows from their types. */
class ColumnGroups {
  readonly all: readonly number[];
  readonly numeric: readonly number[];
  readonly enums: readonly number[];
  readonly sets: readonly number[];
  readonly geometries: readonly number[];
  readonly vectors: readonly number[];

  constructor(shapes: readonly Shape[]) {
    const where = (test: (type: number) => boolean): number[] => shapes.flatMap(({ type }, i) => (test(type) ? [i] : []));
    this.all = where(() => true);
    this.numeric = where((type) => NUMERIC.has(type));
    this.enums = where((type) => type === TYPE.enum);
    this.sets = where((type) => type === TYPE.set);
    this.geometries = where((type) => type === TYPE.geometry);
    this.vectors = where((type) => type === TYPE.vector);
  }
}

/** Collations by their place in a list whose columns are told elsewhere. */
interface CollationList {
  /** -1: every column is listed. */
  readonly fallback: number;
  readonly listed: ReadonlyMap<number, number>;
}

interface OptionalMetadata {
  readonly unsigned: Set<number>;
  readonly labels: Map<number, readonly Buffer[]>;
  readonly geometryTypes: Map<number, number>;
  readonly dimensions: Map<number, number>;
  visible: ReadonlySet<number> | null;
  names: readonly string[] | null;
  characters: CollationList | null;
  enumsAndSets: CollationList | null;
  primaryKey: readonly PrimaryKeyColumn[];
}

const FIELD = {
  signedness: 1, defaultCharset: 2, columnCharset: 3, columnName: 4, setLabels: 5, enumLabels: 6, geometryType: 7, simplePrimaryKey: 8,
  primaryKeyWithPrefix: 9, enumAndSetDefaultCharset: 10, enumAndSetColumnCharset: 11, visibility: 12, vectorDimensions: 13,
} as const;

/** Fields with a type, a length and bytes. Unknown ones only tell more and are passed over. */
function readOptional(input: EventReader, groups: ColumnGroups): OptionalMetadata {
  const found: OptionalMetadata = {
    unsigned: new Set(), labels: new Map(), geometryTypes: new Map(), dimensions: new Map(),
    visible: null, names: null, characters: null, enumsAndSets: null, primaryKey: [],
  };
  const field = new EventReader();
  while (input.left > 0) {
    const type = input.u8();
    const length = input.packed();
    const from = input.take(length);
    field.open(input.buffer, from, from + length);
    if (readField(type, field, groups, found) && field.left > 0) throw malformed("the optional metadata of a table has another length than it says");
  }
  return found;
}

function readField(type: number, field: EventReader, groups: ColumnGroups, found: OptionalMetadata): boolean {
  switch (type) {
    case FIELD.signedness: readBits(field, groups.numeric).forEach((column) => found.unsigned.add(column)); return true;
    case FIELD.visibility: found.visible = new Set(readBits(field, groups.all)); return true;
    case FIELD.defaultCharset: found.characters = readDefaultCollation(field); return true;
    case FIELD.columnCharset: found.characters = readCollations(field); return true;
    case FIELD.enumAndSetDefaultCharset: found.enumsAndSets = readDefaultCollation(field); return true;
    case FIELD.enumAndSetColumnCharset: found.enumsAndSets = readCollations(field); return true;
    case FIELD.columnName: found.names = readAll(field, () => field.utf8(field.packed())); return true;
    case FIELD.setLabels: readLabels(field, groups.sets, found.labels); return true;
    case FIELD.enumLabels: readLabels(field, groups.enums, found.labels); return true;
    case FIELD.geometryType: readNumbers(field, groups.geometries, found.geometryTypes); return true;
    case FIELD.vectorDimensions: readNumbers(field, groups.vectors, found.dimensions); return true;
    case FIELD.simplePrimaryKey: found.primaryKey = readAll(field, () => ({ column: field.packed(), prefix: 0 })); return true;
    case FIELD.primaryKeyWithPrefix: found.primaryKey = readAll(field, () => ({ column: field.packed(), prefix: field.packed() })); return true;
    default: return false;
  }
}

function readAll<T>(field: EventReader, read: () => T): T[] {
  const all: T[] = [];
  while (field.left > 0) all.push(read());
  return all;
}

function readBits(field: EventReader, columns: readonly number[]): number[] {
  const at = field.take((columns.length + 7) >> 3);
  return columns.filter((_, i) => bitFromHigh(field.buffer, at, i));
}

function readDefaultCollation(field: EventReader): CollationList {
  const fallback = field.packed();
  return { fallback, listed: new Map(readAll(field, (): [number, number] => [field.packed(), field.packed()])) };
}

function readCollations(field: EventReader): CollationList {
  return { fallback: -1, listed: new Map(readAll(field, () => field.packed()).entries()) };
}

function readLabels(field: EventReader, columns: readonly number[], into: Map<number, readonly Buffer[]>): void {
  const lists = readAll(field, () => Array.from({ length: boundedCount(field) }, () => field.copy(field.packed())));
  columns.forEach((column, i) => into.set(column, lists[i] ?? []));
}

function boundedCount(field: EventReader): number {
  const count = field.packed();
  if (count > field.left) throw malformed("a list of labels is longer than its event");
  return count;
}

function readNumbers(field: EventReader, columns: readonly number[], into: Map<number, number>): void {
  readAll(field, () => field.packed()).forEach((value, i) => {
    const column = columns[i];
    if (column !== undefined) into.set(column, value);
  });
}

function describe(shapes: readonly Shape[], found: OptionalMetadata, hints: ColumnHints | undefined, isMariaDb: boolean): BinlogColumn[] {
  const { names } = found;
  if (names?.length !== shapes.length) throw metadataMissing("the names of its columns");
  const hinted = names.map((name) => hints?.get(name) ?? null);
  const collations = collationsByColumn(shapes, found, isMariaDb);
  return shapes.map((shape, i): BinlogColumn => {
    const charset = charsetOf(collations.get(i), names[i]!);
    return {
      ...shape, name: names[i]!, hint: hinted[i]!, charset,
      unsigned: found.unsigned.has(i), visible: found.visible?.has(i) ?? null,
      labels: labelsInUtf8(found.labels.get(i), charset),
      geometryType: found.geometryTypes.get(i) ?? null, vectorDimensions: found.dimensions.get(i) ?? null,
    };
  });
}

function collationsByColumn(shapes: readonly Shape[], found: OptionalMetadata, isMariaDb: boolean): Map<number, number> {
  const characters = shapes.flatMap(({ type }, i) => (hasCollation(type, isMariaDb) ? [i] : []));
  const enumsAndSets = shapes.flatMap(({ type }, i) => (type === TYPE.enum || type === TYPE.set ? [i] : []));
  return new Map([...assign(found.characters, characters), ...assign(found.enumsAndSets, enumsAndSets)]);
}

function hasCollation(type: number, isMariaDb: boolean): boolean {
  return CHARACTERS.has(type) || (isMariaDb && type === TYPE.geometry);
}

/** A list that tells of more or fewer columns than there are would give text to the wrong character set. */
function assign(list: CollationList | null, columns: readonly number[]): [number, number][] {
  if (list === null) return [];
  const places = [...list.listed.keys()];
  const isComplete = list.fallback >= 0 ? places.every((place) => place < columns.length) : places.length === columns.length;
  if (!isComplete) throw malformed("the character sets of a table belong to other columns than it has");
  return columns.map((column, place) => [column, list.listed.get(place) ?? list.fallback]);
}

function charsetOf(collation: number | undefined, column: string): string | null {
  if (collation === undefined) return null;
  const charset = charsetOfCollation(collation);
  if (charset === undefined) throw refused(`column "${column}" has the collation ${collation}, which is not known`, "Convert the column to utf8mb4, or leave the table out.");
  return charset;
}

/** Labels stand in the column's own character set. */
function labelsInUtf8(labels: readonly Buffer[] | undefined, charset: string | null): readonly Buffer[] | null {
  if (labels === undefined) return null;
  const copy = charset === null || charset === BINARY ? textCopyOf("utf8mb4") : textCopyOf(charset);
  if (copy === undefined) throw refused(`an ENUM or SET has the character set ${charset}, which is not supported`, "Convert the column to utf8mb4, or leave the table out.");
  return labels.map((label) => {
    const out = new TupleWriter();
    copy(label, 0, label.length, out);
    return Buffer.from(out.bytes.subarray(0, out.at));
  });
}
