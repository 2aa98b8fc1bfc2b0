import { describe, expect, it } from "vitest";
import { DualrunError, asDualrunError, type ClassProgress, type StatusDocument } from "../../src/core/index.ts";
import { METRICS, createLogger, createMetrics, scrub, type Metrics } from "../../src/telemetry/index.ts";

const made = (): Metrics => createMetrics({ version: "1.2.3", migration: "billing", classes: ["invoices", "payments"] });

async function series(metrics: Metrics): Promise<Map<string, string>> {
  const lines = (await metrics.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), line.slice(line.lastIndexOf(" ") + 1)]));
}

const invoices: ClassProgress = {
  name: "invoices", source: "public.invoices", target: "public.invoices", kind: "money", snapshotRows: 10, snapshotRowsExpected: 40,
  chunksDone: 1, chunks: 4, inserts: 0, updates: 0, deletes: 0, truncates: 0, conflicts: 0,
};

const status: StatusDocument = {
  version: "1.2.3", migration: "billing", phase: "dual-run", state: "streaming", startedAt: "2026-01-01T00:00:00.000Z", halt: null, format: "text",
  epoch: "3", position: "0/10", head: "0/20", lagSeconds: 0.25, lagBytes: 16, lastEventAt: "2026-01-01T00:00:01.500Z", lastCommitAt: null,
  slot: { state: "ok", retainedBytes: 4096, detail: "" }, journal: null, changesPerSecond: 1, transactionsPerSecond: 1, changesApplied: 1, transactionsApplied: 1,
  bytesRead: 1, bufferBytes: 7, restarts: 0, snapshot: null, classes: [invoices], newTables: [], warnings: [],
};

describe("metrics", () => {
  it("exposes every series of the catalogue before anything has happened", async () => {
    const text = await made().text();
    for (const { name, type, help } of METRICS) {
      expect(text).toContain(`# TYPE ${name} ${type}\n`);
      expect(text).toContain(`# HELP ${name} ${help}\n`);
      if (name.startsWith("dualrun_money_")) continue; // their currencies are known when the rows are
      expect(text).toMatch(new RegExp(`^${name}(_count)?(\\{[^}]*\\})? \\S+$`, "m"));
    }
    expect(text).toContain("process_cpu_seconds_total");
  });

  it("tells of the journal, and of none as not measured", async () => {
    const metrics = made();
    metrics.observe(status);
    expect((await series(metrics)).get("dualrun_journal_bytes")).toBe("NaN");
    const journal = { kind: "sqlite", state: "ok", bytes: 100, maxBytes: 1000, first: "0/1", last: "0/2", oldestCommitAt: "2026-11-21T00:00:00.000Z", waitedSeconds: 2 } as const;
    for (const waitedSeconds of [2, 5, 5]) metrics.observe({ ...status, journal: { ...journal, waitedSeconds } });
    const seen = await series(metrics);
    expect(["bytes", "max_bytes", "oldest_commit_timestamp_seconds", "wait_seconds_total"].map((name) => seen.get(`dualrun_journal_${name}`))).toEqual(["100", "1000", String(Date.UTC(2026, 10, 21) / 1000), "5"]);
  });

  it("names follow the contract and labels are those of the catalogue", async () => {
    const seen = await series(made());
    for (const { name, labels } of METRICS) {
      expect(name).toMatch(/^dualrun_[a-z_]+$/);
      for (const key of [...seen.keys()].filter((each) => each === name || each.startsWith(`${name}{`))) {
        expect([...key.matchAll(/(\w+)="/g)].map((match) => match[1]).toSorted()).toEqual(labels.toSorted());
      }
    }
  });

  it("starts counters at zero for every class and operation, gauges at NaN", async () => {
    const seen = await series(made());
    for (const name of ["invoices", "payments"]) {
      for (const op of ["insert", "update", "delete", "truncate"]) expect(seen.get(`dualrun_changes_applied_total{class="${name}",op="${op}"}`)).toBe("0");
      for (const side of ["source", "target"]) expect(seen.get(`dualrun_foreign_writes_total{side="${side}",class="${name}"}`)).toBe("0");
      expect(seen.get(`dualrun_snapshot_rows{class="${name}"}`)).toBe("NaN");
    }
    expect(seen.get("dualrun_transactions_applied_total")).toBe("0");
    expect(seen.get('dualrun_apply_errors_total{code="DR5002"}')).toBe("0");
    expect(seen.has('dualrun_apply_errors_total{code="DR1001"}')).toBe(false);
    for (const name of ["lag_seconds", "lag_bytes", "leader", "source_retained_bytes", "buffer_bytes"]) expect(seen.get(`dualrun_${name}`)).toBe("NaN");
    expect(seen.get('dualrun_phase{phase="dual-run"}')).toBe("NaN");
    expect(seen.get('dualrun_info{version="1.2.3",migration="billing"}')).toBe("1");
  });

  it("counts what a batch did", async () => {
    const metrics = made();
    metrics.batchApplied({
      transactions: 2, rows: 5, seconds: 0.02, operations: new Map([["invoices", { insert: 3, update: 1, delete: 1 }], ["later", { insert: 0, update: 0, delete: 0 }]]),
      truncates: ["payments"], result: { ordered: ["invoices"], conflicts: [{ className: "invoices", kind: "update-found-none" }] },
    });
    const seen = await series(metrics);
    expect(seen.get('dualrun_changes_applied_total{class="invoices",op="insert"}')).toBe("3");
    expect(seen.get('dualrun_changes_applied_total{class="payments",op="truncate"}')).toBe("1");
    expect(seen.get('dualrun_changes_applied_total{class="later",op="insert"}')).toBe("0");
    expect(seen.get("dualrun_transactions_applied_total")).toBe("2");
    expect(seen.get("dualrun_apply_batch_rows_sum")).toBe("5");
    expect(seen.get("dualrun_apply_batch_duration_seconds_count")).toBe("1");
    expect(seen.get('dualrun_apply_ordered_batches_total{class="invoices"}')).toBe("1");
    expect(seen.get('dualrun_apply_conflicts_total{class="invoices",kind="update-found-none"}')).toBe("1");
  });

  it("adds up bytes over streams that each count from zero", async () => {
    const metrics = made();
    for (const total of [100, 250, 30, 40]) metrics.bytesReadTo(total);
    expect((await series(metrics)).get("dualrun_bytes_read_total")).toBe("290");
  });

  it("takes gauges from the status document and forgets what is no longer measured", async () => {
    const metrics = made();
    metrics.observe(status);
    let seen = await series(metrics);
    expect(seen.get('dualrun_phase{phase="dual-run"}')).toBe("1");
    expect(seen.get('dualrun_phase{phase="planned"}')).toBe("0");
    expect(seen.get("dualrun_lag_seconds")).toBe("0.25");
    expect(seen.get("dualrun_stream_last_event_timestamp_seconds")).toBe("1767225601.5");
    expect(seen.get("dualrun_source_retained_bytes")).toBe("4096");
    expect(seen.get('dualrun_snapshot_chunks_total{class="invoices",state="open"}')).toBe("3");
    expect(seen.get('dualrun_snapshot_rows{class="payments"}')).toBe("NaN");
    metrics.observe({ ...status, lagSeconds: null });
    seen = await series(metrics);
    expect(seen.get("dualrun_lag_seconds")).toBe("NaN");
  });

  it("escapes class names", async () => {
    const metrics = createMetrics({ version: "1", migration: "m", classes: ['a"} 1\nevil{x="'] });
    expect(await metrics.text()).toContain(String.raw`dualrun_changes_applied_total{class="a\"} 1\nevil{x=\"",op="insert"} 0`);
  });

  it("keeps registries apart", async () => {
    const first = made();
    first.streamRestarts.inc();
    expect((await series(made())).get("dualrun_stream_restarts_total")).toBe("0");
  });
});

interface Line {
  readonly [key: string]: unknown;
  readonly err: { readonly [key: string]: unknown; readonly cause?: Record<string, unknown> };
}

function logged(write: (logger: ReturnType<typeof createLogger>) => void): { text: string; line: Line } {
  let text = "";
  write(createLogger({ level: "trace", pretty: false, destination: { write: (chunk) => void (text += chunk) } }));
  return { text, line: JSON.parse(text) as Line };
}

function databaseError(code: string, message: string): Error {
  return Object.assign(new Error(message), { name: "error", code, detail: "Key (email)=(ann@example.org) already exists.", where: "COPY t, line 1: \"Ann\"", table: "people", constraint: "people_email_key" });
}

describe("logger", () => {
  it("writes JSON with a readable level and time", () => {
    const { line } = logged((logger) => logger.info({ migration: "billing" }, "started"));
    expect(line).toMatchObject({ level: "info", migration: "billing", msg: "started" });
    expect(String(line["time"])).toMatch(/^\d{4}-\d\d-\d\dT/);
  });

  it.each(["url", "password", "token", "authorization"])("redacts %s at every level, also in bindings", (key) => {
    const { text } = logged((logger) => logger.child({ [key]: "SECRET0" }).info({ [key]: "SECRET1", a: { [key]: "SECRET2", b: { [key]: ["SECRET3"], c: { [key]: 4711 } } } }, "m"));
    expect(text).not.toMatch(/SECRET|4711/);
    expect(text).toContain("[redacted]");
  });

  it.each([
    "postgres://ann:SECRET@db.example/x", "postgresql://ann:SECRET%40%2F@db:5432/x", "postgres://:SECRET@db/x", "mysql://ann:SEC/RET@db/x",
    "cannot connect to postgres://ann:SECRET\"SECRET@db/x: refused", "postgres://ann:SEC@RET@db/x", "postgres://ann:SECRET\\SECRET@db/x",
    "host=db user=ann password=SECRET dbname=x", "password='SECRET SECRET' host=db", "postgres://db/x?user=ann&password=SECRET&ssl=1", "authorization: Bearer SECRET.SECRET-SECRET",
  ])("takes the secret out of %s wherever it stands", (text) => {
    for (const write of [
      (logger: ReturnType<typeof createLogger>) => logger.info(text),
      (logger: ReturnType<typeof createLogger>) => logger.info({ a: { b: { c: { d: { e: [text] } } } } }, "m"),
      (logger: ReturnType<typeof createLogger>) => logger.error(new Error(text, { cause: new Error(text) })),
      (logger: ReturnType<typeof createLogger>) => logger.child({ place: text }).info("m"),
    ]) {
      const { text: line } = logged(write);
      expect(line).not.toMatch(/SEC|RET/);
      expect(line).toContain("[redacted]");
    }
  });

  it("leaves other text alone", () => {
    for (const text of ["postgres://db.example:5432/x", "http://127.0.0.1:7070/", "ann@example.org", "10:30 @ noon"]) expect(scrub(text)).toBe(text);
    expect(scrub("postgres://ann:s@db:5432/x and more")).toBe("postgres://ann:[redacted]@db:5432/x and more");
  });

  it("serializes errors with code, place and next step", () => {
    const cause = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED", syscall: "connect" });
    const { line } = logged((logger) => logger.error({ err: new DualrunError("DR2001", "no answer", { where: "source", details: ["one"], cause }) }, "failed"));
    expect(line.err).toMatchObject({ type: "DualrunError", code: "DR2001", message: "no answer", where: "source", details: ["one"], cause: { code: "ECONNREFUSED", syscall: "connect" } });
    expect(line.err["next"]).toContain("credentials");
    expect(Array.isArray(line.err["stack"])).toBe(true);
  });

  it("keeps row values out: a database's detail, its place and messages that quote", () => {
    for (const error of [databaseError("23505", "duplicate key"), databaseError("22P02", "invalid input syntax for type integer: \"Ann\"")]) {
      for (const given of [error, asDualrunError(error), new DualrunError("DR5002", `refused: ${error.message}`, { cause: asDualrunError(error) })]) {
        const { text } = logged((logger) => logger.error(given));
        expect(text).not.toMatch(/Ann|ann@example/);
        expect(text).toContain("people_email_key");
      }
    }
  });

  it("writes readable lines on a terminal, as clean as the others", () => {
    let text = "";
    const logger = createLogger({ level: "info", pretty: true, destination: { write: (chunk) => void (text += chunk) } });
    logger.info({ token: "SECRET" }, "to postgres://ann:SECRET@db/x");
    expect(text).toContain("INFO");
    expect(text).toContain("postgres://ann:[redacted]@db/x");
    expect(text).not.toContain("SECRET");
  });

  it("says nothing below its level", () => {
    let text = "";
    createLogger({ level: "warn", pretty: false, destination: { write: (chunk) => void (text += chunk) } }).info("m");
    expect(text).toBe("");
  });
});
