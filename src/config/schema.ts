/** The shape of a configuration, section by section, with every default. Unknown keys are faults. What spans sections is in rules.ts. */
import { z } from "zod";
import { DURATION, FILE_REFERENCE, REFERENCE, SIZE, durationToMs, isTimeZone, parseListen, parseTable, parseTablePattern, sizeToBytes } from "./values.ts";

const DECADE_MS = durationToMs("3660d");

/** A mapping whose fault for an unknown key lists the known ones. */
function section<S extends z.core.$ZodLooseShape>(shape: S, about: string): z.ZodObject<S, z.core.$strict> {
  const known = `one of ${Object.keys(shape).join(", ")}`;
  return z.strictObject(shape, { error: (issue) => (issue.code === "unrecognized_keys" ? known : undefined) }).describe(about);
}

function text(about: string, form: RegExp, allowed: string): z.ZodString {
  return z.string(allowed).regex(form, { abort: true, error: allowed }).describe(about);
}

interface Bounds {
  readonly least?: string;
  readonly most?: string;
}

function duration(fallback: string, about: string, { least = "1ms", most }: Bounds = {}) {
  const allowed = `a duration from ${least} to ${most ?? "3660d"}, like 500ms, 30s, 5m, 1h, 14d`;
  const within = (value: string): boolean => durationToMs(value) >= durationToMs(least) && durationToMs(value) <= (most === undefined ? DECADE_MS : durationToMs(most));
  return text(about, DURATION, allowed).refine(within, allowed).transform(durationToMs).prefault(fallback).describe(about);
}

function size(fallback: string, about: string, least: string) {
  const allowed = `a size of at least ${least}, like 512KiB, 64MiB, 10GiB`;
  return text(about, SIZE, allowed).refine((value) => sizeToBytes(value) >= sizeToBytes(least), allowed).transform(sizeToBytes).prefault(fallback).describe(about);
}

function count(fallback: number, about: string, least: number, most: number) {
  return z.int().min(least).max(most).default(fallback).describe(about);
}

function share(fallback: number, about: string) {
  return z.number().min(0).max(1).default(fallback).describe(about);
}

const NAME = text("A column's name, exactly as the catalogue has it.", /^[^\0]{1,128}$/u, "a column's name");
const TABLE_FORM = 'schema.table, exactly as the catalogue has them; a part with a dot in double quotes, as in public."odd.name"';
const table = (about: string) => z.string(TABLE_FORM).refine((value) => parseTable(value) !== null, TABLE_FORM).describe(about);
const PATTERN_FORM = 'a pattern like public.* or public.tmp_*';
const pattern = z.string(PATTERN_FORM).refine((value) => parseTablePattern(value) !== null, PATTERN_FORM);

const URL_FORM = "env:NAME, file:PATH, or an address like postgres://user@host:5432/database";
const url = (about: string) => z.string(URL_FORM).min(1, URL_FORM).describe(about);
const REFERENCE_FORM = "env:NAME or file:PATH";
const FILE_FORM = "file:PATH";

const engine = z.enum(["postgres", "mysql", "mariadb"]).describe("The engine of this side.");
const tls = section({
  mode: z.enum(["disable", "require", "verify-ca", "verify-full"]).optional().describe("Default verify-full; disable when the host is loopback and no authority is given."),
  ca: text("The certificate authority, PEM.", REFERENCE, REFERENCE_FORM).optional(),
}, "How the connection is encrypted and the server verified.").optional();

const MAP_FORM = 'a mapping from text to text; write numbers, yes and no in quotes';
const columnRule = section({
  from: NAME.optional().describe("The source column that fills this target column."),
  map: z.record(z.string(), z.string(MAP_FORM), MAP_FORM).optional().describe("Value of the source to value of the target; a value that is not listed halts the mirror."),
  default: z.string('text or null; write numbers, yes and no in quotes').nullable().optional().describe("A constant for this target column."),
  drop: z.literal(true).optional().describe("This source column is not copied."),
}, "Where a target column's value comes from; only what differs from the column of the same name.");

const CURRENCY_FORM = "a column's name, or a literal ISO 4217 code in single quotes: \"'NZD'\"";
const money = section({
  column: NAME.describe("The target column that holds the amount."),
  currency: text("The target column that holds the currency, or a literal code in single quotes.", /^('[A-Z]{3}'|[^'\0][^\0]{0,127})$/u, CURRENCY_FORM),
}, "An amount that is summed by currency.");

const recordClass = section({
  name: text("Default: the table's name.", /^[^\p{C}]{1,128}$/u, "a name of 1 to 128 printable characters").optional(),
  source: table("The table on the source."),
  target: table("The table on the target; default: the same name.").optional(),
  where: z.string("a condition like deleted_at is null").optional().describe("Only rows for which this holds: columns of the source against literals with = <> < <= > >= IN, IS NULL, AND OR NOT."),
  kind: z.enum(["record", "money", "audit", "attachment"]).default("record").describe("What the class is for finance and audit."),
  money: z.array(money).default([]).describe("Amounts that must add up on both sides."),
  occurredAt: NAME.optional().describe("The target column that gives the business date."),
  occurredAtZone: z.string("an IANA time zone, like Pacific/Auckland").refine(isTimeZone, "an IANA time zone, like Pacific/Auckland").optional().describe("The zone of `occurredAt`'s clock times, where its type has none."),
  columns: z.record(z.string(), columnRule).default({}).describe("Column rules by target column (with `drop`: by source column)."),
  sensitive: z.array(NAME).default([]).describe("Target columns that are masked wherever a row is shown."),
}, "A table, or a filtered part of one, mapped as a unit.");

const snapshot = section({
  parallel: count(4, "Copying workers, each with one connection on both sides.", 1, 64),
  chunkRows: count(50_000, "Rows per resumable chunk, about.", 100, 100_000_000),
  maxRowsPerSecond: count(0, "Throttle over all workers; 0: none.", 0, 1_000_000_000),
  maxRefusedShare: share(0, "Above this share of refused rows the copy stops; 0: the first refused row stops it."),
  maxAge: duration("12h", "How long one snapshot may stay open, as it holds back vacuum on the source.", { least: "1m", most: "31d" }),
}, "The copy of what exists.").prefault({});

const apply = section({
  mode: z.enum(["mirror", "manual"]).default("mirror").describe("mirror applies by itself."),
  batchRows: count(5_000, "Rows after which a batch is written.", 1, 1_000_000),
  batchDelay: duration("20ms", "How long a batch may wait for more.", { least: "0ms", most: "60s" }),
  maxBuffer: size("64MiB", "Memory for changes on their way; beyond it the source waits.", "1MiB"),
  onConflict: z.enum(["source-wins", "halt"]).default("source-wins").describe("What happens when the target's row is not what the log says."),
}, "How changes are written to the target.").prefault({});

const journal = z.discriminatedUnion("kind", [
  section({ kind: z.literal("none") }, "The source's own log is the journal."),
  section({
    kind: z.literal("sqlite"),
    path: z.string("a file's path").min(1, "a file's path").describe("The journal's file, relative to the configuration, on a disk that survives a restart."),
    maxBytes: size("10GiB", "Bytes that it may take; beyond them the source waits.", "64MiB"),
    key: z.string(REFERENCE_FORM).min(1, REFERENCE_FORM).describe("env:NAME or file:PATH of 32 bytes in hex or base64: rows are encrypted with AES-256-GCM.").optional(),
  }, "A journal in one file beside the daemon."),
  section({ kind: z.literal("kafka"), brokers: z.array(z.string().min(1)).min(1), topic: z.string().min(1) }, "A journal in Kafka."),
]).prefault({ kind: "none" }).describe("Where changes are kept between source and target.");

const comparison = section({
  every: duration("1h", "How often the sides are compared.", { least: "1m", most: "31d" }),
  rescan: duration("24h", "Within which everything is read again.", { least: "1m", most: "31d" }),
  dailyAt: text("Time of the daily comparison, in timeZone.", /^([01]\d|2[0-3]):[0-5]\d$/, 'a time like "00:30"').default("00:30"),
  holdTimeout: duration("5s", "How long applying may be held for an exact cut.", { most: "10m" }),
  cutTimeout: duration("30s", "How long a cut may wait for running writers.", { most: "1h" }),
  statementTimeout: duration("15m", "Limit of one comparing statement.", { least: "1s", most: "7d" }),
  maxRowsPerSecond: count(0, "Throttle of comparing reads; 0: none.", 0, 1_000_000_000),
}, "When and how both sides are compared.").prefault({});

const gates = section({
  dualRun: duration("14d", "Least time of dual-run before a cutover."),
  cleanHours: count(24, "Hours without a break.", 0, 100_000),
  maxLag: duration("5s", "Most lag at the cutover."),
  rehearsals: count(3, "Rehearsed cutovers.", 0, 1_000),
  rollbackRehearsals: count(1, "Rehearsed rollbacks.", 0, 1_000),
  maxBreaks: count(0, "Open breaks that are tolerated.", 0, 1_000_000),
  signOff: z.array(z.string().min(1)).default(["finance"]).describe("Who must have signed."),
}, "What must hold before a cutover.").prefault({});

const cutover = section({
  freezeTimeout: duration("30s", "Limit of the freeze.", { most: "1h" }),
  drainTimeout: duration("60s", "Limit of the drain.", { most: "1d" }),
  maxFailedShare: share(0, "Share of failed writes that is tolerated."),
  sequenceMargin: count(1_000, "By how much sequences are moved ahead.", 0, 1_000_000_000),
  reverseWindow: duration("48h", "How long the target is mirrored back.", { least: "0ms" }),
  switch: section({ command: z.array(z.string()).min(1) }, "The operator's hook that switches clients over.").optional(),
}, "The way across.").prefault({});

const safety = section({
  slotRetainedBytesWarn: size("10GiB", "Retained log on the source at which to warn.", "1MiB"),
  slotRetainedBytesMax: size("50GiB", "Retained log on the source at which to page; the slot is never dropped.", "1MiB"),
}, "Limits that protect the source.").prefault({});

const bank = section({
  class: z.string().min(1).describe("The class whose column the bank's totals stand beside."),
  column: NAME.describe("A money column of it."),
  tolerance: text("Difference up to which both count as equal.", /^\d{1,20}(\.\d{1,10})?$/, "a decimal in quotes, like \"0.05\"").default("0"),
}, "What the bank's daily totals are compared with.");

const LISTEN_FORM = "host:port, like 127.0.0.1:7070 or [::1]:7070";
const http = section({
  listen: z.string(LISTEN_FORM).refine((value) => parseListen(value) !== null, LISTEN_FORM).transform((value) => parseListen(value)!).prefault("127.0.0.1:7070").describe("Address of API, metrics and pages."),
  tokens: text("File with the API's tokens.", FILE_REFERENCE, FILE_FORM).optional(),
}, "The HTTP interface.").prefault({});

const webhook = section({
  kind: z.literal("webhook"),
  url: z.string().min(1).describe("env:NAME, file:PATH or an http(s) address."),
  on: z.array(z.enum(["break", "phase", "lag"])).min(1).describe("What is told."),
}, "Somebody who is told.");

/** The whole file. What comes out is still without secrets; load.ts puts them in. */
export const configSchema = section({
  migration: text("Names slots, publications and marker rows.", /^[a-z0-9-]{1,40}$/, "1 to 40 of a-z, 0-9 and -"),
  timeZone: z.string("an IANA time zone, like Pacific/Auckland").refine(isTimeZone, "an IANA time zone, like Pacific/Auckland").describe("The zone of business dates, IANA."),
  source: section({ engine, url: url("Address of the source."), tls, readReplica: url("A replica for comparing reads.").optional() }, "The system of record before cutover."),
  target: section({ engine, url: url("Address of the target."), tls }, "The system that becomes it."),
  classes: z.array(recordClass).min(1).optional().describe("What is mirrored, table by table; or include."),
  include: z.array(pattern).min(1).optional().describe("Patterns of tables that are mirrored as they are; or classes."),
  exclude: z.array(pattern).optional().describe("Patterns of tables that `include` leaves out."),
  snapshot, apply, journal, comparison, gates, cutover,
  retention: section({ days: count(90, "How long the source is kept read-only.", 0, 36_500) }, "After the migration.").prefault({}),
  safety, http,
  bank: z.array(bank).default([]).describe("Columns beside which imported bank totals stand in the daily report."),
  notify: z.array(webhook).default([]).describe("Who is told what."),
  log: section({ level: z.enum(["trace", "debug", "info", "warn", "error"]).default("info").describe("Least level that is logged.") }, "Logging.").prefault({}),
}, "Configuration of dualrun.");

export type ParsedConfig = z.output<typeof configSchema>;

