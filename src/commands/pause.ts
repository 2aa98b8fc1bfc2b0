import { callDaemon } from "./client.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

/** Stops applying, or goes on; the stream is kept. */
export async function pauseOrResume(action: "pause" | "resume", options: CommonOptions): Promise<void> {
  const answer = await callDaemon<unknown>(await configOf(options), "POST", `/${action}`);
  if (options.json === true) printJson(answer);
  else print(action === "pause" ? "paused; the source keeps its log until you resume" : "going on");
}
