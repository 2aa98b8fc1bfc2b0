/**
 * Named places at which a test kills the process: `DUALRUN_FAILPOINT=apply.before-commit:7` kills it at the seventh pass.
 * Without the variable a failpoint is one comparison.
 */
import { writeSync } from "node:fs";

export type Failpoint =
  | "read.before" | "read.after"
  | "copy.before-chunk" | "copy.after-chunk"
  | "apply.before-write" | "apply.after-write"
  | "commit.before" | "commit.after"
  | "acknowledge.before" | "acknowledge.after"
  | "freeze.before-commit" | "freeze.after-commit"
  | "journal.before-commit" | "journal.after-commit" | "journal.before-trim" | "journal.after-trim" | "journal.before-acknowledge" | "journal.after-acknowledge";

const [armed, passes] = (process.env["DUALRUN_FAILPOINT"] ?? "").split(":");
let left = Number(passes ?? 1);

export function failpoint(name: Failpoint): void {
  if (name !== armed || --left > 0) return;
  writeSync(2, `failpoint ${name}: killed\n`);
  process.kill(process.pid, "SIGKILL");
}
