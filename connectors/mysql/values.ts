/** Per column type, a function that reads a value from a row image and appends its text. */
import { inflateRawSync, inflateSync } from "node:zlib";
import { BINARY, textCopyOf, type TextCopy } from "./charsets.ts";
import { malformed, refused } from "./faults.ts";
import { writeInet4, writeInet6, writeUuid } from "./mariadb-types.ts";
import { writeJson } from "./json.ts";
import { writeDecimal, writeDouble, writeFixed, writeFloat, writeSigned, writeSigned64, writeUnsigned, writeUnsigned64 } from "./numbers.ts";
import { writeDate, writeDatetime2, writeOldDatetime, writeOldTime, writeOldTimestamp, writeTime2, writeTimestamp2, writeYear } from "./temporal.ts";
import { TYPE, type BinlogColumn } from "./types.ts";
import type { EventReader } from "./event-reader.ts";
import type { TupleWriter } from "./tuple-writer.ts";

/** Reads one value and appends its text; throws DR5005 or DR5009. */
export type ValueDecoder = (input: EventReader, out: TupleWriter) => void;

const COMMA = 0x2c;
const ZERO = 0x30;
const REBUILD = "Rebuild the table on the source (ALTER TABLE … FORCE), or leave it out.";

/** Integers are unpadded even when a column is ZEROFILL, which the log does not tell. Throws DR5009 for a column that cannot be decoded. */
export function decoderOf(column: BinlogColumn): ValueDecoder {
  const { meta } = column;
  const low = meta & 0xff;
  const high = meta >> 8;
  switch (column.type) {
    case TYPE.tiny: return column.unsigned ? unsignedTiny : signedTiny;
    case TYPE.short: return column.unsigned ? unsignedShort : signedShort;
    case TYPE.int24: return column.unsigned ? unsignedInt24 : signedInt24;
    case TYPE.long: return column.unsigned ? unsignedLong : signedLong;
    case TYPE.longlong: return column.unsigned ? unsignedLonglong : signedLonglong;
    case TYPE.newDecimal: return (input, out) => writeDecimal(input, out, low, high);
    case TYPE.float: return floating(4, column);
    case TYPE.double: return floating(8, column);
    case TYPE.year: return writeYear;
    case TYPE.date:
    case TYPE.newDate: return writeDate;
    case TYPE.time2: return (input, out) => writeTime2(input, out, low);
    case TYPE.datetime2: return (input, out) => writeDatetime2(input, out, low);
    case TYPE.timestamp2: return (input, out) => writeTimestamp2(input, out, low);
    case TYPE.time: return oldTemporal(column, writeOldTime);
    case TYPE.datetime: return oldTemporal(column, writeOldDatetime);
    case TYPE.timestamp: return oldTemporal(column, writeOldTimestamp);
    case TYPE.bit: return bits(high * 8 + low);
    case TYPE.enum: return enumeration(column, low);
    case TYPE.set: return setOf(column, low);
    case TYPE.varchar: return text(column, meta > 255 ? 2 : 1);
    case TYPE.string: return fixedString(column);
    case TYPE.tinyBlob:
    case TYPE.mediumBlob:
    case TYPE.longBlob:
    case TYPE.blob: return text(column, low);
    case TYPE.varcharCompressed: return compressed(column, meta > 255 ? 2 : 1);
    case TYPE.blobCompressed: return compressed(column, low);
    case TYPE.json: return json(low);
    case TYPE.geometry:
    case TYPE.vector: return bytes(low);
    default: throw unsupported(column, `has the type ${column.type}, which is not supported`);
  }
}

function unsupported(column: BinlogColumn, what: string, next = "Convert the column, or leave the table out."): Error {
  return refused(`column "${column.name}" ${what}`, next);
}

const signedTiny: ValueDecoder = (input, out) => writeSigned(out, (input.u8() << 24) >> 24);
const unsignedTiny: ValueDecoder = (input, out) => writeUnsigned(out, input.u8());
const signedShort: ValueDecoder = (input, out) => writeSigned(out, (input.u16() << 16) >> 16);
const unsignedShort: ValueDecoder = (input, out) => writeUnsigned(out, input.u16());
const signedInt24: ValueDecoder = (input, out) => writeSigned(out, (input.u24() << 8) >> 8);
const unsignedInt24: ValueDecoder = (input, out) => writeUnsigned(out, input.u24());
const signedLong: ValueDecoder = (input, out) => writeSigned(out, input.u32() | 0);
const unsignedLong: ValueDecoder = (input, out) => writeUnsigned(out, input.u32());

const signedLonglong: ValueDecoder = (input, out) => {
  const low = input.u32();
  writeSigned64(out, input.u32(), low);
};

const unsignedLonglong: ValueDecoder = (input, out) => {
  const low = input.u32();
  writeUnsigned64(out, input.u32(), low);
};

function floating(size: 4 | 8, column: BinlogColumn): ValueDecoder {
  if (column.meta !== size) throw malformed(`column "${column.name}" has floating-point numbers of ${column.meta} bytes`);
  const read = size === 4 ? readFloat : readDouble;
  const decimals = column.hint?.decimals;
  if (decimals !== undefined) return (input, out) => writeFixed(out, read(input), decimals);
  const write = size === 4 ? writeFloat : writeDouble;
  return (input, out) => write(out, read(input));
}

const readFloat = (input: EventReader): number => input.buffer.readFloatLE(input.take(4));
const readDouble = (input: EventReader): number => input.buffer.readDoubleLE(input.take(8));

/** Without the catalogue the length of the value is not known. */
function oldTemporal(column: BinlogColumn, write: (input: EventReader, out: TupleWriter, digits: number) => void): ValueDecoder {
  const digits = column.hint?.decimals;
  if (digits === undefined) throw unsupported(column, "stands in the form of mysql56_temporal_format = OFF", REBUILD);
  return (input, out) => write(input, out, digits);
}

/** BIT(n): as many bytes as it needs, the first one filled up at its front. */
function bits(length: number): ValueDecoder {
  const bytes = (length + 7) >> 3;
  return (input, out) => {
    const from = input.take(bytes);
    for (let bit = bytes * 8 - length; bit < bytes * 8; bit++) out.byte(ZERO + ((input.buffer[from + (bit >> 3)]! >> (7 - (bit & 7))) & 1));
  };
}

function labelsOf(column: BinlogColumn): readonly Buffer[] {
  if (column.labels === null) throw metadataMissing(`the labels of column "${column.name}"`);
  return column.labels;
}

/** What a TABLE_MAP event lacks when binlog_row_metadata is not FULL. */
export function metadataMissing(what: string): Error {
  return refused(`the binary log does not tell ${what}`, "SET GLOBAL binlog_row_metadata = FULL on the source; what was logged before has to be copied anew.");
}

/** Index 0 is the empty text that an invalid value became. */
function enumeration(column: BinlogColumn, size: number): ValueDecoder {
  const labels = labelsOf(column);
  return (input, out) => {
    const index = input.lengthOf(size);
    if (index === 0) return;
    const label = labels[index - 1];
    if (label === undefined) throw malformed(`column "${column.name}" holds a label that it does not have`);
    out.append(label, 0, label.length);
  };
}

function setOf(column: BinlogColumn, size: number): ValueDecoder {
  const labels = labelsOf(column);
  return (input, out) => {
    const from = input.take(size);
    const start = out.at;
    for (let i = 0; i < 8 * size; i++) {
      if ((input.buffer[from + (i >> 3)]! & (1 << (i & 7))) === 0) continue;
      const label = labels[i];
      if (label === undefined) throw malformed(`column "${column.name}" holds a label that it does not have`);
      if (out.at > start) out.byte(COMMA);
      out.append(label, 0, label.length);
    }
  };
}

function copyOf(column: BinlogColumn): TextCopy {
  if (column.charset === null) throw metadataMissing(`the character set of column "${column.name}"`);
  const copy = textCopyOf(column.charset);
  if (copy === undefined) throw unsupported(column, `has the character set ${column.charset}, which is not supported`, "Convert the column to utf8mb4, or leave the table out.");
  return copy;
}

/** VARCHAR, TEXT and their kin in bytes. */
function text(column: BinlogColumn, lengthBytes: number): ValueDecoder {
  const copy = copyOf(column);
  return (input, out) => {
    const length = input.lengthOf(lengthBytes);
    const from = input.take(length);
    copy(input.buffer, from, from + length, out);
  };
}

/** The lengths of CHAR columns of more than 255 bytes hide two bits among those of the type. */
export function stringBytes(meta: number): number {
  return ((((meta & 0xff) >> 4) & 3) ^ 3) << 8 | (meta >> 8);
}

function fixedString(column: BinlogColumn): ValueDecoder {
  const longest = stringBytes(column.meta);
  const lengthBytes = longest > 255 ? 2 : 1;
  switch (column.hint?.kind) {
    case "uuid": return padded(lengthBytes, 16, writeUuid);
    case "inet4": return padded(lengthBytes, 4, writeInet4);
    case "inet6": return padded(lengthBytes, 16, writeInet6);
    case undefined: return column.charset === BINARY ? padded(lengthBytes, longest, writeHex) : text(column, lengthBytes);
  }
}

const writeHex = (bytes: Buffer, out: TupleWriter): void => out.hex(bytes, 0, bytes.length);

/** The log leaves out the zero bytes at the end of a BINARY(n): they are put back. */
function padded(lengthBytes: number, length: number, write: (bytes: Buffer, out: TupleWriter) => void): ValueDecoder {
  const value = Buffer.alloc(length);
  return (input, out) => {
    const stored = input.lengthOf(lengthBytes);
    if (stored > length) throw malformed("a BINARY value is longer than its column");
    const from = input.take(stored);
    input.buffer.copy(value, 0, from, from + stored);
    value.fill(0, stored);
    write(value, out);
  };
}

function bytes(lengthBytes: number): ValueDecoder {
  return (input, out) => {
    const length = input.lengthOf(lengthBytes);
    const from = input.take(length);
    out.hex(input.buffer, from, from + length);
  };
}

function json(lengthBytes: number): ValueDecoder {
  return (input, out) => {
    const length = input.lengthOf(lengthBytes);
    const from = input.take(length);
    writeJson(input.buffer, from, from + length, out);
  };
}

/** MariaDB's COMPRESSED columns. */
function compressed(column: BinlogColumn, lengthBytes: number): ValueDecoder {
  const copy = copyOf(column);
  return (input, out) => {
    const length = input.lengthOf(lengthBytes);
    const from = input.take(length);
    const value = uncompress(input.buffer.subarray(from, from + length));
    copy(value, 0, value.length, out);
  };
}

const STORED = 0, ZLIB = 8;
const WITHOUT_WRAPPER = 8;

/** One byte tells method, wrapping and how many bytes of length follow; nothing at all is the empty value. */
function uncompress(value: Buffer): Buffer {
  if (value.length === 0) return value;
  const header = value[0]!;
  const method = header >> 4;
  if (method === STORED) return value.subarray(1);
  if (method !== ZLIB) throw malformed(`a compressed column uses the unknown method ${method}`);
  const packed = value.subarray(1 + (header & 7));
  return inflated(() => ((header & WITHOUT_WRAPPER) === 0 ? inflateSync(packed) : inflateRawSync(packed)));
}

/** What zlib refuses is a malformed log. */
export function inflated(inflate: () => Buffer): Buffer {
  try {
    return inflate();
  } catch (error) {
    throw malformed(`compressed bytes cannot be inflated: ${error instanceof Error ? error.message : String(error)}`);
  }
}
