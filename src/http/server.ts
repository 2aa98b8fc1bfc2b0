/** The HTTP face of a running daemon. */
import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import rateLimit from "@fastify/rate-limit";
import swagger from "@fastify/swagger";
import Fastify, { type ConnectionError, type FastifyError, type FastifyReply, type FastifyRequest } from "fastify";
import { jsonSchemaTransform, jsonSchemaTransformObject, validatorCompiler, type ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { isLoopback } from "../config/index.ts";
import { DualrunError, isDualrunError, type DaemonControl } from "../core/index.ts";
import type { Logger, Metrics } from "../telemetry/index.ts";
import { LiveStatus } from "./events.ts";
import { SECURITY_HEADERS, addSecurityHeaders, authenticate, checkHost, checkOrigin, type Guard } from "./guard.ts";
import { HttpError, PROBLEM_TYPE, httpProblem, problemOf, type HttpErrorCode, type Problem } from "./problem.ts";
import type { App } from "./app.ts";
import { addApi, addProbes } from "./routes.ts";
import { PROBLEMS } from "./schemas.ts";
import { addSite } from "./site.ts";
import { openTokens, type TokenStore } from "./tokens.ts";

export interface HttpOptions {
  /** `host:port`; an IPv6 host in brackets; port 0 takes a free one. */
  readonly listen: string;
  readonly control: DaemonControl;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly version: string;
  /** Whether the daemon streams and holds the fence, and if not, why. */
  readonly ready: () => { readonly ok: boolean; readonly why: string };
  /** The tokens, or the path of their file. Without them only a loopback address may be listened on. */
  readonly tokens?: TokenStore | string | null;
}

export interface HttpServer {
  /** `http://host:port` */
  readonly address: string;
  close(): Promise<void>;
}

const BODY_BYTES = 64 << 10;
const REQUEST_MS = 30_000;
const REQUESTS_PER_MINUTE = 6_000;
const MOST_PARAM_CHARACTERS = 2_048;

/** Starts to listen. DR1001 when the address cannot be taken, or would be open to anybody; DR1001 and DR1002 for the token file. */
export async function startHttp(options: HttpOptions): Promise<HttpServer> {
  const { host, port } = parseListen(options.listen);
  const tokens = typeof options.tokens === "string" ? openTokens(options.tokens) : options.tokens ?? null;
  if (tokens === null && !isLoopback(host)) throw openToAnybody(options.listen);
  const live = new LiveStatus(options.control, options.logger);
  try {
    const app = await buildApp(options, live, { tokens, cookie: `dualrun-${options.control.status().migration}` }, isLoopback(host));
    const address = await listen(app, host, port, options.listen);
    return {
      address,
      async close() {
        live.close();
        await app.close();
      },
    };
  } catch (error) {
    live.close();
    throw error;
  }
}

async function buildApp(options: HttpOptions, live: LiveStatus, guard: Guard, loopback: boolean): Promise<App> {
  const app: App = Fastify({
    loggerInstance: options.logger, logController: new Fastify.LogController({ disableRequestLogging: true }), bodyLimit: BODY_BYTES, requestTimeout: REQUEST_MS, forceCloseConnections: true,
    routerOptions: { maxParamLength: MOST_PARAM_CHARACTERS }, requestIdHeader: false, clientErrorHandler: answerBrokenRequest, frameworkErrors: answerUnroutable,
  }).withTypeProvider<ZodTypeProvider>();
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(() => JSON.stringify);
  app.removeContentTypeParser("text/plain");
  addHooks(app, guard, loopback);
  app.setErrorHandler((error, request, reply) => answerError(error, request, reply));
  app.setNotFoundHandler((request) => {
    throw new HttpError("not-found", `There is no ${request.method} ${pathOf(request)}.`);
  });
  const routes = collectRoutes(app);
  await limitRates(app);
  await addOpenApi(app, options.version);
  const parts = { ...options, live };
  addProbes(app, parts);
  addApi(app, parts);
  addSite(app, parts, guard);
  app.get("/openapi.json", { schema: { summary: "This document", tags: ["pages"], response: { 200: z.looseObject({ openapi: z.string() }), ...PROBLEMS } } }, () => app.swagger() as unknown as { openapi: string });
  await app.after();
  refuseOtherMethods(app, routes);
  return app;
}

function addHooks(app: App, guard: Guard, loopback: boolean): void {
  app.decorateRequest("principal", null);
  app.addHook("onRequest", addSecurityHeaders);
  app.addHook("onRequest", async (request) => {
    if (loopback) checkHost(request);
    checkOrigin(request);
    request.principal = authenticate(guard, request);
  });
  app.addHook("onResponse", async (request, reply) => {
    const facts = { method: request.method, path: pathOf(request), status: reply.statusCode, ms: Math.round(reply.elapsedTime), by: request.principal?.name };
    if (request.method === "POST" && reply.statusCode < 400) request.log.info(facts, "request");
    else request.log.debug(facts, "request");
  });
}

/** Per address: far above what people and scrapers need. Guessing tokens is limited where it happens, see site.ts. */
async function limitRates(app: App): Promise<void> {
  await app.register(rateLimit, {
    max: REQUESTS_PER_MINUTE, timeWindow: 60_000, allowList: (request) => ["/healthz", "/readyz", "/metrics"].includes(pathOf(request)),
    errorResponseBuilder: (_request, { ttl }) => new HttpError("too-many-requests", "This address has sent too many requests.", { headers: { "retry-after": String(Math.ceil(ttl / 1000)) } }),
  });
}

/** Without the query, which may hold what should not be logged. */
function pathOf({ url }: FastifyRequest): string {
  return url.split("?", 1)[0]!;
}

// ------------------------------------------------------------ methods

/** Follows which methods each address gets. */
function collectRoutes(app: App): Map<string, Set<string>> {
  const routes = new Map<string, Set<string>>();
  app.addHook("onRoute", ({ url, method }) => {
    const methods = routes.get(url) ?? new Set();
    for (const each of [method].flat()) methods.add(each);
    routes.set(url, methods);
  });
  return routes;
}

/** 405 with what is allowed, for every other method of every address. */
function refuseOtherMethods(app: App, routes: ReadonlyMap<string, ReadonlySet<string>>): void {
  for (const [url, methods] of routes) {
    const allow = [...methods].toSorted().join(", ");
    const refuse = async (request: FastifyRequest): Promise<never> => {
      throw new HttpError("method-not-allowed", `${request.method} is not allowed here; ${allow} is.`, { headers: { allow } });
    };
    const others = app.supportedMethods.filter((method) => !methods.has(method));
    app.route({ url, method: others, exposeHeadRoute: false, config: { access: "open" }, schema: { hide: true }, onRequest: refuse, handler: refuse });
  }
}

// ------------------------------------------------------------ faults

function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const problem = problemOf(error);
  if (problem.status >= 500 && problem.code !== "not-ready") request.log.error({ err: error, method: request.method, path: pathOf(request) }, "a request could not be answered");
  if (error instanceof HttpError) reply.headers(error.headers);
  return sendProblem(reply, problem);
}

function sendProblem(reply: FastifyReply, problem: Problem): FastifyReply {
  return reply.code(problem.status).type(PROBLEM_TYPE).serializer(String).send(JSON.stringify(problem));
}

/** Addresses that the router cannot read: no hook has seen these requests. */
function answerUnroutable(error: FastifyError, _request: FastifyRequest, reply: FastifyReply): void {
  reply.headers(SECURITY_HEADERS);
  sendProblem(reply, problemOf(error));
}

const CODE_OF_CONNECTION: Readonly<Record<string, HttpErrorCode>> = { ERR_HTTP_REQUEST_TIMEOUT: "timeout", HPE_HEADER_OVERFLOW: "headers-too-large" };

/** What is no HTTP: there is a socket and nothing else. */
function answerBrokenRequest(error: ConnectionError, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const problem = httpProblem(CODE_OF_CONNECTION[error.code] ?? "bad-request", "The request could not be read.");
  const body = JSON.stringify(problem);
  socket.end(`HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\nConnection: close\r\nContent-Type: ${PROBLEM_TYPE}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

// ------------------------------------------------------------ OpenAPI

async function addOpenApi(app: App, version: string): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: { title: "dualrun", version, description: "State and operation of a running mirror. Faults come as application/problem+json with a stable `code` and a `next` step.", license: { name: "Apache-2.0", identifier: "Apache-2.0" } as { name: string } },
      servers: [{ url: "/" }],
      tags: [
        { name: "status", description: "What the daemon says of itself." },
        { name: "operation", description: "What may be asked of it." },
        { name: "proof", description: "Comparisons, differing rows, repairs, breaks." },
        { name: "finance", description: "Daily reports, sign-off, bank totals." },
        { name: "probes", description: "For orchestrators and Prometheus; no token is needed." },
        { name: "pages", description: "For people." },
      ],
      components: { securitySchemes: { token: { type: "http", scheme: "bearer", description: "Where http.tokens is configured: reading needs the role viewer, operation the role operator." } } },
      security: [{ token: [] }],
    },
    transform: jsonSchemaTransform,
    transformObject: withoutInputs,
  });
}

/** Named schemas are documents that go out; their twins for requests are used nowhere. */
function withoutInputs(document: Parameters<typeof jsonSchemaTransformObject>[0]): ReturnType<typeof jsonSchemaTransformObject> {
  const whole = jsonSchemaTransformObject(document) as { components: { schemas: Record<string, unknown> } };
  const schemas = Object.fromEntries(Object.entries(whole.components.schemas).filter(([name]) => !name.endsWith("Input")));
  return { ...whole, components: { ...whole.components, schemas } } as ReturnType<typeof jsonSchemaTransformObject>;
}

// ------------------------------------------------------------ listening

function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+)):(\d{1,5})$/i.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) throw new DualrunError("DR1001", `${JSON.stringify(text)} is no address: host:port, like 127.0.0.1:7070 or [::1]:7070`, { where: "http.listen" });
  return { host: (match[1] ?? match[2])!, port };
}

function openToAnybody(listen: string): DualrunError {
  return new DualrunError("DR1001", `${listen} can be reached from other machines, and no tokens are configured`, {
    where: "http.listen",
    details: ["Whoever reaches this address could pause the mirror."],
    next: "Set `http.tokens: file:tokens.yaml` (a list of name, role, sha256 of the token, expires), or listen on 127.0.0.1.",
  });
}

const REASONS: Readonly<Record<string, string>> = { EADDRINUSE: "is in use by another process", EACCES: "may not be used by this user", EADDRNOTAVAIL: "is no address of this machine", ENOTFOUND: "is no known host name" };

async function listen(app: App, host: string, port: number, text: string): Promise<string> {
  try {
    return await app.listen({ host, port, listenTextResolver: (address) => `listening on ${address}` });
  } catch (cause) {
    await app.close();
    if (isDualrunError(cause)) throw cause;
    const reason = REASONS[(cause as NodeJS.ErrnoException).code ?? ""];
    throw new DualrunError(reason === undefined ? "DR9001" : "DR1001", reason === undefined ? `cannot listen on ${text}` : `${text} ${reason}`, {
      where: "http.listen", cause, ...(reason === undefined ? {} : { next: "Choose another `http.listen`, or end what uses this one." }),
    });
  }
}
