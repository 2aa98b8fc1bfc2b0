/** Comparisons, differing rows, repairs and breaks. */
import type { FastifyRequest } from "fastify";
import type { ComparisonDocument, ProofControl } from "../core/index.ts";
import { HttpError } from "./problem.ts";
import type { App } from "./app.ts";
import { PROBLEMS, classParams, noBody } from "./schemas.ts";
import {
  begunSchema, breakSchema, breaksQuery, breaksSchema, compareBody, comparisonSchema, comparisonsQuery, comparisonsSchema, diffQuery, diffSchema, idParams, repairBody, repairSchema,
  ownerBody, resolveBody, selfTestSchema,
} from "./proof-schemas.ts";

const VIEWER = { config: { access: "viewer" } } as const;
const OPERATOR = { config: { access: "operator" } } as const;

export function addProofApi(app: App, proof: ProofControl): void {
  addReading(app, proof);
  addActing(app, proof);
}

function addReading(app: App, proof: ProofControl): void {
  app.get("/api/v1/comparisons", { ...VIEWER, schema: { summary: "Comparisons, newest first; with `class` that class's figures", tags: ["proof"], querystring: comparisonsQuery, response: { 200: comparisonsSchema, ...PROBLEMS } } },
    async (request) => ({ comparisons: (await proof.comparisons({ className: request.query.class, from: request.query.from, limit: request.query.limit })).map((one) => withoutKeys(request, one)) }));

  app.get("/api/v1/comparisons/:id", { ...VIEWER, schema: { summary: "One comparison with all its classes", tags: ["proof"], params: idParams, response: { 200: comparisonSchema, ...PROBLEMS } } }, async (request) => {
    const found = await proof.comparison(request.params.id);
    if (found === null) throw new HttpError("not-found", `There is no comparison ${request.params.id}.`);
    return withoutKeys(request, found);
  });

  app.get("/api/v1/breaks", { ...VIEWER, schema: { summary: "Confirmed differences; with `open=false` those that are settled too", tags: ["proof"], querystring: breaksQuery, response: { 200: breaksSchema, ...PROBLEMS } } },
    async (request) => ({ breaks: await proof.breaks(request.query.open === "true") }));

  app.get("/api/v1/classes/:name/diff", { ...OPERATOR, schema: { summary: "The rows that differ now, sensitive values masked", tags: ["proof"], params: classParams, querystring: diffQuery, response: { 200: diffSchema, ...PROBLEMS } } },
    (request) => proof.diff(request.params.name, request.query.limit));
}

function addActing(app: App, proof: ProofControl): void {
  app.post("/api/v1/comparisons", { ...OPERATOR, schema: { summary: "Compare now", tags: ["proof"], body: compareBody, response: { 202: begunSchema, ...PROBLEMS } } }, async (request, reply) => {
    const { id } = await proof.begin(request.body?.class ?? null, request.body?.full ?? false);
    return reply.code(202).header("location", `/api/v1/comparisons/${id}`).send({ id });
  });

  app.post("/api/v1/repairs", { ...OPERATOR, schema: { summary: "The statements that mend the target, and with `apply` their execution", tags: ["proof"], body: repairBody, response: { 200: repairSchema, ...PROBLEMS } } },
    (request) => proof.repair(request.body.class, request.body.apply, actor(request)));

  app.post("/api/v1/selftest", { ...OPERATOR, schema: { summary: "Plant known errors on classes of our own; each must be found", tags: ["proof"], body: noBody, response: { 200: selfTestSchema, ...PROBLEMS } } }, () => proof.selfTest());

  app.post("/api/v1/breaks/:id/owner", { ...OPERATOR, schema: { summary: "Who takes care of a break", tags: ["proof"], params: idParams, body: ownerBody, response: { 200: breakSchema, ...PROBLEMS } } }, async (request) => {
    const owned = await proof.assignBreak(request.params.id, request.body.owner, actor(request));
    if (owned === null) throw new HttpError("not-found", `There is no open break ${request.params.id}.`);
    return owned;
  });

  app.post("/api/v1/breaks/:id/resolve", { ...OPERATOR, schema: { summary: "Settle a break, with the reason", tags: ["proof"], params: idParams, body: resolveBody, response: { 200: breakSchema, ...PROBLEMS } } }, async (request) => {
    const settled = await proof.resolveBreak(request.params.id, request.body.resolution, request.body.note, actor(request));
    if (settled === null) throw new HttpError("not-found", `There is no open break ${request.params.id}.`);
    return settled;
  });
}

/** Keys are data: who may only look sees their hashes. */
function withoutKeys({ principal }: Pick<FastifyRequest, "principal">, document: ComparisonDocument): ComparisonDocument {
  if (principal === null || principal.role === "operator" || principal.role === "admin") return document;
  return { ...document, classes: document.classes.map((result) => ({ ...result, rows: result.rows.map((row) => ({ ...row, key: [] })) })) };
}

function actor({ principal }: Pick<FastifyRequest, "principal">): string {
  return principal?.name ?? "local";
}
