/** Probes, metrics and API. */
import type { FastifyRequest } from "fastify";
import { z } from "zod";
import type { DaemonControl } from "../core/index.ts";
import type { Metrics } from "../telemetry/index.ts";
import type { App } from "./app.ts";
import type { LiveStatus } from "./events.ts";
import { HttpError } from "./problem.ts";
import { addProofApi } from "./proof-routes.ts";
import { addReportApi } from "./report-routes.ts";
import { PROBLEMS, auditSchema, auditVerificationSchema, classParams, classesSchema, eventsQuery, noBody, noteBody, okSchema, statusSchema } from "./schemas.ts";

export interface Parts {
  readonly control: DaemonControl;
  readonly metrics: Metrics;
  readonly live: LiveStatus;
  readonly ready: () => { readonly ok: boolean; readonly why: string };
}

const OPEN = { config: { access: "open" } } as const;
const VIEWER = { config: { access: "viewer" } } as const;
const OPERATOR = { config: { access: "operator" } } as const;

const text = (type: string, description: string) => ({ 200: { description, content: { [type]: { schema: z.string() } } }, ...PROBLEMS });

export function addProbes(app: App, { control, metrics, ready }: Parts): void {
  app.get("/healthz", { ...OPEN, schema: { summary: "The process is alive", tags: ["probes"], security: [], response: { 200: okSchema, ...PROBLEMS } } }, () => ({ ok: true as const }));

  app.get("/readyz", { ...OPEN, schema: { summary: "Streaming and fenced in; 503 with the reason until then", tags: ["probes"], security: [], response: { 200: okSchema, ...PROBLEMS } } }, () => {
    const { ok, why } = ready();
    if (!ok) throw new HttpError("not-ready", why);
    return { ok: true as const };
  });

  app.get("/metrics", { ...OPEN, schema: { summary: "Prometheus metrics", tags: ["probes"], security: [], response: text("text/plain", "The text exposition format.") } }, async (_request, reply) => {
    metrics.observe(control.status());
    metrics.proof.observe(control.proof.state());
    return reply.type(metrics.contentType).send(await metrics.text());
  });
}

export function addApi(app: App, parts: Parts): void {
  addReading(app, parts);
  addActing(app, parts);
  addProofApi(app, parts.control.proof);
  addReportApi(app, parts.control.finance);
}

function addReading(app: App, { control, live }: Parts): void {
  app.get("/api/v1/status", { ...VIEWER, schema: { summary: "Phase, state, lag, progress", tags: ["status"], response: { 200: statusSchema, ...PROBLEMS } } }, () => control.status());

  app.get("/api/v1/classes", { ...VIEWER, schema: { summary: "Progress by class", tags: ["status"], response: { 200: classesSchema, ...PROBLEMS } } }, () => ({ classes: control.status().classes }));

  app.get("/api/v1/audit", { ...VIEWER, schema: { summary: "The audit trail", tags: ["status"], response: { 200: auditSchema, ...PROBLEMS } } }, async () => ({ entries: await control.audit() }));

  app.get("/api/v1/audit/verification", { ...VIEWER, schema: { summary: "Whether the audit trail is whole", tags: ["status"], response: { 200: auditVerificationSchema, ...PROBLEMS } } }, () => control.verifyAudit());

  app.get("/api/v1/events", {
    ...VIEWER, exposeHeadRoute: false,
    schema: { summary: "The status document each second, as server-sent events named `status`", tags: ["status"], querystring: eventsQuery, response: text("text/event-stream", "Events without end.") },
  }, (request, reply) => {
    live.follow(reply.raw, request.principal, request.query.view === "page");
    reply.hijack();
  });
}

function addActing(app: App, { control }: Parts): void {
  const acting = (summary: string) => ({ summary, tags: ["operation"], body: noBody, response: { 200: statusSchema, ...PROBLEMS } });

  app.post("/api/v1/pause", { ...OPERATOR, schema: acting("Stop applying at a transaction's end; the stream and its slot are kept") }, async (request) => {
    await control.pause(actor(request));
    return control.status();
  });

  app.post("/api/v1/resume", { ...OPERATOR, schema: acting("Go on applying") }, async (request) => {
    await control.resume(actor(request));
    return control.status();
  });

  app.post("/api/v1/schema/accept", { ...OPERATOR, schema: { ...acting("Take the present layout as the known one, after a schema change was dealt with on both sides"), body: noteBody } }, async (request) => {
    await control.acceptSchema(request.body.note, actor(request));
    return control.status();
  });

  app.post("/api/v1/classes/:name/resnapshot", { ...OPERATOR, schema: { ...acting("Copy one class again under the running mirror"), params: classParams } }, async (request) => {
    const { name } = request.params;
    if (!control.status().classes.some((cls) => cls.name === name)) throw new HttpError("not-found", `There is no class ${JSON.stringify(name)}.`);
    await control.resnapshot(name, actor(request));
    return control.status();
  });
}

/** Who acts, for the audit trail. */
function actor({ principal }: Pick<FastifyRequest, "principal">): string {
  return principal?.name ?? "local";
}
