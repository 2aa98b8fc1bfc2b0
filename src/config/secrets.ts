/** What a configuration keeps elsewhere: `env:NAME` and `file:PATH`. No value of a secret is ever part of a fault. */
import { readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { foundText, valueAt, type Fault, type Path } from "./faults.ts";
import { FILE_REFERENCE, REFERENCE, isLoopback } from "./values.ts";

export interface Surroundings {
  /** The configuration file's directory: `file:` paths are relative to it. */
  readonly directory: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

export type Resolved = { readonly value: string } | { readonly fault: Fault };

const MAX_SECRET_BYTES = 1 << 20;

/** The value behind a reference; text that is no reference is its own value. */
export function resolveSecret(path: Path, text: string, around: Surroundings): Resolved {
  if (!REFERENCE.test(text)) return { value: text };
  return text.startsWith("env:") ? fromEnvironment(path, text, around) : fromFile(path, text, around);
}

function fromEnvironment(path: Path, text: string, { env }: Surroundings): Resolved {
  const name = text.slice("env:".length);
  const value = Object.hasOwn(env, name) ? env[name] : undefined;
  if (value !== undefined && value !== "") return { value };
  const found = `${text}, but ${name} is ${value === "" ? "empty" : "not set"}`;
  return { fault: { code: "DR1003", path, found, allowed: "the name of an environment variable that is set" } };
}

function fromFile(path: Path, text: string, { directory }: Surroundings): Resolved {
  const file = resolve(directory, text.slice("file:".length));
  const fault = (reason: string): Resolved => ({ fault: { code: "DR1003", path, found: `${text}, but ${file} ${reason}`, allowed: "a readable file, relative to the configuration" } });
  try {
    const facts = statSync(file);
    if (!facts.isFile()) return fault("is no ordinary file");
    if (facts.size > MAX_SECRET_BYTES) return fault("is larger than 1 MiB");
    const value = readFileSync(file, "utf8").replace(/\r?\n$/, "");
    return value === "" ? fault("is empty") : { value };
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? String(error);
    return fault(reason === "ENOENT" ? "does not exist" : reason === "EACCES" ? "may not be read" : `cannot be read (${reason})`);
  }
}

/** Parameters of an address that only concern TLS, which `tls` decides. */
const TLS_PARAMETERS = new Set(["sslmode", "sslcert", "sslkey", "sslrootcert", "uselibpqcompat"]);
const PROTOCOLS: Readonly<Record<string, readonly string[]>> = { postgres: ["postgres:", "postgresql:"], mysql: ["mysql:"], mariadb: ["mysql:", "mariadb:"] };

/** Faults of a database's address, after it was resolved. `given` is what stands in the configuration. */
export function databaseUrlFaults(path: Path, given: string, address: string, engine: unknown): Fault[] {
  const inline = given === address;
  const source = inline ? "an address" : `${given}, whose value is an address`;
  const fault = (what: string, allowed: string): Fault => ({ code: "DR1001", path, found: `${source} ${what}`, allowed });
  const url = URL.canParse(address) ? new URL(address) : null;
  const protocols = PROTOCOLS[String(engine)] ?? Object.values(PROTOCOLS).flat();
  if (url === null || !protocols.includes(url.protocol)) return [fault("of another form", `${protocols[0]}//user@host:port/database, env:NAME or file:PATH`)];
  const faults: Fault[] = [];
  if (url.hostname === "") faults.push(fault("without a host", `${url.protocol}//user@host:port/database`));
  if (url.pathname.length < 2) faults.push(fault("without a database", `${url.protocol}//user@host:port/database`));
  if (inline && url.password !== "" && !isLoopback(url.hostname)) faults.push(fault("with a password in it", "env:NAME or file:PATH, so that the password stands elsewhere (inline only for a loopback host)"));
  for (const name of new Set(url.searchParams.keys())) {
    if (!TLS_PARAMETERS.has(name)) faults.push(fault(`with the parameter ${JSON.stringify(name)}`, "an address without parameters; dualrun sets its sessions up itself"));
  }
  return faults;
}

/** TLS parameters that an address carries: they have no effect. */
export function tlsParameters(address: string): string[] {
  return [...new Set(new URL(address).searchParams.keys())].filter((name) => TLS_PARAMETERS.has(name));
}

/** Every secret of a document by the text of its path, and what is wrong with the others. */
export interface Secrets {
  readonly values: ReadonlyMap<string, string>;
  readonly faults: readonly Fault[];
}

type Check = (path: Path, given: string, value: string) => Fault[];

/** Resolves all secrets of an unchecked document; what is no text at all is the schema's matter. */
export function resolveSecrets(document: unknown, around: Surroundings): Secrets {
  const values = new Map<string, string>();
  const faults: Fault[] = [];
  for (const { path, check } of secretPlaces(document)) {
    const given = valueAt(document, path);
    if (typeof given !== "string" || given === "") continue;
    const resolved = resolveSecret(path, given, around);
    if ("fault" in resolved) faults.push(resolved.fault);
    else {
      values.set(JSON.stringify(path), resolved.value);
      faults.push(...check(path, given, resolved.value));
    }
  }
  return { values, faults };
}

function secretPlaces(document: unknown): { path: Path; check: Check }[] {
  const address = (side: string): Check => (path, given, value) => databaseUrlFaults(path, given, value, valueAt(document, [side, "engine"]));
  const notify = valueAt(document, ["notify"]);
  return [
    { path: ["source", "url"], check: address("source") },
    { path: ["source", "readReplica"], check: address("source") },
    { path: ["target", "url"], check: address("target") },
    { path: ["source", "tls", "ca"], check: authorityFaults },
    { path: ["target", "tls", "ca"], check: authorityFaults },
    { path: ["journal", "key"], check: journalKeyFaults },
    { path: ["http", "tokens"], check: () => [] },
    ...(Array.isArray(notify) ? notify.map((_, i) => ({ path: ["notify", i, "url"], check: webhookFaults })) : []),
  ].filter(({ path }) => path[0] !== "http" || FILE_REFERENCE.test(String(valueAt(document, path))));
}

/** 32 bytes in hex or base64; null for anything else. */
export function journalKey(text: string): Buffer | null {
  const bytes = /^[0-9a-fA-F]{64}$/.test(text) ? Buffer.from(text, "hex") : /^[A-Za-z0-9+/]{43}=?$/.test(text) ? Buffer.from(text, "base64") : null;
  return bytes?.length === 32 ? bytes : null;
}

function journalKeyFaults(path: Path, given: string, value: string): Fault[] {
  if (!REFERENCE.test(given)) return [{ code: "DR1001", path, found: "a key that is written here", allowed: "env:NAME or file:PATH" }];
  if (journalKey(value) !== null) return [];
  return [{ code: "DR1001", path, found: `${given}, whose value is no key of 32 bytes`, allowed: "64 hex digits or base64, as `openssl rand -hex 32` prints" }];
}

function authorityFaults(path: Path, given: string, value: string): Fault[] {
  if (!REFERENCE.test(given) || value.includes("-----BEGIN CERTIFICATE-----")) return [];
  return [{ code: "DR1001", path, found: `${given}, which holds no PEM certificate`, allowed: "-----BEGIN CERTIFICATE----- …" }];
}

function webhookFaults(path: Path, given: string, value: string): Fault[] {
  if (URL.canParse(value) && /^https?:$/.test(new URL(value).protocol)) return [];
  return [{ code: "DR1001", path, found: given === value ? foundText(value) : `${given}, whose value is no http(s) address`, allowed: "an http(s) address, env:NAME or file:PATH" }];
}
