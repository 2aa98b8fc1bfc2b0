/** Talks to a running daemon. */
import type { Config } from "../config/index.ts";
import { DualrunError, ERRORS, type ErrorCode } from "../core/index.ts";

const PATIENCE_MS = 60_000;

/** Sends a request to the daemon that the configuration describes; DR2002 when there is none, else the error that it answers with. */
export async function callDaemon<T>(config: Config, method: "GET" | "POST", path: string, body?: unknown): Promise<T> {
  return (await exchange(config, path, { method, ...(body === undefined ? {} : { body: JSON.stringify(body), type: "application/json" }) })).json as T;
}

/** The same with a body that is not JSON. */
export async function sendToDaemon<T>(config: Config, path: string, type: string, body: Buffer): Promise<T> {
  return (await exchange(config, path, { method: "POST", type, body })).json as T;
}

/** A document that is not JSON, as bytes. */
export async function fetchFromDaemon(config: Config, path: string): Promise<Buffer> {
  return (await exchange(config, path, { method: "GET" }, true)).bytes;
}

interface Outgoing {
  readonly method: "GET" | "POST";
  readonly type?: string;
  readonly body?: string | Buffer;
}

async function exchange(config: Config, path: string, { method, type, body }: Outgoing, anything = false): Promise<{ readonly json: unknown; readonly bytes: Buffer }> {
  const address = `http://${addressOf(config)}/api/v1${path}`;
  const token = process.env["DUALRUN_TOKEN"];
  const { ok, status, bytes } = await request(address, {
    method,
    headers: { accept: anything ? "*/*" : "application/json", ...(type === undefined ? {} : { "content-type": type }), ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
    ...(body === undefined ? {} : { body }),
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const json = anything && ok ? null : bytes.length === 0 ? null : parse(bytes.toString("utf8"));
  if (!ok) throw problem(status, json, address);
  if (json === undefined) throw stranger(address);
  return { json, bytes };
}

function addressOf({ http: { listen: { host, port } } }: Config): string {
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return `${reachable.includes(":") ? `[${reachable}]` : reachable}:${port}`;
}

async function request(address: string, options: RequestInit): Promise<{ ok: boolean; status: number; bytes: Buffer }> {
  try {
    const response = await fetch(address, options);
    return { ok: response.ok, status: response.status, bytes: Buffer.from(await response.arrayBuffer()) };
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
