import { DualrunError, type AuditEntry, type AuditVerification } from "../core/index.ts";
import { callDaemon } from "./client.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

/** Who did what, newest first. */
export async function audit(options: CommonOptions): Promise<void> {
  const document = await callDaemon<{ entries: readonly AuditEntry[] }>(await configOf(options), "GET", "/audit");
  if (options.json === true) printJson(document);
  else print(document.entries.map(({ at, who, what, note }) => `${at}  ${who}  ${what}${note === null ? "" : `: ${note}`}`).join("\n"));
}

/** Whether the trail is whole: every entry's hash covers the one before. */
export async function verifyAudit(options: CommonOptions): Promise<void> {
  const document = await callDaemon<AuditVerification>(await configOf(options), "GET", "/audit/verification");
  if (options.json === true) printJson(document);
  else if (document.intact) print(`${document.entries} entries, unbroken; head ${document.head ?? "none"}`);
  if (!document.intact) throw new DualrunError("DR8001", document.fault!, { where: `entry ${document.at}` });
}
