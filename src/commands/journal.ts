import { inspectJournal } from "../../connectors/registry.ts";
import { DualrunError, type JournalInspection } from "../core/index.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

/** What stands in the journal and whether all of it can be read; exit 1 when it cannot. Never a row's value. */
export async function inspect(options: CommonOptions): Promise<void> {
  const { journal } = await configOf(options);
  const found = await inspectJournal(journal);
  if (found === null) throw new DualrunError("DR1004", "the configuration has no journal", { where: "journal.kind", next: "The source's own log is the journal: see `dualrun status`." });
  if (options.json === true) printJson(found);
  else print(inspectionText(found));
  if (!found.intact) throw new DualrunError("DR5101", found.fault!, { where: found.path });
}

const mebibytes = (bytes: number): string => `${(bytes / (1 << 20)).toFixed(1)} MiB`;

function inspectionText(found: JournalInspection): string {
  return [
    `journal       ${found.kind}, ${found.path}${found.encrypted ? ", encrypted" : ""}`,
    `of            ${found.owner}`,
    `size          ${mebibytes(found.bytes)} of ${mebibytes(found.maxBytes)}`,
    `positions     behind ${found.first ?? "none"}, up to ${found.last ?? "none"}`,
    `transactions  ${found.transactions} in ${found.records} records${found.uncommittedRecords === 0 ? "" : `, ${found.uncommittedRecords} of them of a transaction that is still being received`}`,
    `oldest commit ${found.oldestCommitAt ?? "none"}`,
    `integrity     ${found.intact ? "every checksum holds" : found.fault}`,
  ].join("\n");
}
