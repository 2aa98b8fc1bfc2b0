import { VERSION } from "../version.ts";
import { print, printJson } from "./shared.ts";

export function version(options: { readonly json?: boolean }): void {
  if (options.json === true) printJson({ version: VERSION, node: process.version });
  else print(`dualrun ${VERSION} (Node ${process.version})`);
}
