/** What the daemon says of itself: the document behind `dualrun status`, `/api/v1/status` and the status page. */
import type { BreakDocument, BreakResolution } from "./breaks.ts";
import type { ClassComparison, ComparisonDocument, DiffDocument, RepairDocument, SelfTestDocument } from "./comparison.ts";
import type { ErrorCode } from "./errors.ts";
import type { FinanceControl } from "./report.ts";
import type { JournalFacts } from "./journal.ts";
import type { Phase } from "./words.ts";

export type DaemonState = "starting" | "snapshotting" | "streaming" | "paused" | "retrying" | "halted" | "fenced" | "stopped";

export interface HaltDocument {
  readonly code: ErrorCode;
  readonly title: string;
  readonly what: string;
  readonly where: string | null;
  readonly details: readonly string[];
  readonly next: string;
  readonly at: string;
}

export interface SnapshotProgress {
  readonly position: string;
  readonly openedAt: string;
  readonly ageSeconds: number;
  /** What the open snapshot holds back on the source. */
  readonly holds: string;
  readonly rows: number;
  readonly expectedRows: number;
  readonly bytes: number;
  readonly expectedBytes: number;
  readonly refused: number;
  readonly rowsPerSecond: number;
  /** null until there is something to reckon with. */
  readonly etaSeconds: number | null;
  readonly done: boolean;
}

export interface ClassProgress {
  readonly name: string;
  readonly source: string;
  readonly target: string;
  readonly kind: string;
  readonly snapshotRows: number;
  readonly snapshotRowsExpected: number;
  readonly chunksDone: number;
  readonly chunks: number;
  readonly inserts: number;
  readonly updates: number;
  readonly deletes: number;
  readonly truncates: number;
  readonly conflicts: number;
}

export interface JournalStatus {
  readonly kind: JournalFacts["kind"];
  readonly state: JournalFacts["level"];
  readonly bytes: number;
  readonly maxBytes: number;
  /** Everything at or before the first is gone; everything up to the last is durable. */
  readonly first: string | null;
  readonly last: string | null;
  /** ISO time. */
  readonly oldestCommitAt: string | null;
  readonly waitedSeconds: number;
}

export interface StatusDocument {
  readonly version: string;
  readonly migration: string;
  readonly phase: Phase;
  readonly state: DaemonState;
  readonly startedAt: string;
  /** Why applying has stopped, or what is being retried; null when all is well. */
  readonly halt: HaltDocument | null;
  readonly format: "text" | "binary" | null;
  readonly epoch: string | null;
  readonly position: string | null;
  readonly head: string | null;
  /** null until measured. */
  readonly lagSeconds: number | null;
  readonly lagBytes: number | null;
  readonly lastEventAt: string | null;
  readonly lastCommitAt: string | null;
  readonly slot: { readonly state: "ok" | "near-limit" | "over-limit" | "lost" | "missing" | "unknown"; readonly retainedBytes: number | null; readonly detail: string };
  /** null: there is none. */
  readonly journal: JournalStatus | null;
  readonly changesPerSecond: number;
  readonly transactionsPerSecond: number;
  readonly changesApplied: number;
  readonly transactionsApplied: number;
  readonly bytesRead: number;
  readonly bufferBytes: number;
  readonly restarts: number;
  readonly snapshot: SnapshotProgress | null;
  readonly classes: readonly ClassProgress[];
  /** Tables under `include` that are not mirrored yet. */
  readonly newTables: readonly string[];
  readonly warnings: readonly string[];
}

export interface ComparisonQuery {
  readonly className?: string | undefined;
  /** ISO time. */
  readonly from?: string | undefined;
  readonly limit: number;
}

/** The proof's side of a daemon. */
export interface ProofControl {
  state(): ProofState;
  /** A comparison now; waits for one that is running. null: every class. */
  compare(className: string | null, full: boolean): Promise<ComparisonDocument>;
  /** The same without waiting: the id under which its result will be found. */
  begin(className: string | null, full: boolean): Promise<{ readonly id: string; readonly finished: Promise<ComparisonDocument> }>;
  comparisons(query: ComparisonQuery): Promise<readonly ComparisonDocument[]>;
  comparison(id: string): Promise<ComparisonDocument | null>;
  /** The rows of a class that differ now, at most `limit` of them. */
  diff(className: string, limit: number): Promise<DiffDocument>;
  /** The statements that would mend the target, and with `apply` their execution and a comparison. */
  repair(className: string, apply: boolean, by: string): Promise<RepairDocument>;
  /** Plants known errors on classes of its own on both sides. */
  selfTest(): Promise<SelfTestDocument>;
  breaks(open: boolean): Promise<readonly BreakDocument[]>;
  /** Somebody takes care of a break from now on. null: there is no such break that is open. */
  assignBreak(id: string, owner: string, by: string): Promise<BreakDocument | null>;
  /** null: there is no such break that is open. */
  resolveBreak(id: string, resolution: BreakResolution, note: string, by: string): Promise<BreakDocument | null>;
}

export interface ProofState {
  /** ISO time since when a comparison has been running; null: none is. */
  readonly runningSince: string | null;
  readonly nextAt: string | null;
  /** The latest result of each class that was compared. */
  readonly classes: readonly ClassComparison[];
  readonly openBreaks: readonly BreakDocument[];
  /** Records on the source at the last comparisons by class, oldest first; null where the class was not looked at. */
  readonly trends: ReadonlyMap<string, readonly (number | null)[]>;
}

/** What may be asked of a running daemon; the HTTP API and the demo speak to it through this. */
export interface DaemonControl {
  status(): StatusDocument;
  /** Stops applying at a transaction's end; the stream and its slot are kept. */
  pause(by: string): Promise<void>;
  resume(by: string): Promise<void>;
  /** After a schema change was dealt with on both sides: takes the present layout as the known one. */
  acceptSchema(note: string, by: string): Promise<void>;
  /** Copies one class again under the running mirror. */
  resnapshot(className: string, by: string): Promise<void>;
  readonly proof: ProofControl;
  readonly finance: FinanceControl;
  readonly audit: () => Promise<readonly AuditEntry[]>;
  verifyAudit(): Promise<AuditVerification>;
}

export interface AuditEntry {
  readonly id: string;
  readonly at: string;
  readonly who: string;
  readonly what: string;
  readonly note: string | null;
}

/** Whether the audit trail is whole. */
export interface AuditVerification {
  readonly intact: boolean;
  /** How many entries were found in order. */
  readonly entries: number;
  /** Hash of the last of them. */
  readonly head: string | null;
  /** The entry at which the chain breaks. */
  readonly at: string | null;
  readonly fault: string | null;
}
