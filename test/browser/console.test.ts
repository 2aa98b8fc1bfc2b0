/**
 * The console in a real Chromium: each page for each role, without and with scripts, and no serious finding of axe-core.
 *
 * DUALRUN_SCREENSHOTS=DIR   also writes the pictures that README.md shows
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test, type TestContext } from "vitest";
import { addDays, localDate } from "../../src/compare/index.ts";
import { createToken, type Role } from "../../src/http/index.ts";
import { TestMirror } from "../support/mirror.ts";
import { program } from "../support/programs.ts";
import { orSkip, sharedPair } from "../support/servers.ts";

const ROLES: readonly Role[] = ["viewer", "operator", "finance-preparer", "finance-approver", "admin"];
const ZONE = "Pacific/Auckland";
const YESTERDAY = addDays(localDate(ZONE, Date.now()), -1);
const PAGES = ["/", "/comparisons", "/comparisons/1", "/classes/invoices", "/classes/invoices?rows=1", "/breaks", "/reports", `/reports/${YESTERDAY}`, "/runbook"];
const SCHEMA = `
  CREATE TABLE invoices (id integer PRIMARY KEY, customer text, total numeric(12,2), currency char(3), issued_at timestamptz);
  CREATE TABLE payments (id integer PRIMARY KEY, amount numeric(12,2), currency char(3), paid_on date)`;
const FILL = `
  INSERT INTO invoices SELECT g, 'Customer ' || g, g * 1.25, (ARRAY['NZD','AUD','EUR'])[1 + g % 3], now() - (g % 20) * interval '9 hours' FROM generate_series(1, 5000) AS g;
  INSERT INTO payments SELECT g, g, (ARRAY['NZD','AUD','EUR'])[1 + g % 3], (now() AT TIME ZONE '${ZONE}')::date - g % 9 FROM generate_series(1, 3000) AS g`;
const CLASSES = [
  { source: "public.invoices", kind: "money", money: [{ column: "total", currency: "currency" }], occurredAt: "issued_at", sensitive: ["customer"] },
  { source: "public.payments", kind: "money", money: [{ column: "amount", currency: "currency" }], occurredAt: "paid_on" },
];

let browser: Browser | null = null;
let mirror: TestMirror | null = null;
let directory = "";
let reason: Promise<unknown> = Promise.resolve();
const tokens = new Map(ROLES.map((role) => [role, createToken(`the ${role}`, role, 1)]));

beforeAll(async () => {
  reason = furnish();
  await reason.catch(() => undefined); // each test says why it is skipped
}, 120_000);

afterAll(async () => {
  await browser?.close();
  await mirror?.[Symbol.asyncDispose]();
  if (directory !== "") await rm(directory, { recursive: true, force: true });
});

async function furnish(): Promise<void> {
  const executablePath = await program("chromium");
  const pair = await sharedPair();
  directory = await mkdtemp(join(tmpdir(), "dualrun-console-"));
  await writeFile(join(directory, "tokens.yaml"), JSON.stringify([...tokens.values()].map(({ entry }) => entry)));
  mirror = await TestMirror.make(await pair.fresh("console"), SCHEMA, FILL);
  await mirror.start({ migration: "billing-2026", timeZone: ZONE, comparison: { every: "31d" }, classes: CLASSES, http: { listen: "127.0.0.1:0", tokens: `file:${join(directory, "tokens.yaml")}` } });
  await mirror.streaming();
  const { proof, finance } = mirror.daemon.control;
  await proof.compare(null, true);
  await finance.prepare(YESTERDAY, "dualrun");
  await mirror.target.query("UPDATE invoices SET total = total + 0.01 WHERE id = 77; DELETE FROM invoices WHERE id = 78");
  await proof.compare(null, true);
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-quic", "--disable-gpu", "--disable-dev-shm-usage"] });
}

async function visitor(context: TestContext, role: Role, options: Parameters<Browser["newContext"]>[0] = {}): Promise<BrowserContext> {
  await orSkip(context, reason);
  const visit = await browser!.newContext({ baseURL: mirror!.daemon.addresses.http, viewport: { width: 1280, height: 900 }, ...options });
  const page = await visit.newPage();
  await page.goto("/");
  await page.getByLabel("Token").fill(tokens.get(role)!.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("navigation", { name: "Pages" }).waitFor();
  await page.close();
  return visit;
}

/** Findings that keep somebody out. */
async function seriousFindings(page: Page): Promise<string[]> {
  await page.evaluate(await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
  const { violations } = await page.evaluate(() => (globalThis as unknown as { axe: { run(): Promise<{ violations: { id: string; impact: string; nodes: { target: string[] }[] }[] }> } }).axe.run());
  return violations.filter(({ impact }) => impact === "serious" || impact === "critical").map(({ id, nodes }) => `${id}: ${nodes[0]!.target.join(" ")}`);
}

describe("the console", () => {
  test.for(ROLES)("every page, for the role %s, without scripts", { timeout: 60_000 }, async (role, context) => {
    const visit = await visitor(context, role, { javaScriptEnabled: false });
    const page = await visit.newPage();
    for (const path of PAGES) {
      const answer = await page.goto(path);
      expect([role, path, answer?.status()]).toEqual([role, path, 200]);
      expect(await page.getByRole("heading", { level: 1 }).textContent()).toContain("billing-2026");
    }
    await page.goto("/breaks");
    expect(await page.getByRole("button", { name: "Settle" }).count()).toBe(role === "operator" || role === "admin" ? 2 : 0);
    await page.goto("/comparisons");
    expect(await page.getByRole("button", { name: "Compare now" }).count()).toBe(role === "operator" || role === "admin" ? 1 : 0);
    await page.goto(`/reports/${YESTERDAY}`);
    expect(await page.getByRole("button", { name: "Approve this report" }).count()).toBe(role === "finance-approver" || role === "admin" ? 1 : 0);
    await visit.close();
  });

  test.for(["light", "dark"] as const)("no serious finding of axe-core, %s", { timeout: 60_000 }, async (colorScheme, context) => {
    const visit = await visitor(context, "admin", { colorScheme, bypassCSP: true });
    const page = await visit.newPage();
    for (const path of PAGES) {
      await page.goto(path);
      expect([path, await seriousFindings(page)]).toEqual([path, []]);
    }
    await visit.close();
  });

  test("nothing on a page breaks the content security policy, and the overview is live", { timeout: 60_000 }, async (context) => {
    const visit = await visitor(context, "operator");
    const page = await visit.newPage();
    const complaints: string[] = [];
    page.on("console", (message) => void (message.type() === "error" && complaints.push(message.text())));
    page.on("pageerror", (error) => void complaints.push(String(error)));
    for (const path of PAGES) await page.goto(path);
    await page.goto("/");
    await page.locator("#connection[data-state=live]").waitFor();
    await mirror!.source.query("INSERT INTO payments VALUES (99999, 1, 'NZD', now())");
    await page.getByRole("row", { name: /payments/ }).getByRole("cell", { name: "1", exact: true }).waitFor();
    expect(complaints).toEqual([]);
    await visit.close();
  });

  test("an operator compares and settles by keyboard alone", { timeout: 60_000 }, async (context) => {
    const visit = await visitor(context, "operator");
    const page = await visit.newPage();
    await page.goto("/comparisons");
    await page.getByRole("button", { name: "Compare now" }).focus();
    await page.keyboard.press("Enter");
    await page.waitForURL(/\/comparisons\/\d+$/);
    await page.goto("/breaks");
    const open = await page.getByRole("button", { name: "Settle" }).count();
    await page.getByLabel("Who takes care of it").first().fill("ann");
    await page.keyboard.press("Enter");
    await page.getByRole("cell", { name: /ann/ }).first().waitFor();
    await page.getByLabel("Why it is settled").first().focus();
    await page.keyboard.type("the old system rounds twice");
    await page.keyboard.press("Enter");
    await page.getByText("the old system rounds twice").waitFor();
    expect(await page.getByRole("button", { name: "Settle" }).count()).toBe(open - 1);
    await visit.close();
  });

  test("an approver signs the report that was looked at", { timeout: 60_000 }, async (context) => {
    const visit = await visitor(context, "finance-approver");
    const page = await visit.newPage();
    await page.goto(`/reports/${YESTERDAY}`);
    await page.getByLabel("Note").fill("agrees with the ledger");
    await page.getByRole("button", { name: "Approve this report" }).click();
    await page.getByText("signed by the finance-approver").waitFor();
    expect(await page.getByRole("button", { name: "Approve this report" }).count()).toBe(0);
    await visit.close();
  });

  test("pictures", { timeout: 60_000 }, async (context) => {
    const visit = await visitor(context, "admin", { deviceScaleFactor: 1.5 });
    const page = await visit.newPage();
    for (const [path, name] of [["/", "overview"], ["/comparisons", "comparisons"], ["/classes/invoices?rows=1", "class"], [`/reports/${YESTERDAY}`, "report"]] as const) {
      await page.goto(path);
      if (path === "/") await page.waitForTimeout(3_000);
      const picture = await page.screenshot({ path: join(process.env["DUALRUN_SCREENSHOTS"] ?? directory, `${name}.png`) });
      expect(picture.length).toBeGreaterThan(20_000);
    }
    await visit.close();
  });
});
