import { readFileSync } from "node:fs";
import { DualrunError } from "../core/index.ts";
import { sendToDaemon } from "./client.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

/** Imports the bank's daily totals: CSV with date, currency, amount and, optionally, account. */
export async function bankImport(file: string, options: CommonOptions): Promise<void> {
  const done = await sendToDaemon<{ lines: number; dates: readonly string[] }>(await configOf(options), "/bank", "text/csv", read(file));
  if (options.json === true) printJson(done);
  else print(`${done.lines} lines for ${done.dates.length} days were imported`);
}

function read(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new DualrunError("DR1004", `${file} cannot be read`, { cause });
  }
}
