/** Errors as they leave over HTTP: application/problem+json (RFC 9457) with a stable code and a next step. */
import type { FastifyError } from "fastify";
import { ERRORS, isDualrunError, type DualrunError, type ErrorCode } from "../core/index.ts";

export const PROBLEM_TYPE = "application/problem+json; charset=utf-8";

export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly next: string;
  readonly where?: string;
  /** One line per fact or fault. */
  readonly details?: readonly string[];
}

interface HttpEntry {
  readonly status: number;
  readonly title: string;
  readonly next: string;
}

/** What can be wrong with a request itself; faults of the mirror have their DR codes. */
export const HTTP_ERRORS = {
  "bad-request": { status: 400, title: "The request is not valid", next: "/openapi.json says what is allowed." },
  "unauthorized": { status: 401, title: "A valid token is needed", next: "Send `Authorization: Bearer TOKEN` with a token from the file that http.tokens names." },
  "forbidden": { status: 403, title: "The token's role does not allow this", next: "Use a token with the role that is named." },
  "cross-site": { status: 403, title: "Requests from other sites are refused", next: "Use the page that this server shows, or a client that is no browser." },
  "not-found": { status: 404, title: "There is nothing here", next: "/openapi.json lists what there is." },
  "method-not-allowed": { status: 405, title: "This method is not allowed here", next: "Use one of the methods in the Allow header." },
  "timeout": { status: 408, title: "The request did not arrive in time", next: "Send it again, without a pause." },
  "too-large": { status: 413, title: "The request is too large", next: "Send less: bodies may have 64 KiB." },
  "too-long": { status: 414, title: "The address is too long", next: "/openapi.json lists what there is." },
  "unsupported-media-type": { status: 415, title: "This content type is not understood", next: "Send `Content-Type: application/json`." },
  "wrong-host": { status: 421, title: "This server does not answer to that host name", next: "Use the address that dualrun printed, for example http://localhost:7070; elsewhere, listen on another address and set http.tokens." },
  "too-many-requests": { status: 429, title: "Too many requests", next: "Wait as long as Retry-After says." },
  "headers-too-large": { status: 431, title: "The request's headers are too large", next: "Send fewer or smaller headers." },
  "not-ready": { status: 503, title: "Not ready", next: "Wait, or look at /api/v1/status." },
  "too-many-streams": { status: 503, title: "Too many clients follow the status", next: "Close some of them, or read /api/v1/status." },
} as const satisfies Record<string, HttpEntry>;

export type HttpErrorCode = keyof typeof HTTP_ERRORS;

/** Thrown in hooks and handlers to answer with a problem. */
export class HttpError extends Error {
  readonly code: HttpErrorCode;
  readonly details: readonly string[];
  readonly headers: Readonly<Record<string, string>>;

  constructor(code: HttpErrorCode, detail: string, options: { readonly details?: readonly string[]; readonly headers?: Readonly<Record<string, string>> } = {}) {
    super(detail);
    this.name = "HttpError";
    this.code = code;
    this.details = options.details ?? [];
    this.headers = options.headers ?? {};
  }
}

export function httpProblem(code: HttpErrorCode, detail: string, details: readonly string[] = []): Problem {
  const { status, title, next } = HTTP_ERRORS[code];
  return { type: `urn:dualrun:error:${code}`, title, status, code, detail, next, ...(details.length === 0 ? {} : { details }) };
}

/** Whatever was thrown while a request was answered. What nobody expected tells the client nothing but that. */
export function problemOf(error: unknown): Problem {
  if (error instanceof HttpError) return httpProblem(error.code, error.message, error.details);
  if (isDualrunError(error) && error.code !== "DR9001") return dualrunProblem(error);
  const status = (error as FastifyError | null)?.statusCode;
  if (error instanceof Error && status !== undefined && status >= 400 && status < 500) return requestProblem(error as FastifyError, status);
  const { title, next } = ERRORS.DR9001;
  return { type: "urn:dualrun:error:DR9001", title, status: 500, code: "DR9001", detail: "The request could not be answered; the log has the reason.", next };
}

/** What was asked for is wrong: 400; unreachable: 503; the server's own configuration: 500; everything else is a conflict with the state of the mirror. */
function statusOf(code: ErrorCode): number {
  if (code === "DR1004" || code === "DR7103") return 400;
  if (code.startsWith("DR1")) return 500;
  return code.startsWith("DR2") || code === "DR5008" ? 503 : 409;
}

function dualrunProblem(error: DualrunError): Problem {
  return {
    type: `urn:dualrun:error:${error.code}`, title: error.title, status: statusOf(error.code), code: error.code, detail: error.message, next: error.next,
    ...(error.where === null ? {} : { where: error.where }), ...(error.details.length === 0 ? {} : { details: error.details }),
  };
}

const CODE_OF_STATUS: Readonly<Record<number, HttpErrorCode>> = { 404: "not-found", 408: "timeout", 413: "too-large", 414: "too-long", 415: "unsupported-media-type", 431: "headers-too-large" };

function requestProblem(error: FastifyError, status: number): Problem {
  const code = CODE_OF_STATUS[status] ?? "bad-request";
  if (error.validation === undefined) return httpProblem(code, error.message);
  const faults = error.validation.map(({ instancePath, message }) => `${instancePath === "/" || instancePath === "" ? error.validationContext ?? "request" : instancePath.slice(1)}: ${message ?? "not valid"}`);
  return httpProblem(code, faults[0]!, faults);
}
