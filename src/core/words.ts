/** The words of the project as types. See ARCHITECTURE.md. */

import type { Conversion } from "./common-types.ts";
import type { TableName } from "./names.ts";
import type { Predicate } from "./where.ts";

declare const brand: unique symbol;
export type Brand<T, Name extends string> = T & { readonly [brand]: Name };

/** A place in a source's log: an LSN, a GTID set. Opaque and durable; only its source can compare two of them. */
export type Position = Brand<string, "Position">;

export type Relation = "before" | "equal" | "after" | "concurrent";

export interface Positions {
  relate(a: Position, b: Position): Relation;
  /** Bytes of log between two positions; null where the engine cannot say. */
  distance(from: Position, to: Position): number | null;
}

export type ClassKind = "record" | "money" | "audit" | "attachment";

/** One column of the target and where its value comes from. */
export interface MappedColumn {
  readonly target: string;
  /** The source's column; null when the value is a constant. */
  readonly from: string | null;
  /** Text of the source's value to text of the target's; a value that is not in it halts. null: as it is. */
  readonly map: ReadonlyMap<string, string> | null;
  /** The constant, as the engine's text, when `from` is null. */
  readonly constant: string | null;
  /** How a value of another engine becomes what the column takes; absent: it is taken as it comes. */
  readonly conversion?: Conversion;
}

/** A table, or a filtered part of one, mapped as a unit: the thing that is counted, summed, reported and signed off. */
export interface RecordClass {
  readonly name: string;
  readonly source: TableName;
  readonly target: TableName;
  readonly kind: ClassKind;
  /** In the target table's column order. */
  readonly columns: readonly MappedColumn[];
  /**
   * Names of target columns that identify a row on both sides, taken from the source's replica identity.
   * Empty: no key, the class is a multiset of whole rows.
   */
  readonly key: readonly string[];
  /** Only rows for which this holds belong to the class; null: all. */
  readonly where: Predicate | null;
  /** True when the source logs the whole before image (REPLICA IDENTITY FULL). */
  readonly fullBeforeImage: boolean;
  readonly money: readonly { readonly column: string; readonly currency: string }[];
  readonly occurredAt: string | null;
  /** The zone of `occurredAt` where its type has none; null: it has one, or is a date. */
  readonly occurredAtZone: string | null;
  readonly sensitive: readonly string[];
}

export type Side = "source" | "target";

export type Phase =
  | "planned" | "snapshotting" | "dual-run" | "cutting-over" | "tail" | "retained" | "closed" | "rolled-back" | "aborted";

/** Where the target stands: written in the transaction that writes the rows. `epoch` and `seq` are the fence. */
export interface Checkpoint {
  readonly stream: string;
  readonly epoch: bigint;
  readonly seq: bigint;
  readonly position: Position | null;
  /** Identity of the source's server that `position` belongs to. */
  readonly sourceIdentity: string | null;
}
