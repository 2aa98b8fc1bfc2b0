/** A real Prometheus scrapes a running demo: every expression of every panel and alert is executed. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { BOARDS } from "../../dashboards/boards.ts";
import { alertRules, metricsIn, panelsOf } from "../support/dashboards.ts";
import { freePort, waitFor } from "../support/daemon.ts";
import { program } from "../support/programs.ts";
import { orSkip } from "../support/servers.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

/** Panels that show nothing on a fresh demo, and why that is right. */
const EMPTY: Readonly<Record<string, string>> = {
  "Since the last signature": "nobody has signed a report yet",
};

/** Metrics that have no value on a fresh demo. */
const UNMEASURED: Readonly<Record<string, string>> = {
  dualrun_sign_off_timestamp_seconds: "nobody has signed a report yet",
  dualrun_journal_bytes: "the demo has no journal",
  dualrun_journal_max_bytes: "the demo has no journal",
  dualrun_tls_certificate_expiry_timestamp_seconds: "the demo's servers are on this machine and use no TLS",
};

type Sample = { readonly value: readonly [number, string] };

class Prometheus {
  private readonly address: string;

  constructor(port: number) {
    this.address = `http://127.0.0.1:${port}`;
  }

  async ready(): Promise<boolean> {
    return fetch(`${this.address}/-/ready`).then(({ ok }) => ok, () => false);
  }

  /** Values that are numbers; throws what Prometheus says of the expression. */
  async query(expression: string): Promise<readonly Sample[]> {
    const response = await fetch(`${this.address}/api/v1/query?query=${encodeURIComponent(expression)}`);
    const answer = (await response.json()) as { status: string; error?: string; data: { result: readonly Sample[] } };
    if (answer.status !== "success") throw new Error(`${expression}: ${answer.error}`);
    return answer.data.result.filter(({ value }) => value[1] !== "NaN");
  }
}

test("every panel has data, every alert is quiet, and nothing that they name is missing", { timeout: 180_000 }, async (context) => {
  const binary = await orSkip(context, program("prometheus"));
  const directory = await mkdtemp(join(tmpdir(), "dualrun-prometheus-"));
  const [port, demoPort] = [await freePort(), await freePort()];
  const children: ChildProcess[] = [];
  const start = (command: string, args: readonly string[]): ChildProcess => {
    const child = spawn(command, args, { stdio: "ignore" });
    children.push(child);
    return child;
  };
  try {
    await writeFile(join(directory, "prometheus.yml"), JSON.stringify({ global: { scrape_interval: "1s" }, scrape_configs: [{ job_name: "dualrun", static_configs: [{ targets: [`127.0.0.1:${demoPort}`] }] }] }));
    const demo = start(process.execPath, [MAIN, "demo", "--port", String(demoPort)]);
    const prometheus = new Prometheus(port);
    start(binary, [`--config.file=${join(directory, "prometheus.yml")}`, `--storage.tsdb.path=${join(directory, "data")}`, `--web.listen-address=127.0.0.1:${port}`]);
    await waitFor(() => prometheus.ready(), "Prometheus");
    await waitFor(async () => (await prometheus.query("min(dualrun_comparison_in_sync) == 1")).length > 0, "a comparison", 120_000);
    await waitFor(async () => Number((await prometheus.query("count_over_time(dualrun_comparison_duration_seconds_count[2m])"))[0]?.value[1] ?? 0) > 8, "enough scrapes");
    expect(demo.exitCode).toBeNull();
    for (const built of Object.values(BOARDS)) for (const panel of panelsOf(built)) await expectPanel(prometheus, panel.title, panel.expressions);
    for (const { alert, expr } of alertRules()) await expectQuiet(prometheus, alert, expr);
  } finally {
    await Promise.all(children.map((child) => ended(child)));
    await rm(directory, { recursive: true, force: true });
  }
});

async function expectPanel(prometheus: Prometheus, title: string, expressions: readonly string[]): Promise<void> {
  for (const expression of expressions) {
    const found = await prometheus.query(expression.replaceAll(/\$(instance|class)/g, ".*"));
    expect([title, expression, found.length > 0]).toEqual([title, expression, !(title in EMPTY)]);
  }
}

async function expectQuiet(prometheus: Prometheus, alert: string, expression: string): Promise<void> {
  const firing = alert === "DualrunNeverSignedOff" ? 1 : 0; // pending for a day and a half before it says so
  expect([alert, (await prometheus.query(expression)).length]).toEqual([alert, firing]);
  for (const metric of metricsIn(expression)) expect([metric, (await prometheus.query(`count(${metric} >= 0 or ${metric} < 0)`)).length > 0]).toEqual([metric, !(metric in UNMEASURED)]);
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await gone;
}
