import { EXIT } from "../core/index.ts";
import { startDaemon } from "../daemon.ts";
import { configOf, fail, print, type CommonOptions } from "./shared.ts";

/** The daemon, in the foreground; SIGTERM (exit code 0) and SIGINT (130) end it cleanly. */
export async function run(options: CommonOptions & { readonly truncateTarget?: boolean }): Promise<void> {
  const daemon = await startDaemon(await configOf(options), { truncateTarget: options.truncateTarget === true });
  print(`dualrun listens on ${daemon.addresses.http}`);
  process.once("SIGTERM", () => void daemon.stop());
  process.once("SIGINT", () => {
    process.exitCode = EXIT.interrupted;
    void daemon.stop();
  });
  const ended = await daemon.finished;
  if (ended !== null) fail(ended, options.json === true);
}
