/** How a class is read on one side. */
import type { ColumnFacts, Side, SliceKind } from "../../src/core/index.ts";

/** A class on one side, as pieces of SQL over the alias `t`. */
export interface Projection {
  readonly side: Side;
  readonly table: string;
  /** Only rows for which this holds belong to the class; null: all. */
  readonly condition: string | null;
  /** The whole row as bytes. */
  readonly row: string;
  /** 64-bit number by which rows fall into shares and groups; the same on both sides for the same key. */
  readonly spread: string;
  /** Key columns as text; empty for a class without key. */
  readonly key: readonly string[];
  /** Typed key columns, and the types that their text is read as. */
  readonly keyColumns: readonly { readonly expression: string; readonly type: string }[];
  readonly slice: { readonly kind: SliceKind; readonly column: string; readonly type: string };
  /** Every column as text in the target's form, by target name. */
  readonly texts: ReadonlyMap<string, string>;
  /** A column's value in the target's type. */
  value(column: string): string;
  /** The type that `value` has. */
  typeOf(column: string): ColumnFacts;
}
