/** Connections to MySQL and MariaDB with a pinned session, so that every value has one text form wherever it is rendered. */
import { isIP } from "node:net";
import { checkServerIdentity, getCACertificates, type ConnectionOptions, type PeerCertificate } from "node:tls";

import { createConnection, createPool, type Connection, type ConnectionConfig, type FieldInfo, type Pool, type PoolConnection } from "mariadb";

import { DualrunError, type Endpoint } from "../../src/core/index.ts";
import { quoteLiteral } from "./identifiers.ts";

/** Which of the two engines a server is; found out when connecting. */
export type Flavour = "mysql" | "mariadb";

/** The engine's own text, bytes for binary columns, or NULL; never a number, never a Date. */
export type Value = string | Buffer | null;

export type Row = Readonly<Record<string, Value>>;

export interface ConnectOptions {
  /** Shown by the server as the connection attribute `program_name`. */
  readonly application: string;
  /** Every transaction of the session is READ ONLY. */
  readonly readOnly?: boolean;
  /** Milliseconds after which the server ends a statement (MySQL: a SELECT); default: never. */
  readonly statementTimeout?: number;
  /** Further session variables by name. */
  readonly settings?: Readonly<Record<string, string | number>>;
}

/**
 * All of these concern what is written or how SQL is spelled. Left out on purpose, because they change what is *read*:
 * PAD_CHAR_TO_FULL_LENGTH (CHAR with blanks), NO_ZERO_DATE, NO_ZERO_IN_DATE and ALLOW_INVALID_DATES (functions and comparisons of such dates
 * become NULL or fail), TIME_TRUNCATE_FRACTIONAL and TIME_ROUND_FRACTIONAL (casts), NO_UNSIGNED_SUBTRACTION and REAL_AS_FLOAT (arithmetic, casts),
 * ANSI_QUOTES, EMPTY_STRING_IS_NULL and ORACLE (literals).
 */
const SQL_MODE = "STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION";

/** What decides how values are rendered, how much of a result is sent, and how long a session lives. */
const PINNED: Readonly<Record<string, string | number>> = {
  sql_mode: SQL_MODE,
  time_zone: "+00:00",
  group_concat_max_len: 1_073_741_824,
  autocommit: 1,
  completion_type: "NO_CHAIN",
  sql_auto_is_null: 0,
  sql_safe_updates: 0,
  sql_big_selects: 1,
  sql_quote_show_create: 1,
  wait_timeout: 28_800,
  net_read_timeout: 600,
  net_write_timeout: 600,
};

const PINNED_BY_FLAVOUR: Readonly<Record<Flavour, Readonly<Record<string, string | number>>>> = {
  mysql: {},
  mariadb: { idle_transaction_timeout: 0, idle_readonly_transaction_timeout: 0, idle_write_transaction_timeout: 0 },
};

/** DEFAULT would be the server's own setting. */
const NO_LIMIT = "18446744073709551615";

const DEFAULT_PORT = 3306;
const CONNECT_TIMEOUT_MS = 10_000;
const POOL_CONNECTIONS = 3;
/** What max_allowed_packet can be at most. */
const LARGEST_PACKET = 1_073_741_824;

/**
 * Connects, or throws DR2001; the address's credentials are never part of the message.
 * Only `query` and `queryStream` give values as {@link Value}; prepared statements would not.
 */
export async function connect(endpoint: Endpoint, options: ConnectOptions): Promise<Connection> {
  try {
    const connection = await createConnection(clientConfig(endpoint, options));
    connection.on("error", () => undefined); // a broken connection shows itself at the next query
    await pinSession(connection, options);
    return connection;
  } catch (error) {
    throw unreachable(endpoint, error);
  }
}

/** A few connections for short statements that may come at the same time. Throws DR2001. */
export async function connectPool(endpoint: Endpoint, options: ConnectOptions): Promise<Pool> {
  const probe = await connect(endpoint, options);
  const initSql = sessionStatements(flavourOf(probe), options);
  await probe.end();
  const config = { connectionLimit: POOL_CONNECTIONS, minimumIdle: 1, idleTimeout: 30, acquireTimeout: CONNECT_TIMEOUT_MS, resetAfterUse: false, noControlAfterUse: false };
  const pool = createPool({ ...clientConfig(endpoint, options), ...config, initSql });
  pool.on("error" as "release", () => undefined); // a broken connection shows itself at the next query
  return pool;
}

/** Runs work on one connection of a pool; one on which work failed is not used again. */
export async function withConnection<T>(pool: Pool, work: (connection: PoolConnection) => Promise<T>): Promise<T> {
  const connection = await pool.getConnection();
  try {
    const result = await work(connection);
    await connection.release();
    return result;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

/** The rows of one statement. */
export function query(connection: Connection | Pool, sql: string, values: readonly (string | Buffer | null)[] = []): Promise<Row[]> {
  return connection.query<Row[]>(sql, [...values]);
}

export function flavourOf(connection: Connection): Flavour {
  return connection.info?.isMariaDB() === true ? "mariadb" : "mysql";
}

/** What the `mariadb` package takes. */
export function clientConfig(endpoint: Endpoint, options: ConnectOptions): ConnectionConfig {
  const { host, port, user, password, database } = address(endpoint);
  const config: ConnectionConfig & { permitRedirect: boolean } = {
    host, port, user, password,
    ...(database === "" ? {} : { database }),
    ssl: tlsConfig(endpoint) as NonNullable<ConnectionConfig["ssl"]>,
    permitRedirect: false, // the server that is named, and no other
    allowPublicKeyRetrieval: endpoint.tls.mode === "disable" && isLoopback(host),
    connectAttributes: { program_name: options.application },
    charset: "utf8mb4",
    connectTimeout: CONNECT_TIMEOUT_MS,
    keepAliveDelay: 30_000,
    maxAllowedPacket: LARGEST_PACKET,
    multipleStatements: false,
    pipelining: false,
    typeCast: asText,
    logger: { warning: () => undefined },
  };
  return config;
}

/** Parts of an endpoint's address, decoded; `database` is '' where none is named. */
export function address(endpoint: Endpoint): { host: string; port: number; user: string; password: string; database: string } {
  const url = new URL(endpoint.url);
  return {
    host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
    port: url.port === "" ? DEFAULT_PORT : Number(url.port),
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    database: decodeURIComponent(url.pathname.slice(1)),
  };
}

/** `host:port/database`, without credentials. */
export function describe(endpoint: Endpoint): string {
  const url = new URL(endpoint.url);
  return `${url.hostname}:${url.port || DEFAULT_PORT}${url.pathname}`;
}

/** What a TLS socket to the endpoint's server takes; false: no TLS. */
export function tlsConfig(endpoint: Endpoint): ConnectionOptions | false {
  const { mode, ca } = endpoint.tls;
  const { host } = address(endpoint);
  const servername = isIP(host) === 0 ? { servername: host } : {};
  // The package accepts a self-signed certificate of MariaDB 11.4 and later when it is given no authority.
  const authority = { ca: ca === undefined ? getCACertificates("default") : [ca] };
  switch (mode) {
    case "disable": return false;
    case "require": return { ...servername, rejectUnauthorized: false };
    case "verify-ca": return { ...servername, ...authority, rejectUnauthorized: true, checkServerIdentity: () => undefined };
    case "verify-full": return { ...servername, ...authority, rejectUnauthorized: true, checkServerIdentity: (_, certificate) => checkServerIdentity(host, certificate) };
  }
}

/** When the certificate that the server shows expires; null when the connection is not encrypted. */
export async function certificateExpiry(endpoint: Endpoint, options: ConnectOptions): Promise<Date | null> {
  if (endpoint.tls.mode === "disable") return null;
  const connection = await connect(endpoint, options);
  try {
    const until = (connection.info as { tlsCert?: Partial<PeerCertificate> } | null)?.tlsCert?.valid_to;
    return until === undefined ? null : new Date(until);
  } finally {
    await connection.end();
  }
}

// ---------------------------------------------------------------- session

async function pinSession(connection: Connection, options: ConnectOptions): Promise<void> {
  try {
    for (const statement of sessionStatements(flavourOf(connection), options)) await connection.query(statement);
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

/** What every session begins with. */
export function sessionStatements(flavour: Flavour, options: ConnectOptions): string[] {
  const settings = { ...PINNED, ...PINNED_BY_FLAVOUR[flavour], ...statementTimeout(flavour, options.statementTimeout ?? 0), ...options.settings };
  return [
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    `SET ${Object.entries(settings).map(([name, value]) => `SESSION ${name} = ${typeof value === "number" ? value : quoteLiteral(value)}`).join(", ")}, SESSION sql_select_limit = ${NO_LIMIT}`,
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    `SET SESSION TRANSACTION READ ${options.readOnly === true ? "ONLY" : "WRITE"}`,
  ];
}

function statementTimeout(flavour: Flavour, milliseconds: number): Record<string, number> {
  return flavour === "mysql" ? { max_execution_time: milliseconds } : { max_statement_time: milliseconds / 1000 };
}

// ---------------------------------------------------------------- values

const BINARY_COLLATION = 63;
/** Column types that are bytes when their collation is `binary`; numbers and times have that collation too, and are text. */
const STRING_TYPES: ReadonlySet<number> = new Set([15, 249, 250, 251, 252, 253, 254]);
/** BIT, VECTOR, GEOMETRY. */
const BYTE_TYPES: ReadonlySet<number> = new Set([16, 242, 255]);

function asText(field: FieldInfo): Value {
  return isBinary(field) ? field.buffer() : field.string();
}

function isBinary({ columnType, collation, dataTypeName }: FieldInfo): boolean {
  if (BYTE_TYPES.has(columnType)) return true;
  return STRING_TYPES.has(columnType) && collation.index === BINARY_COLLATION && !/^(uuid|inet)/.test(dataTypeName ?? "");
}

// ---------------------------------------------------------------- errors

/** DR2001 for an endpoint that could not be connected to. */
export function unreachable(endpoint: Endpoint, error: unknown): DualrunError {
  const { sqlMessage, message, code } = error as { sqlMessage?: string | null; message?: string; code?: string };
  const next = NEXT[errorNumber(error) ?? 0];
  const what = `cannot connect to ${describe(endpoint)}: ${sqlMessage || message || code || String(error)}`;
  return new DualrunError("DR2001", what, { cause: error, ...(next === undefined ? {} : { next }) });
}

const NO_PUBLIC_KEY = 45_044;
const NO_TLS_ON_SERVER = 45_023;

const NEXT: Readonly<Record<number, string>> = {
  [NO_PUBLIC_KEY]: "Without TLS the password cannot be sent safely: set tls.mode to verify-full, verify-ca or require.",
  [NO_TLS_ON_SERVER]: "Switch TLS on at the server (ssl_cert, ssl_key), or set tls.mode to disable on a trusted network.",
};

/** The server's or the package's number of an error, or null. */
export function errorNumber(error: unknown): number | null {
  const number = (error as { errno?: unknown } | null)?.errno;
  return typeof number === "number" && number > 0 ? number : null;
}

/** By error number, from the servers' reference; 45xxx are the package's own. */
const TRANSIENT: ReadonlySet<number> = new Set([
  1021, 1037, 1038, 1041, 1114, 1135, // disk full, out of memory, table space or threads
  1040, 1203, 1226, // too many connections, limits of an account
  1042, 1043, 1047, 1053, 1077, 1078, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 3168, 3169, 4031, // network, shutdown, node not ready, session ended
  1205, 1206, 1213, 1412, 1613, 1614, 1637, 1689, 3058, 3101, 3572, // locks, deadlocks, a table changed under a snapshot
  1290, 1836, // read-only for now
  1317, 1969, 3024, // interrupted, statement timeouts
  2002, 2003, 2006, 2013, // client errors passed on
  45_001, 45_004, 45_009, 45_012, 45_013, 45_019, 45_026, 45_028, 45_039, 45_042, 45_061, // connection closed, lost, or not had in time
]);

/** Errors after which the same work can succeed: connection lost, server restarting, deadlock, timeouts, disk full. */
export function isTransient(error: unknown): boolean {
  if (error === null || typeof error !== "object" || error instanceof DualrunError) return false;
  const number = errorNumber(error);
  if (number !== null) return TRANSIENT.has(number);
  const { code } = error as { code?: unknown };
  return typeof code === "string" && /^(ECONN|EPIPE|ETIMEDOUT|EHOST|ENET|ENOTFOUND|EAI_)/.test(code);
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}
