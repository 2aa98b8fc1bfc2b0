import { DualrunError } from "../core/index.ts";

/** Commands of the contract that are not there yet, and what to use meanwhile. */
export const LATER: Readonly<Record<string, { readonly about: string; readonly meanwhile: string }>> = {
  plan: { about: "the manifest: inventory, profile, mapping, risks", meanwhile: "`dualrun check` shows classes and faults" },
  compare: { about: "a comparison now", meanwhile: "compare with a tool of your own while both sides are still" },
  diff: { about: "the rows that differ", meanwhile: "compare with a tool of your own while both sides are still" },
  repair: { about: "mends the rows that differ", meanwhile: "`dualrun resnapshot --class C` copies a class again" },
  cutover: { about: "takes the business across", meanwhile: "stop the writers, wait until `dualrun status` shows no lag, set the sequences, switch" },
  rollback: { about: "takes the business back", meanwhile: "there is no reverse mirror yet" },
  report: { about: "the daily reconciliation", meanwhile: "metrics and status show what is mirrored" },
  "sign-off": { about: "approves a report", meanwhile: "there are no reports yet" },
  gates: { about: "what must hold before a cutover", meanwhile: "check by hand" },
  rehearsals: { about: "rehearsed cutovers", meanwhile: "rehearse on copies" },
  runbook: { about: "the steps of this migration", meanwhile: "see README.md" },
  "close-out": { about: "the final document", meanwhile: "keep `dualrun status --json`" },
  abort: { about: "gives the migration up", meanwhile: "stop the daemon, drop slot and publication dualrun_MIGRATION on the source and schema dualrun on the target" },
  types: { about: "the mapping table of types", meanwhile: "`dualrun check` names types that do not fit" },
  bank: { about: "imports bank totals", meanwhile: "there are no reports yet" },
  breaks: { about: "open differences", meanwhile: "table dualrun.conflicts on the target" },
  journal: { about: "looks into the journal", meanwhile: "the source's log is the journal" },
  replay: { about: "applies a stretch of the journal", meanwhile: "there is no journal yet" },
  audit: { about: "the audit trail", meanwhile: "GET /api/v1/audit, table dualrun.audit on the target" },
  selftest: { about: "plants known errors and finds them", meanwhile: "there are no comparisons yet" },
  token: { about: "makes a token for the API", meanwhile: "see config/examples for the token file" },
};

export function notYet(name: string): never {
  throw new DualrunError("DR1005", `\`dualrun ${name}\` is not available yet`, { next: `Meanwhile: ${LATER[name]!.meanwhile}.` });
}
