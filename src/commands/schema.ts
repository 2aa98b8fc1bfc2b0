import { engineOf } from "../../connectors/registry.ts";
import { DualrunError } from "../core/index.ts";
import { callDaemon } from "./client.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

/** Takes the present layouts of both sides as agreed, after a schema change. */
export async function acceptSchema(options: CommonOptions & { readonly note: string }): Promise<void> {
  const answer = await callDaemon<unknown>(await configOf(options), "POST", "/schema/accept", { note: options.note });
  if (options.json === true) printJson(answer);
  else print("accepted and recorded; the mirror goes on");
}

export interface TriggerOptions extends CommonOptions {
  readonly install?: boolean;
  readonly remove?: boolean;
}

/** The event trigger with which the mirror stops exactly where a mapped table is changed: shown, installed or removed. */
export async function schemaTrigger(options: TriggerOptions): Promise<void> {
  const config = await configOf(options);
  if (options.install === true && options.remove === true) throw new DualrunError("DR1004", "--install and --remove exclude each other");
  await using source = await engineOf(config.source.engine, "source").connectSource(config.source, config.migration, null);
  const trigger = source.schemaTrigger();
  if (options.install === true) await trigger.install();
  if (options.remove === true) await trigger.remove();
  const installed = await trigger.isInstalled();
  if (options.json === true) printJson({ installed, statements: trigger.statements });
  else if (options.install === true || options.remove === true) print(installed ? "installed: the mirror stops exactly where a mapped table is changed" : "removed");
  else print(`${trigger.statements.map((statement) => `${statement};`).join("\n")}\n\n-- ${installed ? "installed already" : "not installed; --install executes this on the source"}`);
}
