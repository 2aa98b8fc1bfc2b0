/** What commands have in common. */
import type { Config } from "../config/index.ts";
import { asDualrunError, type DualrunError } from "../core/index.ts";

export interface CommonOptions {
  readonly config: string;
  readonly json?: boolean;
}

export const print = (text: string): void => void process.stdout.write(`${text}\n`);

export const printJson = (value: unknown): void => print(JSON.stringify(value, null, 2));

/** The configuration that the command line names. */
export async function configOf(options: CommonOptions): Promise<Config> {
  return (await import("../config/index.ts")).loadConfig(options.config);
}

/** What goes wrong leaves as code, what, where, why and what to do next; the exit code is the error's. */
export function fail(error: unknown, json: boolean): void {
  const known = asDualrunError(error);
  process.exitCode = known.exitCode;
  process.stderr.write(json ? `${JSON.stringify(errorDocument(known))}\n` : `${errorText(known)}\n`);
  if (known.code === "DR9001" && process.env["DUALRUN_DEBUG"] === "1" && known.cause instanceof Error) process.stderr.write(`${known.cause.stack}\n`);
}

function errorText(error: DualrunError): string {
  return [`error ${error.code}: ${error.message}`, ...(error.where === null ? [] : [`  in ${error.where}`]), ...error.details.map((line) => `  ${line}`), `next: ${error.next}`].join("\n");
}

export function errorDocument(error: DualrunError): Record<string, unknown> {
  return { code: error.code, title: error.title, what: error.message, where: error.where, details: error.details, next: error.next };
}
