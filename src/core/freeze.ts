/** What a cutover asks of a database: that nobody else writes, and that numbers go on where they ended. */
import type { RecordClass, Side } from "./words.ts";
import type { Catalogue } from "./catalogue.ts";

/** Who freezes. `epoch` is the fence of the mirror's target: whoever comes with a lower one than is on record is refused with DR4001. */
export interface FreezeHolder {
  /** For people: host and process. */
  readonly name: string;
  readonly epoch: bigint;
}

/** Sources and targets alike: a rollback freezes the target. */
export interface Freezable {
  freezer(holder: FreezeHolder): Freeze;
}

export interface FreezeOptions {
  /** Milliseconds from the moment at which the tables are locked, by the database's clock, after which writes go through again by themselves. */
  readonly lease: number;
  /** Milliseconds for which the freeze, and every writer behind it, may wait for transactions that are writing. */
  readonly lockTimeout: number;
}

export interface ProofOptions {
  /** Milliseconds for which transactions that hold write locks may go on. */
  readonly timeout: number;
  /** End their sessions instead of only naming them. */
  readonly terminate: boolean;
}

/** A transaction that holds locks on mapped tables. Never the text of a query. */
export interface LockHolder {
  readonly kind: "session" | "prepared" | "autovacuum" | "own";
  /** Process on the server; null for prepared transactions. */
  readonly pid: number | null;
  /** Names this one transaction, as the engine does. */
  readonly transaction: string;
  readonly application: string;
  readonly role: string;
  /** `active`, `idle in transaction`; the identifier of a prepared transaction. */
  readonly state: string;
  readonly since: Date | null;
  readonly tables: readonly string[];
}

/** What was looked at after a freeze, and found to be still. Times are the database's. */
export interface QuietProof {
  readonly lookedAt: Date;
  readonly provenAt: Date;
  /** Tables and partitions. */
  readonly tables: number;
  readonly guards: number;
  /** Transactions that held write locks at the first look; all have ended. */
  readonly writers: readonly LockHolder[];
  /** How many of them were ended by ending their sessions. */
  readonly terminated: number;
  /** Passed over: the mirror's own sessions, and the engine's own upkeep. */
  readonly passedOver: number;
  readonly preparedTransactions: 0;
  readonly until: Date | "permanent";
}

export interface FreezeState {
  /** `lapsed`: the lease has run out, writes go through, and the guards are still there. */
  readonly state: "absent" | "prepared" | "frozen" | "permanent" | "lapsed";
  /** Frozen, and every guard is in place: no ordinary writer comes through. */
  readonly holds: boolean;
  readonly holder: FreezeHolder | null;
  /** By the database's clock, like `now`; null when there is no lease. */
  readonly until: Date | "permanent" | null;
  readonly now: Date;
  /** Tables and partitions under guard. */
  readonly tables: number;
  readonly guards: number;
  /** One line per guard that is missing, switched off or altered, and per table that is gone. */
  readonly faults: readonly string[];
}

/**
 * A freeze of the mapped tables of one database: guards that refuse every write but the mirror's own, for as long as a lease lasts
 * that its holder renews. Everything but `state` and `grants` throws DR4001 for a holder that is fenced out.
 */
export interface Freeze {
  /** The least that freezing and `advanceSequences` need, as statements for an administrator. */
  grants(classes: readonly RecordClass[], catalogue: Catalogue): string[];
  /**
   * Makes the guards, switched off, on every table and partition of the classes, and what is missing since the last time.
   * `lockTimeout`, in milliseconds: how long writers of one table may have to wait. DR6101, DR6104.
   */
  prepare(classes: readonly RecordClass[], lockTimeout?: number): Promise<FreezeState>;
  /** One short transaction. Returns when the lease ends. DR6101 when writers did not end in time, and then nothing has changed; DR6104 when there are no guards. */
  freeze(options: FreezeOptions): Promise<Date>;
  /** Gives the lease another so many milliseconds from now. DR6102 when it has run out before: then writes may have come through, and they go on doing so. */
  renew(lease: number): Promise<Date | "permanent">;
  /** No lease any more: only `thaw` ends it. DR6102 like `renew`. */
  makePermanent(): Promise<void>;
  /** Lets writes through at once, and then switches the guards off where that can be done without waiting long. Returns how many stay switched on, letting everything through. */
  thaw(): Promise<number>;
  /** DR6102 without a freeze in force, DR6103 when transactions that write have not ended or a guard is off, DR6105 for prepared ones. */
  proveQuiet(options: ProofOptions): Promise<QuietProof>;
  state(): Promise<FreezeState>;
  /** Drops everything that was made here, and nothing else; DR6101 when a table is not to be had. */
  tearDown(): Promise<void>;
}

/** What numbers a column. */
export interface SequenceFacts {
  /** As SQL: `public.orders_id_seq`. */
  readonly name: string;
  readonly last: bigint;
  /** False: `last` itself comes next. */
  readonly called: boolean;
  /** Negative for one that descends. */
  readonly increment: bigint;
  /** Numbers that a session takes at once. */
  readonly cache: bigint;
  readonly min: bigint;
  readonly max: bigint;
  readonly cycle: boolean;
}

/** A sequence of the source and the column of the target that it belongs to. */
export interface SequenceValue extends SequenceFacts {
  readonly className: string;
  /** The target's. */
  readonly column: string;
}

/** Next numbers before and after. */
export interface AdvancedSequence {
  readonly className: string;
  readonly column: string;
  readonly name: string;
  readonly from: bigint;
  readonly to: bigint;
}

export interface SequenceAdvance {
  readonly advanced: readonly AdvancedSequence[];
  /** `class.column`s that are numbered on one side only. */
  readonly unmatched: readonly { readonly className: string; readonly column: string; readonly only: Side; readonly name: string }[];
}
