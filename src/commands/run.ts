import { startDaemon } from "../daemon.ts";
import { configOf, fail, type CommonOptions } from "./shared.ts";

/** The daemon, in the foreground; SIGTERM and SIGINT end it cleanly. */
export async function run(options: CommonOptions & { readonly truncateTarget?: boolean }): Promise<void> {
  const daemon = await startDaemon(await configOf(options), { truncateTarget: options.truncateTarget === true });
  process.stdout.write(`dualrun listens on ${daemon.addresses.http}\n`);
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => void daemon.stop());
  const ended = await daemon.finished;
  if (ended !== null) fail(ended, options.json === true);
}
