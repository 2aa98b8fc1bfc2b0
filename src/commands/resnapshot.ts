import { callDaemon } from "./client.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

/** Copies one class again under the running mirror, or adds one that the configuration has gained. */
export async function resnapshot(options: CommonOptions & { readonly class: string }): Promise<void> {
  const answer = await callDaemon<unknown>(await configOf(options), "POST", `/classes/${encodeURIComponent(options.class)}/resnapshot`);
  if (options.json === true) printJson(answer);
  else print(`class ${options.class} is being copied again; see \`dualrun status\``);
}
