import { EXIT, type RepairDocument } from "../core/index.ts";
import { callDaemon } from "./client.ts";
import { comparisonText } from "./compare.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

export interface RepairOptions extends CommonOptions {
  readonly class: string;
  readonly apply?: boolean;
}

/** The statements that would mend the target; with `--apply` the daemon executes them under its fence and compares again. */
export async function repair(options: RepairOptions): Promise<void> {
  const document = await callDaemon<RepairDocument>(await configOf(options), "POST", "/repairs", { class: options.class, apply: options.apply === true });
  if (options.json === true) printJson(document);
  else print(repairText(document));
  const clean = document.rows === 0 || document.comparison?.verdict === "in_sync";
  if (!clean) process.exitCode = EXIT.outOfSync;
}

function repairText({ class: name, rows, applied, complete, statements, comparison }: RepairDocument): string {
  if (rows === 0) return `class ${name} does not differ: nothing to repair`;
  if (applied) return `${rows} rows of class ${name} were repaired\n${comparison === null ? "" : comparisonText(comparison)}`;
  const more = complete ? [] : [`-- ${rows} rows differ; the first ${statements.length} statements stand here, --apply mends all`];
  return [...statements, ...more, `-- not executed; \`dualrun repair --class ${name} --apply\` does, under the daemon's fence, and compares again`].join("\n");
}
