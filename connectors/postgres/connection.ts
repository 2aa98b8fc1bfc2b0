/** Connections with a pinned session, so that every value has one text form wherever it is rendered. */
import type { TLSSocket } from "node:tls";
import pg from "pg";
import { DualrunError, type Endpoint } from "../../src/core/index.ts";

/** Settings that decide how PostgreSQL writes and reads values. */
const PINNED: Readonly<Record<string, string>> = {
  datestyle: "ISO,YMD",
  intervalstyle: "postgres",
  extra_float_digits: "3",
  bytea_output: "hex",
  timezone: "UTC",
  lc_monetary: "C",
  xmloption: "content",
  quote_all_identifiers: "off",
  statement_timeout: "0",
  idle_in_transaction_session_timeout: "0",
  row_security: "off",
  search_path: "pg_catalog",
};

export interface ConnectOptions {
  readonly application: string;
  readonly replication?: boolean;
  readonly settings?: Readonly<Record<string, string>>;
}

/** What `pg.Client` and the replication service take. */
export function clientConfig(endpoint: Endpoint, options: ConnectOptions): pg.ClientConfig {
  const settings = { ...PINNED, ...options.settings };
  return {
    connectionString: withoutTlsParameters(endpoint.url),
    ssl: tlsConfig(endpoint),
    application_name: options.application,
    client_encoding: "UTF8",
    options: Object.entries(settings).map(([name, value]) => `-c ${name}=${value.replace(/([\\ ])/g, "\\$1")}`).join(" "),
    keepAlive: true,
    connectionTimeoutMillis: 10_000,
    ...(options.replication === true ? { replication: "database" } : {}),
  } as pg.ClientConfig;
}

/** Connects or throws DR2001 naming the side; the address's credentials are never part of the message. */
export async function connect(endpoint: Endpoint, options: ConnectOptions): Promise<pg.Client> {
  const client = new pg.Client(clientConfig(endpoint, options));
  client.on("error", () => undefined); // a broken connection shows itself at the next query
  try {
    await client.connect();
    return client;
  } catch (error) {
    await client.end().catch(() => undefined);
    throw unreachable(endpoint, error);
  }
}

/** A few connections for short statements that may come at the same time. */
export async function connectPool(endpoint: Endpoint, options: ConnectOptions): Promise<pg.Pool> {
  const pool = new pg.Pool({ ...clientConfig(endpoint, options), max: 3, idleTimeoutMillis: 30_000 });
  pool.on("error", () => undefined); // a broken connection shows itself at the next query
  pool.on("connect", (client) => void client.on("error", () => undefined));
  try {
    await pool.query("SELECT 1");
    return pool;
  } catch (error) {
    await pool.end();
    throw unreachable(endpoint, error);
  }
}

/** Runs work on one connection of a pool. */
export async function withClient<T>(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken = true;
  try {
    const result = await work(client);
    broken = false;
    return result;
  } finally {
    client.release(broken);
  }
}

export function unreachable(endpoint: Endpoint, error: unknown): DualrunError {
  const message = error instanceof Error ? error.message || (error as { code?: string }).code || error.name : String(error);
  return new DualrunError("DR2001", `cannot connect to ${describe(endpoint)}: ${message}`, { cause: error });
}

/** When the certificate that the server shows expires; null when the connection is not encrypted. */
export async function certificateExpiry(endpoint: Endpoint, options: ConnectOptions): Promise<Date | null> {
  if (endpoint.tls.mode === "disable") return null;
  const client = await connect(endpoint, options);
  try {
    const { stream } = (client as unknown as { connection: { stream: Partial<TLSSocket> } }).connection;
    const until = stream.getPeerCertificate?.().valid_to;
    return until === undefined ? null : new Date(until);
  } finally {
    await client.end();
  }
}

/** `host:port/database`, without credentials. */
export function describe(endpoint: Endpoint): string {
  const url = new URL(endpoint.url);
  return `${url.hostname}:${url.port || "5432"}${url.pathname}`;
}

function withoutTlsParameters(address: string): string {
  const url = new URL(address);
  for (const name of ["sslmode", "sslcert", "sslkey", "sslrootcert", "uselibpqcompat"]) url.searchParams.delete(name);
  return url.toString();
}

function tlsConfig(endpoint: Endpoint): pg.ClientConfig["ssl"] {
  const { mode, ca } = endpoint.tls;
  const authority = ca === undefined ? {} : { ca };
  switch (mode) {
    case "disable": return false;
    case "require": return { ...authority, rejectUnauthorized: false };
    case "verify-ca": return { ...authority, rejectUnauthorized: true, checkServerIdentity: () => undefined };
    case "verify-full": return { ...authority, rejectUnauthorized: true };
  }
}

/** SQLSTATE of an error that the server sent, or null. */
export function sqlState(error: unknown): string | null {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : null;
}

/** Errors after which the same work can succeed: connection lost, server restarting, deadlock, timeouts, disk full, a session older than the pass for a freeze. */
export function isTransient(error: unknown): boolean {
  const state = sqlState(error);
  if (state === null) return !(error instanceof DualrunError) && isNetworkError(error);
  return /^(08|53|57P0|40|55P03|55006|57014|25006|58030|DR001)/.test(state);
}

function isNetworkError(error: unknown): boolean {
  const { code, message } = (error ?? {}) as { code?: string; message?: string };
  return /^(ECONN|EPIPE|ETIMEDOUT|EHOST|ENET|ENOTFOUND|EAI_)/.test(code ?? "") || /connection|timeout expired|not queryable/i.test(message ?? "");
}
