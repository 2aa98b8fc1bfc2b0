/** Faults of a configuration: where, what was found, what is allowed. */
import type { z } from "zod";
import type { ErrorCode } from "../core/index.ts";

export type Path = readonly (string | number)[];

export interface Fault {
  readonly code: Extract<ErrorCode, "DR1001" | "DR1003" | "DR1005">;
  readonly path: Path;
  readonly found: string;
  readonly allowed: string;
}

/** `classes[0].columns.state.map`; a key that is no plain word stands in quotes. */
export function pathText(path: Path): string {
  if (path.length === 0) return "the file";
  return path.map((key, i) => (typeof key === "number" ? `[${key}]` : `${i > 0 ? "." : ""}${/^[\w-]+$/.test(key) ? key : JSON.stringify(key)}`)).join("");
}

/** Reads a place of an unchecked document; undefined where there is none. */
export function valueAt(document: unknown, path: Path): unknown {
  let value = document;
  for (const key of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<string | number, unknown>)[key];
  }
  return value;
}

/** A value as a fault shows it: short, and without what may be a credential. */
export function foundText(value: unknown): string {
  if (value === undefined || value === null) return "nothing";
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (typeof value === "object") return "a mapping";
  return typeof value === "string" ? JSON.stringify(shorten(withoutCredentials(value))) : String(value);
}

function shorten(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60).toWellFormed()}…` : text;
}

function withoutCredentials(text: string): string {
  return text.replace(/:\/\/[^/]*@/g, "://***@").replace(/(password|pwd|token|secret)(\s*[=:]\s*)\S+/gi, "$1$2***");
}

const TYPES: Readonly<Record<string, string>> = {
  string: "text", number: "a number", int: "a whole number", boolean: "true or false", array: "a list", object: "a mapping", record: "a mapping",
};

/** What is allowed, for issues whose schema does not say it itself. */
export function allowedText(issue: z.core.$ZodRawIssue): string {
  switch (issue.code) {
    case "invalid_type": return TYPES[issue.expected] ?? issue.expected;
    case "invalid_value": return issue.values.map(String).join(", ");
    case "invalid_union": return "options" in issue && Array.isArray(issue["options"]) ? issue["options"].join(", ") : "another form";
    case "too_small": return `${issue.origin === "array" ? "at least" : "from"} ${issue.minimum}${unitOf(issue.origin)}`;
    case "too_big": return `at most ${issue.maximum}${unitOf(issue.origin)}`;
    default: return issue.message ?? issue.code;
  }
}

function unitOf(origin: string): string {
  return origin === "array" ? " entries" : origin === "string" ? " characters" : "";
}

/** What stands here may be the secret itself, in whatever form. */
const SECRET: ReadonlySet<string> = new Set(["journal.key"]);

/** One fault per issue, and one per unknown key. */
export function faultsOfIssue(document: unknown, issue: z.core.$ZodIssue): Fault[] {
  const path = issue.path.map((key) => (typeof key === "number" ? key : String(key)));
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({ code: "DR1001", path: [...path, key], found: "an unknown key", allowed: issue.message }));
  }
  return [{ code: "DR1001", path, found: SECRET.has(pathText(path)) ? "something that is no text" : foundText(valueAt(document, path)), allowed: issue.message }];
}
