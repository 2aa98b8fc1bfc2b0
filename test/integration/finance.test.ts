/** Reports that finance signs: what they say, who may sign them, and what makes a signature void. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test, type TestContext } from "vitest";
import { addDays, localDate } from "../../src/compare/index.ts";
import type { MoneyLine, Report } from "../../src/core/index.ts";
import { createToken } from "../../src/http/index.ts";
import { TestMirror } from "../support/mirror.ts";
import { orSkip, sharedPair } from "../support/servers.ts";

const ZONE = "Pacific/Auckland";
const TODAY = localDate(ZONE, Date.now());
const YESTERDAY = addDays(TODAY, -1);
const BEFORE = addDays(TODAY, -2);
const SCHEMA = "CREATE TABLE payments (id integer PRIMARY KEY, amount numeric(12,2), currency text, paid_on date)";
const FILL = `INSERT INTO payments VALUES (1, 100, 'NZD', '${addDays(TODAY, -40)}'), (2, 10.50, 'NZD', '${BEFORE}'), (3, 7, 'NZD', '${YESTERDAY}'), (4, 5, 'EUR', '${YESTERDAY}'), (5, 1, NULL, '${YESTERDAY}'), (6, 3, 'XX', NULL)`;
const CLASS = { source: "public.payments", kind: "money", money: [{ column: "amount", currency: "currency" }], occurredAt: "paid_on" };
const ROLES = ["viewer", "operator", "finance-preparer", "finance-approver", "admin"] as const;

interface Office extends AsyncDisposable {
  readonly mirror: TestMirror;
  /** Status and body of a request by a role. */
  ask(role: (typeof ROLES)[number], method: "GET" | "POST", path: string, body?: unknown, type?: string): Promise<{ readonly status: number; readonly body: any; readonly text: string; readonly type: string }>;
}

async function office(context: TestContext): Promise<Office> {
  const directory = await mkdtemp(join(tmpdir(), "dualrun-finance-"));
  const tokens = ROLES.map((role) => ({ role, ...createToken(`the ${role}`, role, 1) }));
  await writeFile(join(directory, "tokens.yaml"), JSON.stringify(tokens.map(({ entry }) => entry)));
  const pair = await orSkip(context, sharedPair());
  const mirror = await TestMirror.make(await pair.fresh("finance"), SCHEMA, FILL);
  await mirror.start({ timeZone: ZONE, comparison: { every: "31d" }, classes: [CLASS], bank: [{ class: "payments", column: "amount", tolerance: "0.05" }], http: { listen: "127.0.0.1:0", tokens: `file:${join(directory, "tokens.yaml")}` } });
  await mirror.streaming();
  await mirror.daemon.control.proof.compare(null, true);
  return {
    mirror,
    async ask(role, method, path, body, type = "application/json") {
      const token = tokens.find((one) => one.role === role)!.token;
      const response = await fetch(`${mirror.daemon.addresses.http}${path}`, {
        method, redirect: "manual", headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { "content-type": type }) },
        ...(body === undefined ? {} : { body: type === "application/json" ? JSON.stringify(body) : String(body) }),
      });
      const text = await response.text();
      return { status: response.status, text, type: response.headers.get("content-type") ?? "", body: text.startsWith("{") ? JSON.parse(text) : null };
    },
    async [Symbol.asyncDispose]() {
      await mirror[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function line({ document }: Report, currency: string | null): MoneyLine {
  return document.classes[0]!.money.find((one) => one.currency === currency)!;
}

describe("the daily report", () => {
  test("opening, movements and closing by currency; odd currencies and missing dates are shown", async (context) => {
    await using at = await office(context);
    const report = await at.mirror.daemon.control.finance.prepare(YESTERDAY, "ann");
    expect(line(report, "NZD")).toMatchObject({ opening: { source: "110.50", target: "110.50" }, movements: { source: "7.00", target: "7.00" }, closing: { source: "117.50", target: "117.50" }, difference: "0.00" });
    expect(line(report, null)).toMatchObject({ iso: false, closing: { target: "1.00" } });
    expect(line(report, "XX")).toMatchObject({ iso: false, closing: { source: "0" } });
    expect(report.document).toMatchObject({ date: YESTERDAY, version: 1, preparer: "ann", zone: ZONE, provisional: false, late: false, clean: true, previousHash: null });
    expect(report.document.classes[0]).toMatchObject({ records: { source: "6", target: "6" }, dated: { source: "3" }, undated: { source: "1" } });
    expect(await at.mirror.daemon.control.finance.prepare(TODAY, "ann")).toMatchObject({ document: { provisional: true, previousHash: report.hash } });
  });

  test("a backdated change is a movement of the next report and leaves the signed one alone", async (context) => {
    await using at = await office(context);
    const { finance, proof } = at.mirror.daemon.control;
    const first = await finance.prepare(BEFORE, "dualrun");
    await finance.signOff(BEFORE, { note: "agrees", onBehalfOf: null, hash: first.hash }, "bob");
    await at.mirror.apply(`UPDATE payments SET amount = amount + 1000 WHERE id = 1; INSERT INTO payments VALUES (9, 50, 'NZD', '${addDays(TODAY, -30)}')`);
    await proof.compare(null, true);
    const next = await finance.prepare(YESTERDAY, "dualrun");
    expect(line(next, "NZD")).toMatchObject({ opening: { target: "110.50" }, movements: { target: "7.00" }, backdated: { source: "1050.00", target: "1050.00" }, closing: { target: "1167.50" } });
    expect([first.document.late, next.document.late, next.document.cleanStreak]).toEqual([true, false, 0]);
    expect((await finance.report(BEFORE))!.hash).toBe(first.hash);
    await finance.signOff(YESTERDAY, { note: "agrees", onBehalfOf: "carol", hash: null }, "bob");
    expect(await finance.cleanStreak()).toBe(1);
  });

  test("is signed by somebody else, once, as it stands, when its day is over", async (context) => {
    await using at = await office(context);
    const { finance } = at.mirror.daemon.control;
    const sign = { note: "agrees", onBehalfOf: null, hash: null };
    await expect(finance.signOff(YESTERDAY, sign, "bob")).rejects.toMatchObject({ code: "DR7101" });
    const first = await finance.prepare(YESTERDAY, "ann");
    await expect(finance.signOff(YESTERDAY, sign, "ann")).rejects.toMatchObject({ code: "DR7102" });
    await finance.prepare(TODAY, "ann");
    await expect(finance.signOff(TODAY, sign, "bob")).rejects.toMatchObject({ code: "DR7102", message: expect.stringContaining("not over") });
    await finance.signOff(YESTERDAY, { ...sign, hash: first.hash }, "bob");
    await expect(finance.signOff(YESTERDAY, sign, "bob")).rejects.toMatchObject({ code: "DR7102" });
    const again = await finance.prepare(YESTERDAY, "ann");
    expect(again).toMatchObject({ document: { version: 2 }, signOff: null });
    await expect(finance.signOff(YESTERDAY, { ...sign, hash: first.hash }, "bob")).rejects.toMatchObject({ message: expect.stringContaining("made again") });
    expect(await finance.cleanStreak()).toBe(0);
  });

  test("a break makes it unclean", async (context) => {
    await using at = await office(context);
    await at.mirror.target.query("UPDATE payments SET amount = amount + 0.01 WHERE id = 3");
    await at.mirror.daemon.control.proof.compare(null, true);
    const report = await at.mirror.daemon.control.finance.prepare(YESTERDAY, "ann");
    expect(line(report, "NZD")).toMatchObject({ difference: "0.01" });
    expect(report.document).toMatchObject({ clean: false, breaks: [{ class: "payments", category: "mismatched", rows: 1, age: "under_1h" }] });
  });
});

describe("over HTTP", () => {
  test("roles: who may look, prepare, sign", async (context) => {
    await using at = await office(context);
    const path = `/api/v1/reports/${YESTERDAY}`;
    for (const role of ["viewer", "operator", "finance-approver"] as const) expect([role, (await at.ask(role, "POST", path)).status]).toEqual([role, 403]);
    expect((await at.ask("finance-preparer", "POST", path)).status).toBe(201);
    for (const role of ["viewer", "operator", "finance-preparer"] as const) expect([role, (await at.ask(role, "POST", `${path}/sign-off`, { note: "x" })).status]).toEqual([role, 403]);
    expect((await at.ask("finance-approver", "POST", `${path}/sign-off`, { note: "" })).status).toBe(400);
    expect((await at.ask("finance-approver", "POST", `${path}/sign-off`, { note: "agrees" })).body).toMatchObject({ signOff: { approver: "the finance-approver", note: "agrees" } });
    expect((await at.ask("viewer", "GET", "/api/v1/reports")).body).toMatchObject({ reports: [{ date: YESTERDAY, signedBy: "the finance-approver" }] });
    for (const [format, type, begins] of [["csv", "text/csv", "migration,test"], ["html", "text/html", "<!doctype html>"], ["pdf", "application/pdf", "%PDF-"], ["json", "application/json", "{"]] as const) {
      const answer = await at.ask("viewer", "GET", `${path}?format=${format}`);
      expect([answer.status, answer.type.startsWith(type), answer.text.startsWith(begins)], format).toEqual([200, true, true]);
    }
    expect((await at.ask("viewer", "GET", `/api/v1/reports/2026-02-30`)).body).toMatchObject({ status: 400, code: "DR1004" });
    expect((await at.ask("viewer", "GET", "/api/v1/reports/../status")).status).toBe(200);
    expect((await at.ask("viewer", "GET", "/api/v1/classes/payments/diff")).status).toBe(403);
  });

  test("the pages, for each role", async (context) => {
    await using at = await office(context);
    await at.mirror.daemon.control.finance.prepare(YESTERDAY, "ann");
    for (const role of ROLES) {
      for (const path of ["/", "/comparisons", "/comparisons/1", "/classes/payments", "/classes/payments?rows=1", "/breaks", "/reports", `/reports/${YESTERDAY}`]) {
        const { status, type } = await at.ask(role, "GET", path);
        expect([role, path, status, type]).toEqual([role, path, 200, "text/html; charset=utf-8"]);
      }
      const may = (await at.ask(role, "GET", `/reports/${YESTERDAY}`)).text.includes("Approve this report");
      expect([role, may]).toEqual([role, role === "finance-approver" || role === "admin"]);
    }
    const signed = await at.ask("finance-approver", "POST", `/reports/${YESTERDAY}/sign-off`, `note=agrees&hash=${(await at.mirror.daemon.control.finance.report(YESTERDAY))!.hash}`, "application/x-www-form-urlencoded");
    expect(signed.status).toBe(303);
    expect((await at.ask("viewer", "POST", "/comparisons", "full=true", "application/x-www-form-urlencoded")).status).toBe(403);
    expect((await fetch(`${at.mirror.daemon.addresses.http}/reports`)).status).toBe(401);
    expect((await fetch(`${at.mirror.daemon.addresses.http}/api/v1/reports`)).status).toBe(401);
  });

  test("the bank's totals stand as the third column; a bad statement changes nothing", async (context) => {
    await using at = await office(context);
    const send = (csv: string): Promise<{ readonly status: number; readonly body: any }> => at.ask("finance-preparer", "POST", "/api/v1/bank", csv, "text/csv");
    const bad = await send(`date,currency,amount\n${YESTERDAY},NZD,1.2.3\n2026-13-01,nzd,5\n${YESTERDAY},EUR,5\n${YESTERDAY},EUR,6\nshort\n`);
    expect(bad.status).toBe(400);
    expect(bad.body).toMatchObject({ code: "DR7103", details: [expect.stringMatching(/^line 2: the amount/), expect.stringMatching(/^line 3: the date/), expect.stringMatching(/^line 3: the currency/), expect.stringMatching(/^line 5: .* line 4 already/), expect.stringMatching(/^line 6: 1 cells/)] });
    expect((await send("")).status).toBe(400);
    expect((await at.ask("finance-preparer", "POST", "/api/v1/bank", "{}")).status).toBe(415);
    expect((await send(`date;currency;amount;account\n${YESTERDAY};NZD;4;"a;1"\n${YESTERDAY};NZD;2.97;b\n${YESTERDAY};EUR;5.06;a\n`)).body).toMatchObject({ lines: 3 });
    const report = await at.mirror.daemon.control.finance.prepare(YESTERDAY, "ann");
    expect(line(report, "NZD").bank).toMatchObject({ total: "6.97", difference: "0.03", within: true });
    expect(line(report, "EUR").bank).toMatchObject({ total: "5.06", difference: "-0.06", within: false });
    expect(line(report, null).bank).toBeNull();
  });

  test("who guesses tokens is made to wait; probes never are", async (context) => {
    await using at = await office(context);
    const address = at.mirror.daemon.addresses.http;
    const guesses = await Promise.all(Array.from({ length: 80 }, (_, i) => fetch(`${address}/login`, { method: "POST", redirect: "manual", headers: { "content-type": "application/x-www-form-urlencoded" }, body: `token=guess${i}` })));
    const refused = guesses.filter(({ status }) => status === 429);
    expect(refused.length).toBe(20);
    expect(Number(refused[0]!.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await refused[0]!.json()).toMatchObject({ code: "too-many-requests", status: 429 });
    expect((await fetch(`${address}/healthz`)).status).toBe(200);
  });
});
