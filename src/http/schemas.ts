/** The documents of the API as schemas, for /openapi.json. The types are core's: the compiler holds both together. */
import { z } from "zod";
import { ERRORS, type AuditEntry, type AuditVerification, type ClassProgress, type ErrorCode, type HaltDocument, type SnapshotProgress, type StatusDocument } from "../core/index.ts";
import type { Problem } from "./problem.ts";

/** A schema for every field of a type. Documents may grow: readers must accept fields that are not listed. */
type Shape<T> = { readonly [K in keyof T]-?: z.ZodType<T[K]> };

const whole = (about: string) => z.number().int().min(0).describe(about);
const figure = (about: string) => z.number().min(0).describe(about);
const time = (about: string) => z.string().describe(`${about} ISO 8601.`).meta({ format: "date-time" });

const halt: z.ZodType<HaltDocument> = z.looseObject({
  code: z.enum(Object.keys(ERRORS) as ErrorCode[]),
  title: z.string(),
  what: z.string(),
  where: z.string().nullable(),
  details: z.array(z.string()),
  next: z.string().describe("What to do."),
  at: time("Since when."),
} satisfies Shape<HaltDocument>).meta({ id: "Halt" });

const snapshot: z.ZodType<SnapshotProgress> = z.looseObject({
  position: z.string(),
  openedAt: time("When the snapshot was opened."),
  ageSeconds: figure("How long it has been open."),
  holds: z.string().describe("What the open snapshot holds back on the source."),
  rows: whole("Rows copied."),
  expectedRows: figure("Rows expected, an estimate until all is copied."),
  bytes: whole("Bytes copied."),
  expectedBytes: figure("Bytes expected."),
  refused: whole("Rows that the target refused."),
  rowsPerSecond: figure("Over the last seconds."),
  etaSeconds: figure("Seconds until it is done; null until there is something to reckon with.").nullable(),
  done: z.boolean(),
} satisfies Shape<SnapshotProgress>).meta({ id: "Snapshot" });

const recordClass: z.ZodType<ClassProgress> = z.looseObject({
  name: z.string(),
  source: z.string().describe("The table on the source."),
  target: z.string().describe("The table on the target."),
  kind: z.string().describe("record, money, audit or attachment."),
  snapshotRows: whole("Rows copied."),
  snapshotRowsExpected: whole("Rows expected, an estimate until all is copied."),
  chunksDone: whole("Chunks copied."),
  chunks: whole("Chunks planned."),
  inserts: whole("Inserts applied."),
  updates: whole("Updates applied."),
  deletes: whole("Deletes applied."),
  truncates: whole("Truncates applied."),
  conflicts: whole("Rows of the target that were not what the log said."),
} satisfies Shape<ClassProgress>).meta({ id: "Class" });

export const statusSchema: z.ZodType<StatusDocument> = z.looseObject({
  version: z.string(),
  migration: z.string(),
  phase: z.enum(["planned", "snapshotting", "dual-run", "cutting-over", "tail", "retained", "closed", "rolled-back", "aborted"]),
  state: z.enum(["starting", "snapshotting", "streaming", "paused", "retrying", "halted", "fenced", "stopped"]),
  startedAt: time("When the daemon started."),
  halt: halt.nullable().describe("Why applying has stopped, or what is tried again; null when all is well."),
  format: z.enum(["text", "binary"]).nullable().describe("How values travel."),
  epoch: z.string().nullable().describe("The fence that this daemon holds."),
  position: z.string().nullable().describe("Up to where the source's log is applied."),
  head: z.string().nullable().describe("Where the source's log ends."),
  lagSeconds: figure("Seconds since commit of the oldest change that is not applied; null until measured.").nullable(),
  lagBytes: figure("Bytes of log between position and head; null until measured.").nullable(),
  lastEventAt: time("When the stream last delivered anything.").nullable(),
  lastCommitAt: time("Commit time of the last applied transaction.").nullable(),
  slot: z.looseObject({
    state: z.enum(["ok", "near-limit", "over-limit", "lost", "missing", "unknown"]),
    retainedBytes: figure("Bytes of log that the source keeps for this migration; null until measured.").nullable(),
    detail: z.string(),
  } satisfies Shape<StatusDocument["slot"]>),
  journal: z.looseObject({
    kind: z.enum(["sqlite", "kafka"]),
    state: z.enum(["ok", "near-limit", "waiting"]).describe("waiting: what arrives waits for room, in journal.maxBytes or on the disk."),
    bytes: figure("Bytes that it takes."),
    maxBytes: figure("Bytes that it may take."),
    first: z.string().nullable().describe("Everything at or before this position is gone."),
    last: z.string().nullable().describe("Everything up to this position is durable."),
    oldestCommitAt: time("Commit time of the oldest transaction in it.").nullable(),
    waitedSeconds: figure("For how long what arrived has waited for room since the daemon started."),
  } satisfies Shape<NonNullable<StatusDocument["journal"]>>).nullable().describe("What stands between source and target; null: there is none."),
  changesPerSecond: figure("Over the last seconds."),
  transactionsPerSecond: figure("Over the last seconds."),
  changesApplied: whole("Since the daemon started."),
  transactionsApplied: whole("Since the daemon started."),
  bytesRead: whole("Bytes read from the change stream since the daemon started."),
  bufferBytes: whole("Bytes of changes in memory."),
  restarts: whole("Times that mirroring was interrupted and begun again."),
  snapshot: snapshot.nullable(),
  classes: z.array(recordClass),
  newTables: z.array(z.string()).describe("Tables under `include` that are not mirrored yet."),
  warnings: z.array(z.string()),
} satisfies Shape<StatusDocument>).meta({ id: "Status" });

export const classesSchema: z.ZodType<{ readonly classes: readonly ClassProgress[] }> = z.looseObject({ classes: z.array(recordClass) });

const auditEntry: z.ZodType<AuditEntry> = z.looseObject({
  id: z.string(),
  at: time("When."),
  who: z.string(),
  what: z.string(),
  note: z.string().nullable(),
} satisfies Shape<AuditEntry>).meta({ id: "AuditEntry" });

export const auditSchema: z.ZodType<{ readonly entries: readonly AuditEntry[] }> = z.looseObject({ entries: z.array(auditEntry) });

export const auditVerificationSchema: z.ZodType<AuditVerification> = z.looseObject({
  intact: z.boolean(), entries: whole("Entries found in order."), head: z.string().nullable().describe("Hash of the last of them."), at: z.string().nullable(), fault: z.string().nullable(),
} satisfies Shape<AuditVerification>).meta({ id: "AuditVerification" });

export const okSchema = z.looseObject({ ok: z.literal(true) });

const problemSchema: z.ZodType<Problem> = z.looseObject({
  type: z.string(),
  title: z.string(),
  status: z.number().int(),
  code: z.string().describe("Stable: a DR code, or the kind of fault of the request."),
  detail: z.string(),
  next: z.string().describe("What to do."),
  where: z.string().exactOptional(),
  details: z.array(z.string()).exactOptional().describe("One line per fact or fault."),
} satisfies Shape<Problem>).meta({ id: "Problem" });

/** Responses of any kind of fault. */
export const PROBLEMS = {
  "4xx": { description: "The request is at fault, or the state of the mirror does not allow it.", content: { "application/problem+json": { schema: problemSchema } } },
  "5xx": { description: "The server is at fault, or a database is out of reach.", content: { "application/problem+json": { schema: problemSchema } } },
} as const;

export const noBody = z.strictObject({}).nullish();
export const noteBody = z.strictObject({ note: z.string().trim().min(1, "a note is needed: what was done about the change").max(2_000).describe("What was done about the change; goes to the audit trail.") });
export const classParams = z.object({ name: z.string().min(1).max(128).describe("The class.") });
export const eventsQuery = z.strictObject({ view: z.enum(["page"]).optional().describe("`page` adds events with the regions of the status page as HTML.") });
