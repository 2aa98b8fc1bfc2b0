/** The status page, its files, signing in and out. */
import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { loadAssets, type Asset } from "./assets.ts";
import { authenticate, tokenCookie, type Guard } from "./guard.ts";
import type { PageOptions } from "./frame.ts";
import { loginPage, statusPage } from "./pages.ts";
import { addProofPages } from "./proof-site.ts";
import { HttpError } from "./problem.ts";
import { PROBLEMS } from "./schemas.ts";
import { isExpired } from "./tokens.ts";
import type { App } from "./app.ts";
import type { Parts } from "./routes.ts";

const HTML = "text/html; charset=utf-8";
const LOGIN_BYTES = 4_096;
const SIGN_INS_PER_MINUTE = 60;
const hidden = { schema: { hide: true } } as const;

/** Answers with the page that asks for a token. */
type SignIn = (reply: FastifyReply, fault: string | null) => string;

export function addSite(app: App, { control, live }: Parts, guard: Guard): void {
  const assets = loadAssets();
  const options = (who: string | null): PageOptions => ({ who, asset: (name) => assets.get(name)!.address });
  const signIn: SignIn = (reply, fault) => {
    reply.code(401).header("www-authenticate", 'Bearer realm="dualrun"').type(HTML);
    return loginPage(options(null), fault);
  };

  const schema = { summary: "The status page", tags: ["pages"], response: { 200: { description: "For people.", content: { "text/html": { schema: z.string() } } }, ...PROBLEMS } };
  app.get("/", { config: { access: "open" }, schema }, (request, reply) => {
    const visitor = visitorOf(guard, request);
    if (visitor.fault !== null) return signIn(reply, visitor.came ? visitor.fault : null);
    reply.type(HTML);
    return statusPage(control.status(), control.proof.state(), live.history, options(visitor.who));
  });

  addProofPages(app, control, { options, enter: (request, reply) => {
    const visitor = visitorOf(guard, request);
    return visitor.fault === null ? { who: visitor.who } : { page: signIn(reply, visitor.came ? visitor.fault : null) };
  } });
  for (const asset of assets.values()) addAsset(app, asset);
  if (guard.tokens !== null) addSigningIn(app, guard, signIn);
}

interface Visitor {
  readonly who: string | null;
  /** Why the visitor is not let in. */
  readonly fault: string | null;
  /** Something that should have been a token was shown. */
  readonly came: boolean;
}

/** The page is open to the router, so that it can ask for a token; it asks here. */
function visitorOf(guard: Guard, request: FastifyRequest): Visitor {
  try {
    request.principal = authenticate(guard, request, "viewer");
    return { who: request.principal?.name ?? null, fault: null, came: true };
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    return { who: null, fault: error.message, came: request.headers.authorization !== undefined || request.headers.cookie?.includes(`${guard.cookie}=`) === true };
  }
}

function addAsset(app: App, { name, type, content, etag }: Asset): void {
  app.get(`/assets/${name}`, { ...hidden, config: { access: "open" } }, (request, reply) => {
    reply.headers({ etag, "cache-control": "no-cache" });
    if (request.headers["if-none-match"] === etag) return reply.code(304).send();
    return reply.type(type).send(content);
  });
}

function addSigningIn(app: App, { tokens, cookie }: Guard, signIn: SignIn): void {
  const secure = ({ headers }: FastifyRequest): boolean => headers.origin?.startsWith("https:") === true;

  app.register(async (scope) => {
    scope.addContentTypeParser("application/x-www-form-urlencoded", { parseAs: "string", bodyLimit: LOGIN_BYTES }, (_request, body, done) => done(null, Object.fromEntries(new URLSearchParams(String(body)))));
    scope.removeContentTypeParser("application/json");

    scope.post("/login", { ...hidden, config: { access: "open", rateLimit: { max: SIGN_INS_PER_MINUTE, timeWindow: 60_000 } }, bodyLimit: LOGIN_BYTES }, (request, reply) => {
      const token = (request.body as { readonly token?: string } | undefined)?.token?.trim() ?? "";
      const principal = tokens!.find(token);
      if (principal === null || isExpired(principal)) {
        request.log.warn({ from: request.ip }, "a sign-in was refused");
        return signIn(reply, principal === null ? "The token is not known." : "The token has expired.");
      }
      return reply.header("set-cookie", tokenCookie(cookie, token, { expires: principal.expires, secure: secure(request) })).redirect("/", 303);
    });

    scope.post("/logout", { ...hidden, config: { access: "open" } }, (request, reply) =>
      reply.header("set-cookie", tokenCookie(cookie, "", { expires: new Date(0), secure: secure(request) })).redirect("/", 303));
  });
}
