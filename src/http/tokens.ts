/** Bearer tokens: who may do what. The file holds hashes only. */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { parseDocument } from "yaml";
import { z } from "zod";
import { DualrunError } from "../core/index.ts";

export const ROLES = ["viewer", "operator", "finance-preparer", "finance-approver", "admin"] as const;
export type Role = (typeof ROLES)[number];

/** What each role may do besides what is its own. */
const GRANTS: Readonly<Record<Role, readonly Role[]>> = {
  "viewer": [],
  "operator": ["viewer"],
  "finance-preparer": ["viewer"],
  "finance-approver": ["viewer"],
  "admin": ["viewer", "operator", "finance-preparer", "finance-approver"],
};

export function allows(role: Role, needed: Role): boolean {
  return role === needed || GRANTS[role].includes(needed);
}

export interface Principal {
  readonly name: string;
  readonly role: Role;
  readonly expires: Date;
}

export interface TokenStore {
  /** Whose token this is; null when it is nobody's. Expired ones are returned too: see `isExpired`. */
  find(token: string): Principal | null;
}

export function isExpired({ expires }: Principal, now = Date.now()): boolean {
  return expires.getTime() <= now;
}

interface Entry extends Principal {
  readonly hash: Buffer;
}

const EXPIRES = "a time like 2027-01-31T00:00:00Z, or a date";
const fileSchema = z.array(z.strictObject({
  name: z.string().regex(/^[^\p{C}]{1,64}$/u, "1 to 64 printable characters"),
  role: z.enum(ROLES),
  sha256: z.string().regex(/^[0-9a-f]{64}$/i, "64 hexadecimal digits: the SHA-256 of the token"),
  expires: z.union([z.iso.datetime({ offset: true }), z.iso.date()], EXPIRES).transform((text) => new Date(text)),
})).min(1, "at least one token");

/** Parses a token file: a YAML list of name, role, sha256, expires. Every fault at once, as DR1001. */
export function parseTokens(text: string, path: string): TokenStore {
  const entries = readEntries(text, path);
  return { find: (token) => findEntry(entries, token) };
}

/** Opens a token file and follows its changes, so that a token can be revoked without a restart. A file that has become invalid lets nobody in. */
export function openTokens(path: string): TokenStore {
  let seen = versionOf(path);
  let entries = readEntries(readText(path), path);
  return {
    find(token) {
      const now = versionOf(path);
      if (now !== seen) {
        entries = readEntries(readText(path), path);
        seen = now;
      }
      return findEntry(entries, token);
    },
  };
}

/** A new token, to be shown once, and the hash for the file. */
export function newToken(): { readonly token: string; readonly sha256: string } {
  const token = `dr_${randomBytes(32).toString("base64url")}`;
  return { token, sha256: hashOf(token).toString("hex") };
}

/** The same with the entry for the token file. DR1004 for a role, name or time that the file could not hold. */
export function createToken(name: string, role: string, days: number): { readonly token: string; readonly entry: { readonly name: string; readonly role: Role; readonly sha256: string; readonly expires: string } } {
  const { token, sha256 } = newToken();
  if (!Number.isInteger(days) || days < 1 || days > MOST_DAYS) throw new DualrunError("DR1004", `--days: a whole number from 1 to ${MOST_DAYS}`);
  const entry = { name, role: role as Role, sha256, expires: new Date(Date.now() + days * 86_400_000).toISOString() };
  const parsed = fileSchema.safeParse([entry]);
  if (!parsed.success) throw new DualrunError("DR1004", "no token can be made", { details: parsed.error.issues.map((issue) => `${issue.path.slice(1).join(".")}: ${issue.message}`) });
  return { token, entry };
}

const MOST_DAYS = 3_660;

function hashOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

/** Looks at every entry, whichever matches, so that the time taken tells nothing. */
function findEntry(entries: readonly Entry[], token: string): Principal | null {
  const hash = hashOf(token);
  let found: Entry | null = null;
  for (const entry of entries) if (timingSafeEqual(entry.hash, hash)) found = entry;
  return found;
}

function versionOf(path: string): string {
  try {
    const { ino, size, mtimeMs } = statSync(path);
    return `${ino} ${size} ${mtimeMs}`;
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

function unreadable(path: string, cause: unknown): DualrunError {
  return new DualrunError("DR1002", `the token file ${path} cannot be read`, { where: "http.tokens", cause });
}

function readEntries(text: string, path: string): Entry[] {
  const document = parseDocument(text);
  if (document.errors.length > 0) throw invalid(path, document.errors.map(({ message }) => message.split("\n")[0]!));
  const parsed = fileSchema.safeParse(document.toJS());
  if (!parsed.success) throw invalid(path, parsed.error.issues.map((issue) => `${issue.path.join(".") || "file"}: ${issue.message}`));
  const entries = parsed.data.map(({ sha256, ...principal }) => ({ ...principal, hash: Buffer.from(sha256, "hex") }));
  const repeated = [...twice(entries.map(({ name }) => `name ${name}`)), ...twice(parsed.data.map(({ sha256 }) => `sha256 ${sha256.toLowerCase()}`))];
  if (repeated.length > 0) throw invalid(path, repeated.map((what) => `${what}: stands there twice`));
  return entries;
}

function twice(values: readonly string[]): string[] {
  return values.filter((value, i) => values.indexOf(value) < i);
}

function invalid(path: string, details: readonly string[]): DualrunError {
  return new DualrunError("DR1001", `the token file ${path} is not valid`, {
    where: "http.tokens", details, next: "Correct it: a YAML list of name, role, sha256 (of the token), expires.",
  });
}
