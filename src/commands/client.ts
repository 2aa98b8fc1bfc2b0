/** Talks to a running daemon. */
import type { Config } from "../config/index.ts";
import { DualrunError, ERRORS, type ErrorCode } from "../core/index.ts";

/** Sends a request to the daemon that the configuration describes; DR2002 when there is none. */
export async function callDaemon<T>(config: Config, method: "GET" | "POST", path: string, body?: unknown): Promise<T> {
  const { host, port } = config.http.listen;
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  const address = `http://${reachable.includes(":") ? `[${reachable}]` : reachable}:${port}/api/v1${path}`;
  const token = process.env["DUALRUN_TOKEN"];
  const response = await request(address, {
    method,
    headers: { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }), ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(60_000),
  });
  const text = await response.text();
  if (!response.ok) throw problem(response.status, text);
  return (text === "" ? null : JSON.parse(text)) as T;
}

async function request(address: string, options: RequestInit): Promise<Response> {
  try {
    return await fetch(address, options);
  } catch (error) {
    throw new DualrunError("DR2002", `nothing answers at ${new URL(address).host}`, { cause: error });
  }
}

function problem(status: number, text: string): DualrunError {
  const { code, detail, next, title } = parse(text);
  const known = code !== undefined && code in ERRORS ? (code as ErrorCode) : "DR1004";
  return new DualrunError(known, detail ?? title ?? `the daemon answered with ${status}`, next === undefined ? {} : { next });
}

function parse(text: string): { code?: string; detail?: string; next?: string; title?: string } {
  try {
    return JSON.parse(text) as { code?: string };
  } catch {
    return { detail: text.slice(0, 200) };
  }
}
