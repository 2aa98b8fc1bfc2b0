import { DualrunError } from "../core/index.ts";

/** Commands of the contract that are not there yet, and what to use meanwhile. */
export const LATER: Readonly<Record<string, { readonly about: string; readonly meanwhile: string }>> = {
  plan: { about: "the manifest: inventory, profile, mapping, risks", meanwhile: "`dualrun check` shows classes and faults" },
  cutover: { about: "takes the business across", meanwhile: "stop the writers, wait until `dualrun status` shows no lag, set the sequences, switch" },
  rollback: { about: "takes the business back", meanwhile: "there is no reverse mirror yet" },
  gates: { about: "what must hold before a cutover", meanwhile: "check by hand" },
  rehearsals: { about: "rehearsed cutovers", meanwhile: "rehearse on copies" },
  runbook: { about: "the steps of this migration", meanwhile: "see README.md" },
  "close-out": { about: "the final document", meanwhile: "keep `dualrun status --json`" },
  abort: { about: "gives the migration up", meanwhile: "stop the daemon, drop slot and publication dualrun_MIGRATION on the source and schema dualrun on the target" },
  replay: { about: "applies a stretch of the journal", meanwhile: "a target that was restored goes on by itself while journal or source still have what it lacks" },
};

export function notYet(name: string): never {
  throw new DualrunError("DR1005", `\`dualrun ${name}\` is not available yet`, { next: `Meanwhile: ${LATER[name]!.meanwhile}.` });
}
