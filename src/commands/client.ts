/** Talks to a running daemon. */
import type { Config } from "../config/index.ts";
import { DualrunError, ERRORS, type ErrorCode } from "../core/index.ts";

const PATIENCE_MS = 60_000;

/** Sends a request to the daemon that the configuration describes; DR2002 when there is none, else the error that it answers with. */
export async function callDaemon<T>(config: Config, method: "GET" | "POST", path: string, body?: unknown): Promise<T> {
  const address = `http://${addressOf(config)}/api/v1${path}`;
  const token = process.env["DUALRUN_TOKEN"];
  const { ok, status, text } = await request(address, {
    method,
    headers: { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }), ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const answer = text === "" ? null : parse(text);
  if (!ok) throw problem(status, answer, address);
  if (answer === undefined) throw stranger(address);
  return answer as T;
}

function addressOf({ http: { listen: { host, port } } }: Config): string {
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return `${reachable.includes(":") ? `[${reachable}]` : reachable}:${port}`;
}

async function request(address: string, options: RequestInit): Promise<{ ok: boolean; status: number; text: string }> {
  try {
    const response = await fetch(address, options);
    return { ok: response.ok, status: response.status, text: await response.text() };
  } catch (error) {
    const late = error instanceof DOMException && error.name === "TimeoutError";
    throw new DualrunError("DR2002", `${late ? `no answer within ${PATIENCE_MS / 1000} s from` : "nothing answers at"} ${new URL(address).host}`, { cause: error });
  }
}

/** undefined: not JSON. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function stranger(address: string): DualrunError {
  return new DualrunError("DR2002", `something else than dualrun answers at ${new URL(address).host}`);
}

interface ProblemDocument {
  readonly code?: string;
  readonly title?: string;
  readonly detail?: string;
  readonly next?: string;
  readonly where?: string;
  readonly details?: readonly string[];
}

/** The error that a problem document names; what concerns the request itself (token, host, path) has no code of ours. */
function problem(status: number, answer: unknown, address: string): DualrunError {
  const { code, title, detail, next, where, details } = (answer ?? {}) as ProblemDocument;
  if (code === undefined) return stranger(address);
  const known = code in ERRORS ? (code as ErrorCode) : status >= 500 ? "DR2002" : "DR1004";
  return new DualrunError(known, detail ?? title ?? `the daemon answered with ${status}`, {
    ...(next === undefined ? {} : { next }), ...(where === undefined ? {} : { where }), ...(details === undefined ? {} : { details }),
  });
}
