/** What every request passes before anything is done for it: headers, host, origin, token. */
import type { FastifyReply, FastifyRequest } from "fastify";
import { isLoopback } from "../config/index.ts";
import { HttpError } from "./problem.ts";
import { allows, isExpired, type Principal, type Role, type TokenStore } from "./tokens.ts";

/** Who may use a route; nothing said means `viewer`. */
export type Access = "open" | Role;

declare module "fastify" {
  interface FastifyContextConfig {
    readonly access?: Access;
  }
  interface FastifyRequest {
    /** Whose token came with the request; null where none is asked for. */
    principal: Principal | null;
  }
}

export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "cache-control": "no-store",
};

export function addSecurityHeaders(_request: FastifyRequest, reply: FastifyReply, done: () => void): void {
  reply.headers(SECURITY_HEADERS);
  done();
}

/** The host name of a Host header or an origin's host, without port and brackets; null when it is none. */
function hostName(host: string): string | null {
  return /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d{1,5})?$/i.exec(host)?.slice(1).find((part) => part !== undefined) ?? null;
}

/**
 * DNS rebinding makes a browser take another name for this server. On a loopback address only loopback names are
 * answered; elsewhere a token is needed, which the browser does not send under another name.
 */
export function checkHost(request: FastifyRequest): void {
  const { host } = request.headers;
  if (host === undefined) return; // HTTP/1.0, which no browser speaks
  if (!isLoopback(hostName(host) ?? "")) throw new HttpError("wrong-host", "This server listens on a loopback address and answers to loopback names only.");
}

/** A page of another site must not act through a user's browser. Clients that are no browsers send none of these headers. */
export function checkOrigin({ method, headers }: FastifyRequest): void {
  if (method === "GET" || method === "HEAD" || method === "OPTIONS") return;
  const site = headers["sec-fetch-site"];
  if (site !== undefined) {
    if (site !== "same-origin" && site !== "none") throw crossSite();
    return;
  }
  const { origin, host } = headers;
  if (origin !== undefined && originHost(origin) !== host?.toLowerCase()) throw crossSite();
}

function originHost(origin: string): string | null {
  return /^https?:\/\/([^/]+)$/i.exec(origin)?.[1]?.toLowerCase() ?? null;
}

function crossSite(): HttpError {
  return new HttpError("cross-site", "The request comes from a page of another site.");
}

export interface Guard {
  /** Name of the cookie that the login form sets. */
  readonly cookie: string;
  readonly tokens: TokenStore | null;
}

/** Who has sent the request; throws 401 or 403 when the route asks for more. */
export function authenticate({ tokens, cookie }: Guard, request: FastifyRequest, access = accessOf(request)): Principal | null {
  if (tokens === null || access === "open") return null;
  const token = tokenOf(request, cookie);
  if (token === null) throw unauthorized("No token came with the request.");
  const principal = tokens.find(token);
  if (principal === null) throw unauthorized("The token is not known.", "invalid_token");
  if (isExpired(principal)) throw unauthorized(`The token of ${principal.name} expired at ${principal.expires.toISOString()}.`, "invalid_token");
  if (!allows(principal.role, access)) throw new HttpError("forbidden", `This needs the role ${access}; ${principal.name} has the role ${principal.role}.`);
  return principal;
}

function accessOf(request: FastifyRequest): Access {
  return request.is404 ? "open" : request.routeOptions.config.access ?? "viewer";
}

function unauthorized(detail: string, error?: string): HttpError {
  return new HttpError("unauthorized", detail, { headers: { "www-authenticate": `Bearer realm="dualrun"${error === undefined ? "" : `, error="${error}"`}` } });
}

function tokenOf({ headers }: FastifyRequest, cookie: string): string | null {
  if (headers.authorization !== undefined) return /^bearer +(\S{1,512})$/i.exec(headers.authorization)?.[1] ?? null;
  return cookieOf(headers.cookie ?? "", cookie);
}

function cookieOf(header: string, name: string): string | null {
  const found = header.split(";").map((pair) => pair.trim()).find((pair) => pair.startsWith(`${name}=`));
  return found === undefined || found.length > 1024 ? null : Buffer.from(found.slice(name.length + 1), "base64url").toString();
}

/** The cookie that holds a token: not for scripts, not sent from other sites. `secure` where the browser came over HTTPS. */
export function tokenCookie(name: string, token: string, { expires, secure }: { readonly expires: Date; readonly secure: boolean }): string {
  return `${name}=${Buffer.from(token).toString("base64url")}; Path=/; HttpOnly; SameSite=Strict; Expires=${expires.toUTCString()}${secure ? "; Secure" : ""}`;
}
