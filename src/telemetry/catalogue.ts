/** Every series that dualrun exposes: what dashboards, alerts and tests may name. */
import { ERRORS, type DaemonState, type ErrorCode, type Phase, type StatusDocument } from "../core/index.ts";

export type MetricLabel = "class" | "op" | "code" | "state" | "kind" | "side" | "phase" | "version" | "migration" | "column" | "currency" | "verdict" | "age";

export interface MetricEntry {
  readonly name: string;
  readonly type: "gauge" | "counter" | "histogram";
  readonly labels: readonly MetricLabel[];
  readonly help: string;
  /** Histograms only: upper bounds, in the metric's unit. */
  readonly buckets?: readonly number[];
}

export const PHASES = [
  "planned", "snapshotting", "dual-run", "cutting-over", "tail", "retained", "closed", "rolled-back", "aborted",
] as const satisfies readonly Phase[];

export const OPERATIONS = ["insert", "update", "delete", "truncate"] as const;
export const CHUNK_STATES = ["open", "done"] as const;
export const CONFLICT_KINDS = ["insert-found-row", "update-found-none", "delete-found-none"] as const;
export const STATES = ["starting", "snapshotting", "streaming", "paused", "retrying", "halted", "fenced", "stopped"] as const satisfies readonly DaemonState[];
export const SLOT_STATES = ["ok", "near-limit", "over-limit", "lost", "missing", "unknown"] as const satisfies readonly StatusDocument["slot"]["state"][];
export const SIDES = ["source", "target"] as const;

/** Codes that can end or interrupt applying; what belongs to configuration and command line cannot. */
export const APPLY_ERROR_CODES = (Object.keys(ERRORS) as ErrorCode[]).filter((code) => !/^DR[137]/.test(code));

const gauge = (name: string, labels: readonly MetricLabel[], help: string): MetricEntry => ({ name: `dualrun_${name}`, type: "gauge", labels, help });
const counter = (name: string, labels: readonly MetricLabel[], help: string): MetricEntry => ({ name: `dualrun_${name}`, type: "counter", labels, help });
const histogram = (name: string, buckets: readonly number[], help: string): MetricEntry => ({ name: `dualrun_${name}`, type: "histogram", labels: [], help, buckets });

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const ROWS = [1, 5, 10, 50, 100, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 1_000_000];

const COMPARISON_SECONDS = [0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 14_400];

export const ENTRIES = {
  info: gauge("info", ["version", "migration"], "Always 1; its labels say which program mirrors what."),
  phase: gauge("phase", ["phase"], "1 for the phase that the migration is in, 0 for the others."),
  leader: gauge("leader", [], "1 while this process holds the fence, 0 when another one does."),
  lagSeconds: gauge("lag_seconds", [], "Seconds since commit of the oldest change that is not applied; NaN when not measured."),
  lagBytes: gauge("lag_bytes", [], "Bytes of log between the source's head and what is applied; NaN when not measured."),
  lastEvent: gauge("stream_last_event_timestamp_seconds", [], "When the stream last delivered anything, seconds since 1970."),
  state: gauge("state", ["state"], "1 for what the daemon is doing, 0 for the others."),
  slotState: gauge("slot_state", ["state"], "1 for the state of the replication slot, 0 for the others."),
  retainedBytesMax: gauge("source_retained_bytes_max", [], "Bytes of retained log that are allowed: safety.slotRetainedBytesMax."),
  certificateExpiry: gauge("tls_certificate_expiry_timestamp_seconds", ["side"], "When the certificate of a database server expires, seconds since 1970; NaN without TLS."),
  retainedBytes: gauge("source_retained_bytes", [], "Bytes of log that the source keeps for this migration."),
  changesApplied: counter("changes_applied_total", ["class", "op"], "Changes applied to the target."),
  transactionsApplied: counter("transactions_applied_total", [], "Source transactions applied to the target."),
  bytesRead: counter("bytes_read_total", [], "Bytes read from the change stream."),
  streamRestarts: counter("stream_restarts_total", [], "Times that mirroring was interrupted and begun again."),
  applyErrors: counter("apply_errors_total", ["code"], "Faults that interrupted or halted applying, by code."),
  batchSeconds: histogram("apply_batch_duration_seconds", SECONDS, "Time to write and commit one batch on the target."),
  batchRows: histogram("apply_batch_rows", ROWS, "Changes per batch."),
  orderedBatches: counter("apply_ordered_batches_total", ["class"], "Batches of a class that had to be written row by row in log order."),
  conflicts: counter("apply_conflicts_total", ["class", "kind"], "Rows of the target that were not what the log says."),
  bufferBytes: gauge("buffer_bytes", [], "Bytes of changes that are held in memory on their way to the target."),
  backpressureSeconds: counter("backpressure_seconds_total", [], "Time for which reading the stream waited for the target."),
  journalBytes: gauge("journal_bytes", [], "Bytes that the journal takes; NaN without one."),
  journalMaxBytes: gauge("journal_max_bytes", [], "Bytes that the journal may take: journal.maxBytes; NaN without one."),
  journalOldest: gauge("journal_oldest_commit_timestamp_seconds", [], "Commit time of the oldest transaction in the journal, seconds since 1970; NaN when it is empty."),
  journalWaited: counter("journal_wait_seconds_total", [], "Time for which what came from the source waited for room in the journal or on its disk."),
  snapshotRows: gauge("snapshot_rows", ["class"], "Rows copied by the snapshot."),
  snapshotRowsExpected: gauge("snapshot_rows_expected", ["class"], "Rows that the snapshot is expected to copy."),
  snapshotChunks: gauge("snapshot_chunks_total", ["class", "state"], "Chunks of the snapshot, by state."),
  fencingRejections: counter("fencing_rejections_total", [], "Writes that were refused because another daemon holds the fence."),
  loopDropped: counter("loop_dropped_total", [], "Changes that were dropped because dualrun itself had written them."),
  records: gauge("records", ["side", "class"], "Records at the last comparison."),
  recordsDifference: gauge("records_difference", ["class"], "Records on the target less those on the source, at the last comparison."),
  moneyTotal: gauge("money_total", ["side", "class", "column", "currency"], "Sum of a money column in one currency at the last comparison, as near as a float comes; the exact text is in the API."),
  moneyDifference: gauge("money_difference_minor_units", ["class", "column", "currency"], "Target less source in units of the column's scale, at the last comparison; exact below 2^53."),
  inSync: gauge("comparison_in_sync", ["class"], "1 when the last comparison proved the class in sync, else 0."),
  verdict: gauge("comparison_verdict", ["class", "verdict"], "1 for the verdict of the last comparison, 0 for the others."),
  comparedAt: gauge("comparison_timestamp_seconds", ["class"], "The moment that the last comparison looked at, seconds since 1970."),
  proofAge: gauge("comparison_proof_age_seconds", ["class"], "How long ago the part was proven whose proof is oldest; NaN while some part was never proven."),
  comparisonSeconds: histogram("comparison_duration_seconds", COMPARISON_SECONDS, "Time that a comparison took."),
  comparisonHold: histogram("comparison_hold_seconds", SECONDS, "For how long nothing was applied because of an exact cut."),
  comparisonWait: histogram("comparison_wait_seconds", SECONDS, "How long the stream took to come to an exact cut, applying all the while: long behind a huge transaction."),
  comparisonInterval: gauge("comparison_interval_seconds", [], "How often comparisons are to run: comparison.every."),
  comparisonRescan: gauge("comparison_rescan_seconds", [], "Within what time every value is to be read again: comparison.rescan."),
  comparisonRows: counter("comparison_rows_read_total", ["side", "class"], "Records that comparisons have read."),
  breaksOpen: gauge("breaks_open", ["class", "age"], "Confirmed differences that nobody has settled."),
  cleanStreak: gauge("clean_streak_days", [], "Business days in a row that were compared, clean, on time and signed."),
  signedOffAt: gauge("sign_off_timestamp_seconds", [], "When a daily report was signed last, seconds since 1970."),
  foreignWrites: counter("foreign_writes_total", ["side", "class"], "Writes to mapped tables by somebody else, on the side where nobody else should write."),
} as const satisfies Record<string, MetricEntry>;

/** The catalogue as a list. */
export const METRICS: readonly MetricEntry[] = Object.values(ENTRIES);
