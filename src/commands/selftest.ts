import { DualrunError, type SelfTestDocument } from "../core/index.ts";
import { callDaemon } from "./client.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

/** Known errors are planted on classes of dualrun's own; the comparison must find each. */
export async function selftest(options: CommonOptions): Promise<void> {
  const document = await callDaemon<SelfTestDocument>(await configOf(options), "POST", "/selftest");
  if (options.json === true) printJson(document);
  else print([`equal classes   ${document.equalBefore ? "found equal" : "NOT found equal"}`, ...document.errors.map(({ error, found }) => `${error.padEnd(20)}${found ? "found" : "NOT FOUND"}`)].join("\n"));
  if (!document.passed) throw new DualrunError("DR7004", "the comparison missed an error that was planted");
}
