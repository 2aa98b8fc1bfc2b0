/** The main job on a bare machine: two servers of our own, a live business, and the mirror between them. */
import { setTimeout as sleep } from "node:timers/promises";
import { SingleBar } from "cli-progress";
import { parseConfig, type Config } from "../config/index.ts";
import { EXIT, type ComparisonDocument, type SnapshotProgress, type StatusDocument } from "../core/index.ts";
import { startDaemon, type RunningDaemon } from "../daemon.ts";
import { createLogger } from "../telemetry/index.ts";
import { showDrift, type DriftResult } from "./drift.ts";
import type { DemoServer, DemoStage, StageMaker } from "./stage.ts";
import { stageFor } from "./stages.ts";
import { isEqual, type TableVerdict } from "./verify.ts";
import type { Workload, WorkloadTotals } from "./workload.ts";

export interface DemoOptions {
  /** Engines of source and target; default PostgreSQL. */
  readonly from?: string;
  readonly to?: string;
  /** Milliseconds of live mirroring, then comparison and end; null: until Ctrl-C. */
  readonly forMs: number | null;
  readonly port: number;
  readonly json: boolean;
  /** Plants a difference on the target, and shows how it is found, explained and repaired. */
  readonly drift?: boolean;
  /** Transactions per second of the workload. */
  readonly rate?: number;
  /** Size of the seeded data; 1 is some 300,000 rows. */
  readonly scale?: number;
}

interface DemoResult {
  readonly inSync: boolean;
  /** The last comparison by dualrun itself. */
  readonly comparison: ComparisonDocument;
  readonly drift: DriftResult | null;
  readonly tables: readonly TableVerdict[];
  readonly workload: WorkloadTotals;
  readonly status: StatusDocument;
  readonly drainSeconds: number;
}

const MIGRATION = "demo";
const DEFAULT_RATE = 200;

/**
 * Runs the demo and returns its exit code; everything it made is gone when it returns.
 * @throws DualrunError DR1005 for engines that are not available, DR2001 when this machine cannot have the servers.
 */
export async function runDemo(options: DemoOptions): Promise<number> {
  const makeStage = stageFor(options.from ?? "postgres", options.to ?? "postgres");
  const interrupted = new AbortController();
  const onSignal = (): void => interrupted.abort(new Error("interrupted"));
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  const say = options.json ? (): void => undefined : (line: string): void => void process.stdout.write(`${line}\n`);
  try {
    return await play(makeStage, options, say, interrupted.signal);
  } catch (error) {
    if (interrupted.signal.aborted) return EXIT.interrupted;
    throw error;
  } finally {
    process.removeListener("SIGINT", onSignal);
    process.removeListener("SIGTERM", onSignal);
  }
}

async function play(makeStage: StageMaker, options: DemoOptions, say: (line: string) => void, signal: AbortSignal): Promise<number> {
  say("starting two servers …");
  await using stack = new AsyncDisposableStack();
  const stage = await makeStage(stack);
  signal.throwIfAborted();
  say("filling the source with a billing business …");
  say(`  ${(await stage.furnish(options.scale ?? 1)).toLocaleString("en")} rows in ${stage.classes.length} tables`);
  signal.throwIfAborted();
  const daemon = await startDaemon(demoConfig(stage, options.port), {
    truncateTarget: false,
    logger: createLogger({ level: options.json || crosses(stage) ? "error" : "warn", pretty: !options.json && process.stdout.isTTY }),
  });
  stack.defer(() => daemon.stop());
  const workload = await stage.startWorkload(options.rate ?? DEFAULT_RATE);
  let working = true;
  stack.defer(async () => {
    if (working) await workload.stop();
  });
  announce(daemon, stage, options, say);
  await showSnapshot(daemon, options.json, signal);
  const drift = options.drift === true && !signal.aborted ? await showDrift(daemon, stage.target.url, say) : null;
  await live(daemon, workload, options, say, signal);
  if (signal.aborted) {
    say("ending …");
    return options.forMs === null ? EXIT.done : EXIT.interrupted;
  }
  working = false;
  return await conclude(daemon, await workload.stop(), stage, options, drift, say);
}

/** Between engines every type has its note, which `dualrun types` and `dualrun check` show better than a log. */
function crosses({ source, target }: DemoStage): boolean {
  return source.engine !== target.engine;
}

function demoConfig({ source, target, classes }: DemoStage, port: number): Config {
  const side = ({ engine }: DemoServer, name: string): object => ({ engine, url: `env:${name}` });
  const text = JSON.stringify({
    migration: MIGRATION,
    timeZone: "Pacific/Auckland",
    source: side(source, "DEMO_SOURCE_URL"),
    target: side(target, "DEMO_TARGET_URL"),
    classes: classes.map(({ name, table, kind, money, occurredAt, sensitive }) => ({
      name, source: table, kind, money, sensitive, ...(occurredAt === null ? {} : { occurredAt }),
    })),
    comparison: { every: "1m" },
    bank: [{ class: "payments", column: "amount" }],
    http: { listen: `127.0.0.1:${port}` },
  });
  return parseConfig(text, { directory: process.cwd(), env: { DEMO_SOURCE_URL: source.url, DEMO_TARGET_URL: target.url } });
}

function announce(daemon: RunningDaemon, { source, target }: DemoStage, options: DemoOptions, say: (line: string) => void): void {
  const address = daemon.addresses.http;
  say("");
  say(`  console      ${address}/   (comparisons, breaks and daily reports are a click away)`);
  say(`  API          ${address}/api/v1/status   (${address}/openapi.json)`);
  say(`  metrics      ${address}/metrics`);
  say(`  source       ${source.name}  ${source.url}`);
  say(`  target       ${target.name}  ${target.url}`);
  say(`  workload     ${options.rate ?? DEFAULT_RATE} transactions/s on the source`);
  say("");
}

async function showSnapshot(daemon: RunningDaemon, json: boolean, signal: AbortSignal): Promise<void> {
  const bar = json || !process.stdout.isTTY ? null : new SingleBar({ format: "  snapshot {bar} {percentage}%  {value}/{total} rows  ETA {left}", hideCursor: true });
  let shown: SnapshotProgress | null = null;
  while (!signal.aborted) {
    const { snapshot, halt, state } = daemon.control.status();
    if (state === "halted" && halt !== null) throw new Error(`${halt.code}: ${halt.what}`);
    if (snapshot !== null) {
      if (shown === null) bar?.start(snapshot.expectedRows, 0, { left: "…" });
      bar?.setTotal(Math.max(snapshot.rows, snapshot.expectedRows));
      bar?.update(snapshot.rows, { left: snapshot.etaSeconds === null ? "…" : `${Math.ceil(snapshot.etaSeconds)} s` });
      shown = snapshot;
      if (snapshot.done) break;
    }
    await sleep(100);
  }
  bar?.stop();
  if (bar === null && !json && shown !== null) process.stdout.write(`  snapshot ${shown.rows.toLocaleString("en")} rows copied\n`);
}

/** Shows the mirror at work once a second, until time is up or somebody interrupts. */
async function live(daemon: RunningDaemon, workload: Workload, options: DemoOptions, say: (line: string) => void, signal: AbortSignal): Promise<void> {
  const end = options.forMs === null ? Infinity : Date.now() + options.forMs;
  const stopped = workload.ended.then(() => undefined);
  let told = "";
  for (let second = 0; Date.now() < end && !signal.aborted; second++) {
    await Promise.race([sleep(Math.min(1000, end - Date.now()), undefined, { signal }).catch(() => undefined), stopped]);
    const status = daemon.control.status();
    if (status.state === "halted" && status.halt !== null) throw new Error(`${status.halt.code}: ${status.halt.what}\n${status.halt.details.join("\n")}`);
    if (process.stdout.isTTY || second % 5 === 0) show(status, options.json, say);
    told = tellComparison(daemon, told, options.json, say);
  }
}

/** One line per comparison that has ended; returns what was told last. */
function tellComparison(daemon: RunningDaemon, told: string, json: boolean, say: (line: string) => void): string {
  const { classes, runningSince } = daemon.control.proof.state();
  const at = classes[0]?.at ?? "";
  if (json || runningSince !== null || at === "" || at === told) return told;
  const bad = classes.filter(({ verdict }) => verdict !== "in_sync").map((one) => `${one.class} ${one.verdict.replaceAll("_", " ")}`);
  const records = classes.reduce((sum, one) => sum + Number(one.sourceRows ?? 0), 0).toLocaleString("en");
  const figures = classes.reduce((sum, one) => sum + one.money.length, 0);
  say(`${process.stdout.isTTY ? "\n" : ""}  compared at one moment: ${records} records and ${figures} money totals on both sides, ${bad.length === 0 ? "all equal" : bad.join(", ")}`);
  return at;
}

function show(status: StatusDocument, json: boolean, say: (line: string) => void): void {
  const lag = status.lagSeconds === null ? "…" : `${(status.lagSeconds * 1000).toFixed(0)} ms`;
  const line = `  ${status.phase}  lag ${lag}  ${status.transactionsPerSecond.toFixed(0)} transactions/s  ${status.changesPerSecond.toFixed(0)} rows/s  ${status.changesApplied.toLocaleString("en")} rows mirrored`;
  if (!json && process.stdout.isTTY) process.stdout.write(`\r\x1b[K${line}`);
  else say(line);
}

/** The workload has stopped: a marker is drained, then both sides are compared row by row. */
async function conclude(
  daemon: RunningDaemon, workload: WorkloadTotals, stage: DemoStage, options: DemoOptions, drift: DriftResult | null, say: (line: string) => void,
): Promise<number> {
  say("\n  the workload has stopped; draining …");
  const started = performance.now();
  await daemon.drain(AbortSignal.timeout(60_000));
  const drainSeconds = (performance.now() - started) / 1000;
  const comparison = await daemon.control.proof.compare(null, true);
  const tables = await stage.verify();
  const inSync = tables.every(isEqual) && comparison.verdict === "in_sync" && (drift === null || (drift.found && drift.repaired));
  const result: DemoResult = { inSync, comparison, drift, tables, workload, status: daemon.control.status(), drainSeconds };
  if (options.json) process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
  else tell(result, say);
  return result.inSync ? EXIT.done : EXIT.outOfSync;
}

function tell(result: DemoResult, say: (line: string) => void): void {
  say(`  drained in ${(result.drainSeconds * 1000).toFixed(0)} ms; comparing row by row`);
  say("");
  for (const verdict of result.tables) {
    const mark = isEqual(verdict) ? "equal" : `${verdict.missing} missing, ${verdict.extra} extra`;
    say(`  ${verdict.table.padEnd(28)} ${verdict.sourceRows.toLocaleString("en").padStart(10)} rows   ${mark}`);
  }
  say("");
  say(`  dualrun's own full comparison: ${result.comparison.verdict.replaceAll("_", " ")}, ${result.comparison.classes.length} classes in ${result.comparison.seconds.toFixed(1)} s, applying held for ${(result.comparison.holdMs ?? 0).toFixed(0)} ms`);
  say(`  ${result.workload.committed.toLocaleString("en")} transactions with ${result.workload.rows.toLocaleString("en")} rows were written meanwhile`);
  say(result.inSync ? "  in sync: every row of the source is on the target, exactly once" : "  OUT OF SYNC");
}
