/** Writes the documents that are generated from code: `npm run generate`. */
import { writeFile } from "node:fs/promises";
import { ERRORS } from "./core/index.ts";
import { HTTP_ERRORS } from "./http/index.ts";

/** ERRORS.md: every code, what it means and what to do next. */
export function errorReference(): string {
  const cell = (text: string): string => text.replaceAll("|", "\\|");
  const requests = Object.entries(HTTP_ERRORS).map(([code, { status, title, next }]) => `| ${code} | ${title} | ${cell(next)} | ${status} |`);
  const rows = Object.entries(ERRORS).map(([code, { title, next, exit }]) => `| ${code} | ${title} | ${cell(next)} | ${exit} |`);
  return [
    "# Errors", "",
    "Generated from `src/core/errors.ts`. Codes are stable; `exit` is the exit code of a command that ends with it.", "",
    "| code | what happened | what to do next | exit |", "|---|---|---|---|", ...rows, "",
    "## Over HTTP", "", "Faults of a request itself, as `code` of `application/problem+json`; what the mirror says keeps its code from above.", "",
    "| code | what happened | what to do next | status |", "|---|---|---|---|", ...requests, "",
  ].join("\n");
}

if (import.meta.main) await writeFile(new URL("../ERRORS.md", import.meta.url), errorReference());
