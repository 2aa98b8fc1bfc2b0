import { inertSections } from "../config/index.ts";
import { EXIT, type Finding } from "../core/index.ts";
import { resolveClasses } from "../plan/index.ts";
import { connectBoth } from "./connect.ts";
import { configOf, print, printJson, type CommonOptions } from "./shared.ts";

/** Preflight: every fault at once, each with what mends it, then the least grants. */
export async function check(options: CommonOptions): Promise<void> {
  const config = await configOf(options);
  await using sides = await connectBoth(config.source, config.target, config.migration);
  const { source, target } = sides;
  const [sourceFacts, targetFacts] = await Promise.all([source.inspect(), target.inspect()]);
  const { classes, findings } = resolveClasses(config, sourceFacts, targetFacts, target.dialect);
  const all = [...findings, ...source.preflight(classes, sourceFacts), ...target.preflight(classes, targetFacts, sourceFacts)];
  const grants = { source: source.grants(classes, sourceFacts), target: target.grants(classes, targetFacts) };
  const formats = Object.fromEntries(classes.map((cls) => [cls.name, target.formats(cls, sourceFacts, targetFacts)]));
  const schemaTrigger = source.schemaTrigger();
  const trigger = await schemaTrigger.isInstalled();
  const errors = all.filter((finding) => finding.severity === "error");
  if (options.json === true) printJson({ ok: errors.length === 0, classes: classes.map((cls) => cls.name), formats, inert: inertSections(config), findings: all, schemaTrigger: trigger, grants });
  else {
    for (const line of inertSections(config)) print(`note     ${line}`);
    print(`note     ${triggerNote(trigger, schemaTrigger.statements.length > 0)}`);
    for (const finding of [...errors, ...all.filter((one) => one.severity === "warning")]) print(findingText(finding));
    print(`\n-- least grants on the source\n${grants.source.join("\n")}\n\n-- least grants on the target\n${grants.target.join("\n")}\n`);
    print(errors.length === 0 ? `ready: ${classes.length} classes can be mirrored` : `${errors.length} faults have to be mended first`);
  }
  if (errors.length > 0) process.exitCode = EXIT.refused;
}

function triggerNote(installed: boolean, needed: boolean): string {
  if (!needed) return "the source's log tells of schema changes: the mirror stops exactly where a mapped table is changed";
  return installed
    ? "the schema trigger is installed: the mirror stops exactly where a mapped table is changed"
    : "the schema trigger is not installed: a schema change is noticed at the table's next row or within seconds (`dualrun schema trigger` shows it)";
}

function findingText({ severity, check: name, side, subject, what, mend }: Finding): string {
  return `${severity.padEnd(8)} ${name} (${side}${subject === null ? "" : `, ${subject}`}): ${what}\n         → ${mend}`;
}
