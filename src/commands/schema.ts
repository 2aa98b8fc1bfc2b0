import { callDaemon } from "./client.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

/** Takes the present layouts of both sides as agreed, after a schema change. */
export async function acceptSchema(options: CommonOptions & { readonly note: string }): Promise<void> {
  const answer = await callDaemon<unknown>(await configOf(options), "POST", "/schema/accept", { note: options.note });
  if (options.json === true) printJson(answer);
  else print("accepted and recorded; the mirror goes on");
}
