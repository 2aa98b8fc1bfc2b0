/** Column types as TABLE_MAP events number them. */
export const TYPE = {
  tiny: 1, short: 2, long: 3, float: 4, double: 5, timestamp: 7, longlong: 8, int24: 9, date: 10, time: 11, datetime: 12, year: 13, newDate: 14,
  varchar: 15, bit: 16, timestamp2: 17, datetime2: 18, time2: 19, typedArray: 20, blobCompressed: 140, varcharCompressed: 141, vector: 242, json: 245,
  newDecimal: 246, enum: 247, set: 248, tinyBlob: 249, mediumBlob: 250, longBlob: 251, blob: 252, varString: 253, string: 254, geometry: 255,
} as const;

/** What the log does not tell of a column and only the catalogue knows. */
export interface ColumnHint {
  /** MariaDB's types that the log cannot tell from BINARY(n). */
  readonly kind?: "uuid" | "inet4" | "inet6";
  /** The D of FLOAT(M,D) and DOUBLE(M,D), or the digits of the fraction of a column made under mysql56_temporal_format = OFF. */
  readonly decimals?: number;
}

/** A table's hints by column name; undefined where there is nothing to say. */
export type ColumnHints = ReadonlyMap<string, ColumnHint>;

/** A column as its TABLE_MAP event describes it. */
export interface BinlogColumn {
  readonly name: string;
  /** One of TYPE; of ENUM and SET the real one. */
  readonly type: number;
  /** The type's own metadata, first byte lowest: a maximal length in bytes, precision and scale, digits. */
  readonly meta: number;
  readonly nullable: boolean;
  readonly unsigned: boolean;
  /** null: the log does not say (MariaDB). */
  readonly visible: boolean | null;
  /** `binary` for bytes, null where the type has none. */
  readonly charset: string | null;
  /** Of ENUM and SET, as UTF-8. */
  readonly labels: readonly Buffer[] | null;
  /** 0 geometry, 1 point, …; null for other types. */
  readonly geometryType: number | null;
  /** Bytes per vector are four times this (MySQL); null for other types. */
  readonly vectorDimensions: number | null;
  readonly hint: ColumnHint | null;
}
