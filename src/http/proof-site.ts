/** Addresses of the console's pages on proof and finance, and what their forms do. */
import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import type { DaemonControl } from "../core/index.ts";
import type { App } from "./app.ts";
import type { PageOptions } from "./frame.ts";
import { HttpError } from "./problem.ts";
import { breaksPage, classPage, comparisonPage, comparisonsPage } from "./proof-pages.ts";
import { reportPage, reportsPage } from "./report-page.ts";
import { runbookPage } from "./runbook-page.ts";
import { classParams } from "./schemas.ts";
import { idParams } from "./proof-schemas.ts";
import { allows, type Role } from "./tokens.ts";

const HTML = "text/html; charset=utf-8";
const FORM_BYTES = 8_192;
const ROWS_SHOWN = 50;
const HISTORY = 50;
const dateParams = z.object({ date: z.string().regex(/^\d{4}-\d{2}-\d{2}$/) });

interface Entrance {
  readonly options: (who: string | null) => PageOptions;
  /** Lets a visitor in, or answers with the page that asks for a token. */
  readonly enter: (request: FastifyRequest, reply: FastifyReply) => { readonly who: string | null } | { readonly page: string };
}

type Draw = (request: FastifyRequest, options: PageOptions, may: (role: Role) => boolean) => Promise<string>;

export function addProofPages(app: App, control: DaemonControl, entrance: Entrance): void {
  const { proof, finance } = control;
  const migration = (): string => control.status().migration;
  const show = (address: string, draw: Draw): void => void app.get(address, { config: { access: "open" }, schema: { hide: true } }, async (request, reply) => {
    const entered = entrance.enter(request, reply);
    if ("page" in entered) return entered.page;
    const page = await draw(request, entrance.options(entered.who), (role) => may(request, role));
    return reply.type(HTML).send(page);
  });

  show("/comparisons", async (_request, options, can) => comparisonsPage(migration(), proof.state(), await proof.comparisons({ limit: HISTORY }), can("operator"), options));
  show("/comparisons/:id", async (request, options) => {
    const { id } = idParams.parse(request.params);
    const found = await proof.comparison(id);
    if (found === null) throw new HttpError("not-found", `There is no comparison ${id}.`);
    return comparisonPage(migration(), found, options);
  });
  show("/classes/:name", async (request, options, can) => {
    const { name } = classParams.parse(request.params);
    const result = proof.state().classes.find((one) => one.class === name);
    if (result === undefined) throw new HttpError("not-found", `Class ${JSON.stringify(name)} was not compared yet.`);
    const wanted = can("operator") && (request.query as { readonly rows?: string }).rows === "1";
    return classPage(migration(), result, await proof.comparisons({ className: name, limit: HISTORY }), wanted ? await proof.diff(name, ROWS_SHOWN) : null, can("operator"), options);
  });
  show("/breaks", async (_request, options, can) => breaksPage(migration(), await proof.breaks(false), can("operator"), options));
  show("/reports", async (_request, options, can) => reportsPage(migration(), await finance.reports(), await finance.cleanStreak(), can("finance-preparer"), options));
  show("/reports/:date", async (request, options, can) => {
    const { date } = dateParams.parse(request.params);
    const report = await finance.report(date);
    if (report === null) throw new HttpError("not-found", `There is no report for ${date}.`);
    return reportPage(report, { ...options, maySign: can("finance-approver") && request.principal !== null });
  });
  show("/runbook", async (_request, options) => runbookPage(migration(), options));
  void app.register(async (scope) => addForms(scope as unknown as App, control));
}

function addForms(scope: App, { proof, finance }: DaemonControl): void {
  scope.addContentTypeParser("application/x-www-form-urlencoded", { parseAs: "string", bodyLimit: FORM_BYTES }, (_request, body, done) => done(null, Object.fromEntries(new URLSearchParams(String(body)))));
  scope.removeContentTypeParser("application/json");
  const form = (address: string, access: Role, act: (request: FastifyRequest, fields: Readonly<Record<string, string>>) => Promise<string>): void =>
    void scope.post(address, { config: { access }, schema: { hide: true }, bodyLimit: FORM_BYTES }, async (request, reply) => reply.redirect(await act(request, (request.body ?? {}) as Record<string, string>), 303));

  form("/comparisons", "operator", async (_request, fields) => `/comparisons/${(await proof.begin(null, fields["full"] === "true")).id}`);
  form("/breaks/:id/owner", "operator", async (request, fields) => {
    if ((await proof.assignBreak(idParams.parse(request.params).id, required(fields, "owner"), actor(request))) === null) throw new HttpError("not-found", "There is no such open break.");
    return "/breaks";
  });
  form("/breaks/:id/resolve", "operator", async (request, fields) => {
    const note = required(fields, "note");
    if ((await proof.resolveBreak(idParams.parse(request.params).id, "explained", note, actor(request))) === null) throw new HttpError("not-found", "There is no such open break.");
    return "/breaks";
  });
  form("/reports", "finance-preparer", async (request, fields) => {
    const { document } = await finance.prepare(required(fields, "date"), actor(request));
    return `/reports/${document.date}`;
  });
  form("/reports/:date/sign-off", "finance-approver", async (request, fields) => {
    if (request.principal === null) throw new HttpError("forbidden", "A report is signed by a named person: configure http.tokens.");
    const { date } = dateParams.parse(request.params);
    await finance.signOff(date, { note: required(fields, "note"), onBehalfOf: fields["onBehalfOf"]?.trim() || null, hash: required(fields, "hash") }, request.principal.name);
    return `/reports/${date}`;
  });
}

function required(fields: Readonly<Record<string, string>>, name: string): string {
  const value = fields[name]?.trim() ?? "";
  if (value === "" || value.length > 2_000) throw new HttpError("bad-request", `"${name}" is needed, at most 2000 characters.`);
  return value;
}

/** Without tokens everybody who reaches this loopback address may do everything. */
function may({ principal }: FastifyRequest, role: Role): boolean {
  return principal === null || allows(principal.role, role);
}

function actor({ principal }: FastifyRequest): string {
  return principal?.name ?? "local";
}
