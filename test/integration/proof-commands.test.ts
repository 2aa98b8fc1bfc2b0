/** The proof as an operator uses it: commands against a daemon that runs as a process of its own. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { expect, test, type TestContext } from "vitest";
import type { ComparisonDocument, RepairDocument } from "../../src/core/index.ts";
import { DaemonHome, freePort, type DaemonProcess } from "../support/daemon.ts";
import { orSkip, sharedPair } from "../support/servers.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const SCHEMA = "CREATE TABLE payments (id integer PRIMARY KEY, amount numeric(12,2), currency text, email text, paid_at timestamptz)";
const FILL = "INSERT INTO payments SELECT g, g, 'EUR', 'mail' || g, '2026-11-01Z' FROM generate_series(1, 300) AS g";

interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

interface Stage extends AsyncDisposable {
  readonly source: pg.Client;
  readonly target: pg.Client;
  readonly address: string;
  dualrun(...command: string[]): Promise<Outcome>;
}

async function stage(context: TestContext): Promise<Stage> {
  const pair = await (await orSkip(context, sharedPair())).fresh("commands");
  const [source, target] = await Promise.all([pair.source, pair.target].map(async (connectionString) => {
    const client = new pg.Client({ connectionString });
    await client.connect();
    await client.query(SCHEMA);
    return client;
  })) as [pg.Client, pg.Client];
  await source.query(FILL);
  const port = await freePort();
  const home = await DaemonHome.make({
    migration: "commands", source: pair.source, target: pair.target,
    config: { http: { listen: `127.0.0.1:${port}` }, classes: [{ source: "public.payments", kind: "money", money: [{ column: "amount", currency: "currency" }], occurredAt: "paid_at", sensitive: ["email"] }] },
  });
  const daemon: DaemonProcess = home.start();
  await daemon.until(({ phase, state }) => phase === "dual-run" && state === "streaming", "streaming");
  const dualrun = (...command: string[]): Promise<Outcome> => new Promise((resolve) => {
    const child = spawn(process.execPath, [MAIN, ...command, "-c", home.file], { env: { ...process.env, TEST_SOURCE: pair.source, TEST_TARGET: pair.target }, stdio: ["ignore", "pipe", "pipe"] });
    let [out, err] = ["", ""];
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
    child.once("close", (code) => resolve({ code, out, err }));
  });
  return {
    source, target, dualrun, address: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      await home[Symbol.asyncDispose]();
      await Promise.allSettled([source.end(), target.end()]);
      await pair.drop();
    },
  };
}

test("compare, diff, repair, breaks, selftest, audit, metrics", { timeout: 180_000 }, async (context) => {
  await using at = await stage(context);
  const clean = await at.dualrun("compare", "--full");
  expect(clean).toMatchObject({ code: 0, err: "" });
  expect(clean.out).toMatch(/^comparison \d+ \(full\) at \S+: in_sync/);

  await at.target.query("UPDATE payments SET amount = amount - 0.01 WHERE id = 17; UPDATE payments SET email = 'secret' WHERE id = 18");
  const dirty = await at.dualrun("compare", "--class", "payments", "--full", "--json");
  expect(dirty.code).toBe(3);
  const document = JSON.parse(dirty.out) as ComparisonDocument;
  expect(document.classes[0]).toMatchObject({ verdict: "confirmed_out_of_sync", differences: { mismatched: 2 }, money: [{ currency: "EUR", difference: "-0.01" }] });

  const diff = await at.dualrun("diff", "--class", "payments");
  expect(diff.code).toBe(3);
  expect(diff.out).toContain('mismatched id=17\n    amount: source "17.00", target "16.99"');
  expect(diff.out).toMatch(/email: source "masked:[0-9a-f]{12}", target "masked:[0-9a-f]{12}"/);

  const metrics = await (await fetch(`${at.address}/metrics`)).text();
  for (const line of [
    'dualrun_comparison_in_sync{class="payments"} 0', 'dualrun_comparison_verdict{class="payments",verdict="confirmed_out_of_sync"} 1', 'dualrun_records{side="target",class="payments"} 300',
    'dualrun_money_difference_minor_units{class="payments",column="amount",currency="EUR"} -1', 'dualrun_breaks_open{class="payments",age="under_1h"} 1',
  ]) expect(metrics).toContain(line);

  expect(await at.dualrun("breaks", "assign", "1", "--to", "ann")).toMatchObject({ code: 0, out: expect.stringContaining("with ann") });
  expect((await at.dualrun("breaks", "--json")).out).toContain('"owner": "ann"');

  const planned = await at.dualrun("repair", "--class", "payments");
  expect(planned.code).toBe(3);
  expect(planned.out).toContain(`UPDATE "public"."payments" SET "amount" = '17.00'::numeric(12,2) WHERE "id" = '17'::integer;`);
  expect(planned.out).not.toContain("mail18");
  const mended = await at.dualrun("repair", "--class", "payments", "--apply", "--json");
  expect(mended.code).toBe(0);
  expect(JSON.parse(mended.out) as RepairDocument).toMatchObject({ applied: true, rows: 2, comparison: { verdict: "in_sync" } });
  expect((await at.dualrun("diff", "--class", "payments")).code).toBe(0);
  expect((await at.dualrun("breaks")).out.trim()).toBe("no breaks are open");
  expect((await at.dualrun("breaks", "--all")).out).toContain("repaired by local");

  expect(await at.dualrun("selftest")).toMatchObject({ code: 0, err: "" });
  expect((await at.dualrun("audit")).out).toContain("repair of class payments: 2 rows");
  expect((await at.dualrun("audit", "verify")).out).toMatch(/^\d+ entries, unbroken/);
  await at.target.query("UPDATE dualrun.audit SET what = 'nothing happened' WHERE what LIKE 'repair of%'");
  expect(await at.dualrun("audit", "verify")).toMatchObject({ code: 3, err: expect.stringContaining("DR8001") });
});

test("what is asked wrongly is refused and changes nothing", async (context) => {
  await using at = await stage(context);
  for (const command of [["compare", "--class", "nope"], ["diff", "--class", "nope"], ["repair", "--class", "nope", "--apply"]]) {
    const { code, err } = await at.dualrun(...command);
    expect([code, err]).toEqual([2, expect.stringContaining('there is no class "nope"')]);
  }
  expect(await at.dualrun("breaks", "resolve", "99", "--note", "x")).toMatchObject({ code: 2, err: expect.stringContaining("There is no open break 99") });
  expect(await at.dualrun("breaks", "assign", "99", "--to", "ann")).toMatchObject({ code: 2, err: expect.stringContaining("There is no open break 99") });
  expect(await at.dualrun("diff", "--class", "payments", "--limit", "0")).toMatchObject({ code: 2 });
  for (const [method, path, body] of [["POST", "/comparisons", '{"ful":true}'], ["GET", "/comparisons/abc", undefined], ["GET", "/comparisons?from=yesterday", undefined], ["POST", "/breaks/1/resolve", "{}"], ["POST", "/repairs", "[]"]] as const) {
    const answer = await fetch(`${at.address}/api/v1${path}`, { method, ...(body === undefined ? {} : { body, headers: { "content-type": "application/json" } }) });
    expect([path, answer.status]).toEqual([path, 400]);
  }
  expect((await fetch(`${at.address}/api/v1/comparisons/999`)).status).toBe(404);
});
