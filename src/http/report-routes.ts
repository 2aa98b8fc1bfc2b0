/** Daily reports, their approval, and the bank's statements. */
import type { FastifyRequest } from "fastify";
import { z } from "zod";
import { VERDICTS, type FinanceControl, type Report, type ReportHead } from "../core/index.ts";
import { reportCsv, reportPdf } from "../report/index.ts";
import type { App } from "./app.ts";
import { HttpError } from "./problem.ts";
import { reportPage } from "./report-page.ts";
import { PROBLEMS } from "./schemas.ts";

const VIEWER = { config: { access: "viewer" } } as const;
const PREPARER = { config: { access: "finance-preparer" } } as const;
const APPROVER = { config: { access: "finance-approver" } } as const;
const STATEMENT_BYTES = 8 << 20;

const dateParams = z.object({ date: z.string().regex(/^\d{4}-\d{2}-\d{2}$/, "a date like 2026-11-21") });
const formatQuery = z.strictObject({ format: z.enum(["json", "csv", "html", "pdf"]).default("json") });
const signBody = z.strictObject({
  note: z.string().trim().min(1, "a note is needed").max(2_000),
  onBehalfOf: z.string().trim().min(1).max(200).nullable().default(null).describe("For whom the approver stands in."),
  hash: z.string().regex(/^[0-9a-f]{64}$/).nullable().default(null).describe("The hash that was looked at: a report that was made again since is not signed."),
});

const head: z.ZodType<ReportHead> = z.looseObject({
  date: z.string(), version: z.number().int(), createdAt: z.string(), hash: z.string(), clean: z.boolean(), late: z.boolean(), provisional: z.boolean(), signedBy: z.string().nullable(),
}).meta({ id: "ReportHead" });
const pair = z.looseObject({ source: z.string(), target: z.string() });
const reportSchema = z.looseObject({
  hash: z.string().describe("SHA-256 of the document's text."),
  signOff: z.looseObject({ approver: z.string(), onBehalfOf: z.string().nullable(), note: z.string(), at: z.string() }).nullable(),
  document: z.looseObject({
    date: z.string(), version: z.number().int(), preparer: z.string(), clean: z.boolean(), late: z.boolean(), provisional: z.boolean(), cleanStreak: z.number().int(), previousHash: z.string().nullable(),
    classes: z.array(z.looseObject({
      class: z.string(), verdict: z.enum(VERDICTS), records: pair, difference: z.string(),
      money: z.array(z.looseObject({ column: z.string(), currency: z.string().nullable(), opening: pair, movements: pair, backdated: pair, closing: pair, difference: z.string() })),
    })),
  }),
}).meta({ id: "Report" }) as unknown as z.ZodType<Report>;

export function addReportApi(app: App, finance: FinanceControl): void {
  app.get("/api/v1/reports", { ...VIEWER, schema: { summary: "The latest version of every daily report", tags: ["finance"], response: { 200: z.looseObject({ reports: z.array(head) }), ...PROBLEMS } } },
    async () => ({ reports: [...(await finance.reports())] }));

  app.get("/api/v1/reports/:date", { ...VIEWER, schema: { summary: "A daily report, as JSON, CSV, a page or PDF", tags: ["finance"], params: dateParams, querystring: formatQuery, response: { 200: reportSchema, ...PROBLEMS } } }, async (request, reply) => {
    const report = await finance.report(request.params.date);
    if (report === null) throw new HttpError("not-found", `There is no report for ${request.params.date}.`);
    const { format } = request.query;
    if (format === "json") return report;
    const name = `reconciliation-${report.document.date}-v${report.document.version}.${format}`;
    const disposition = `${format === "html" ? "inline" : "attachment"}; filename="${name}"`;
    reply.header("content-disposition", disposition).type({ csv: "text/csv; charset=utf-8", html: "text/html; charset=utf-8", pdf: "application/pdf" }[format]);
    return reply.send((format === "pdf" ? await reportPdf(report) : format === "csv" ? reportCsv(report) : reportPage(report, null)) as never);
  });

  app.post("/api/v1/reports/:date", { ...PREPARER, schema: { summary: "Prepare the report of a business date; a new version if there is one", tags: ["finance"], params: dateParams, response: { 201: reportSchema, ...PROBLEMS } } },
    async (request, reply) => reply.code(201).send(await finance.prepare(request.params.date, actor(request))));

  app.post("/api/v1/reports/:date/sign-off", { ...APPROVER, schema: { summary: "Approve a report", tags: ["finance"], params: dateParams, body: signBody, response: { 200: reportSchema, ...PROBLEMS } } },
    (request) => finance.signOff(request.params.date, request.body, named(request)));

  addStatements(app, finance);
}

function addStatements(app: App, finance: FinanceControl): void {
  void app.register(async (scope) => {
    scope.addContentTypeParser("text/csv", { parseAs: "buffer", bodyLimit: STATEMENT_BYTES }, (_request, body, done) => done(null, body));
    scope.post("/api/v1/bank", {
      ...PREPARER, bodyLimit: STATEMENT_BYTES,
      schema: { summary: "Import the bank's daily totals: CSV with date, currency, amount and, optionally, account", tags: ["finance"], response: { 200: z.looseObject({ lines: z.number().int(), dates: z.array(z.string()) }), ...PROBLEMS } },
    }, async (request) => {
      if (!Buffer.isBuffer(request.body)) throw new HttpError("unsupported-media-type", "Send the statement as text/csv.");
      const { lines, dates } = await finance.importBank(request.body.toString("utf8"), actor(request));
      return { lines, dates: [...dates] };
    });
  });
}

function actor({ principal }: Pick<FastifyRequest, "principal">): string {
  return principal?.name ?? "local";
}

/** A signature is somebody's: without tokens nobody is known by name. */
function named({ principal }: Pick<FastifyRequest, "principal">): string {
  if (principal === null) throw new HttpError("forbidden", "A report is signed by a named person: configure http.tokens and sign with a token of the role finance-approver.");
  return principal.name;
}
