/** Writes the documents that are generated from code: `npm run generate`. */
import { writeFile } from "node:fs/promises";
import { ERRORS } from "./core/index.ts";

/** ERRORS.md: every code, what it means and what to do next. */
export function errorReference(): string {
  const rows = Object.entries(ERRORS).map(([code, { title, next, exit }]) => `| ${code} | ${title} | ${next.replaceAll("|", "\\|")} | ${exit} |`);
  return [
    "# Errors", "",
    "Generated from `src/core/errors.ts`. Codes are stable; `exit` is the exit code of a command that ends with it.", "",
    "| code | what happened | what to do next | exit |", "|---|---|---|---|", ...rows, "",
  ].join("\n");
}

if (import.meta.main) await writeFile(new URL("../ERRORS.md", import.meta.url), errorReference());
