#!/usr/bin/env node
/** The command line: one file per command under commands/, loaded when it is called. */
import { Command, CommanderError } from "commander";
import { DualrunError, EXIT } from "./core/index.ts";
import { LATER, notYet } from "./commands/later.ts";
import { fail } from "./commands/shared.ts";

const program = new Command("dualrun")
  .description("Mirrors a database to its successor exactly once, proves that both sides agree, takes the business across and back.")
  .configureOutput({ outputError: () => undefined }) // said once, below, with its code
  .exitOverride();

function command(name: string, about: string, example: string): Command {
  return program.command(name).description(about).exitOverride().option("--json", "print facts as JSON").addHelpText("after", `\nExample:\n  ${example}`);
}

const configured = (name: string, about: string, more = ""): Command =>
  command(name, about, `dualrun ${name}${more} -c dualrun.yaml`).option("-c, --config <file>", "the configuration", "dualrun.yaml");

command("version", "the program's version", "dualrun version")
  .action(async (options) => (await import("./commands/version.ts")).version(options));
command("demo", "two servers of its own, a live business and the mirror between them", "dualrun demo --from mysql --to postgres --for 60s")
  .option("--from <engine>", "what the source is: postgres, mysql or mariadb", "postgres")
  .option("--to <engine>", "what the target is: postgres", "postgres")
  .option("--for <duration>", "end by itself after this long, with a comparison")
  .option("--port <port>", "port of status page, API and metrics", "7070")
  .option("--drift", "plant a difference and show how it is found, explained and repaired")
  .option("--rate <transactions>", "transactions per second of the workload", "200")
  .action(async (options) => (await import("./commands/demo.ts")).demo(options));
command("types", "which types fit which between engines, and what comparisons look at", "dualrun types --from mysql --to postgres")
  .option("--from <engine>", "only from this engine: postgres, mysql or mariadb")
  .option("--to <engine>", "only to this engine")
  .action(async (options) => (await import("./commands/types.ts")).types(options));
command("init", "look at source and target and write a configuration to edit", "dualrun init --source env:SOURCE_URL --target env:TARGET_URL")
  .requiredOption("--source <url>", "address of the source, env:NAME or file:PATH")
  .requiredOption("--target <url>", "address of the target, env:NAME or file:PATH")
  .option("--migration <name>", "names slot and publication", "migration")
  .option("-o, --output <file>", "where to write it", "dualrun.yaml")
  .option("--tls <mode>", "disable, require, verify-ca or verify-full (default: verify-full, except on loopback)")
  .option("--ca <file>", "the certificate authority of both servers, PEM")
  .action(async (options) => (await import("./commands/init.ts")).init(options));
configured("check", "preflight: all faults at once, each with the statement that mends it")
  .action(async (options) => (await import("./commands/check.ts")).check(options));
configured("run", "the daemon; SIGTERM ends it cleanly")
  .option("--truncate-target", "empty the target tables before the first copy")
  .action(async (options) => (await import("./commands/run.ts")).run(options));
configured("status", "phase, lag, progress, what is wrong and what to do")
  .action(async (options) => (await import("./commands/status.ts")).status(options));
for (const action of ["pause", "resume"] as const) {
  configured(action, action === "pause" ? "stop applying; the stream is kept" : "go on applying")
    .action(async (options) => (await import("./commands/pause.ts")).pauseOrResume(action, options));
}
configured("resnapshot", "copy one class again under the running mirror", " --class invoices")
  .requiredOption("--class <name>", "the class")
  .action(async (options) => (await import("./commands/resnapshot.ts")).resnapshot(options));
configured("compare", "a comparison now; exit 3 unless everything is in sync")
  .option("--class <name>", "one class only")
  .option("--full", "every value of every row, not only what was touched since the last proof")
  .action(async (options) => (await import("./commands/compare.ts")).compare(options));
configured("diff", "the rows that differ now, sensitive values masked", " --class invoices")
  .requiredOption("--class <name>", "the class")
  .option("--limit <rows>", "how many are shown", "50")
  .action(async (options) => (await import("./commands/diff.ts")).diff(options));
configured("repair", "the statements that would mend the target; with --apply their execution", " --class invoices")
  .requiredOption("--class <name>", "the class")
  .option("--apply", "execute them through the daemon, under its fence, and compare again")
  .action(async (options) => (await import("./commands/repair.ts")).repair(options));
configured("selftest", "plant known errors on classes of dualrun's own; each must be found")
  .action(async (options) => (await import("./commands/selftest.ts")).selftest(options));
const breaks = configured("breaks", "confirmed differences that are open")
  .option("--all", "settled ones too")
  .action(async (options) => (await import("./commands/breaks.ts")).breaks(options));
breaks.command("assign <id>").description("name who takes care of a break").exitOverride()
  .requiredOption("--to <name>", "who")
  .addHelpText("after", '\nExample:\n  dualrun breaks assign 3 --to ann -c dualrun.yaml')
  .action(async (id: string, _options, command: Command) => (await import("./commands/breaks.ts")).assignBreak(id, command.optsWithGlobals()));
breaks.command("resolve <id>").description("settle a break, with the reason").exitOverride()
  .requiredOption("--note <text>", "why; recorded").option("--as <resolution>", "explained, timing or repaired", "explained")
  .addHelpText("after", '\nExample:\n  dualrun breaks resolve 3 --note "the old system rounds twice" -c dualrun.yaml')
  .action(async (id: string, _options, command: Command) => (await import("./commands/breaks.ts")).resolveBreak(id, command.optsWithGlobals()));
configured("report", "the daily reconciliation of a business date; exit 3 unless it is clean", " --date 2026-11-20 --format pdf -o report.pdf")
  .requiredOption("--date <date>", "the business date").option("--format <format>", "html, csv, json or pdf").option("-o, --output <file>", "where to write it")
  .option("--prepare", "make it anew from the latest comparison; signatures of the version before do not count for it")
  .action(async (options) => (await import("./commands/report.ts")).report(options));
configured("sign-off", "approve a report; DUALRUN_TOKEN must be of the role finance-approver", ' --date 2026-11-20 --note "agrees with the ledger"')
  .requiredOption("--date <date>", "the business date").requiredOption("--note <text>", "goes into the report and the audit trail")
  .option("--for <name>", "for whom you stand in").option("--hash <hash>", "the hash that was looked at")
  .action(async (options) => (await import("./commands/report.ts")).signOff(options));
program.command("bank").description("the bank's daily totals").exitOverride().command("import <file>").description("CSV with date, currency, amount and, optionally, account").exitOverride()
  .option("-c, --config <file>", "the configuration", "dualrun.yaml").option("--json", "print facts as JSON").addHelpText("after", "\nExample:\n  dualrun bank import totals.csv -c dualrun.yaml")
  .action(async (file: string, options) => (await import("./commands/bank.ts")).bankImport(file, options));
const audit = configured("audit", "who did what")
  .action(async (options) => (await import("./commands/audit.ts")).audit(options));
audit.command("verify").description("follow the chain of hashes from the first entry").exitOverride().addHelpText("after", "\nExample:\n  dualrun audit verify -c dualrun.yaml")
  .action(async (_options, command: Command) => (await import("./commands/audit.ts")).verifyAudit(command.optsWithGlobals()));
program.command("journal").description("what stands between source and target").exitOverride().command("inspect").description("size, positions, transactions and integrity of the journal's file; also beside a running daemon").exitOverride()
  .option("-c, --config <file>", "the configuration", "dualrun.yaml").option("--json", "print facts as JSON").addHelpText("after", "\nExample:\n  dualrun journal inspect -c dualrun.yaml")
  .action(async (options) => (await import("./commands/journal.ts")).inspect(options));
program.command("token").description("tokens for the API").exitOverride().command("create").description("make a token and the entry for the token file").exitOverride()
  .requiredOption("--role <role>", "viewer, operator, finance-preparer, finance-approver or admin").requiredOption("--name <name>", "whose it is")
  .option("--days <days>", "how long it is valid", "90").option("--json", "print facts as JSON")
  .addHelpText("after", "\nExample:\n  dualrun token create --role operator --name ann")
  .action(async (options) => (await import("./commands/token.ts")).createTokenCommand(options));
const schema = program.command("schema").description("schema changes on the source").exitOverride();
schema.command("trigger").description("the event trigger with which the mirror stops exactly where a mapped table is changed").exitOverride()
  .option("-c, --config <file>", "the configuration", "dualrun.yaml").option("--json", "print facts as JSON")
  .option("--install", "execute its statements on the source").option("--remove", "take it away again")
  .addHelpText("after", "\nExample:\n  dualrun schema trigger --install -c dualrun.yaml")
  .action(async (options) => (await import("./commands/schema.ts")).schemaTrigger(options));
schema.command("accept")
  .description("take the present layouts of both sides as agreed").exitOverride()
  .option("-c, --config <file>", "the configuration", "dualrun.yaml").option("--json", "print facts as JSON")
  .requiredOption("--note <text>", "what was changed and why; recorded")
  .addHelpText("after", '\nExample:\n  dualrun schema accept --note "added invoices.tax on both sides"')
  .action(async (options) => (await import("./commands/schema.ts")).acceptSchema(options));
for (const [name, { about, meanwhile }] of Object.entries(LATER)) {
  program.command(name).description(`${about} (not available yet)`).exitOverride().allowUnknownOption().allowExcessArguments()
    .addHelpText("after", `\nNot available yet. Meanwhile: ${meanwhile}.\n\nExample:\n  dualrun ${name} --help`).action(() => notYet(name));
}

try {
  await program.parseAsync();
} catch (error) {
  const json = process.argv.includes("--json");
  if (!(error instanceof CommanderError)) fail(error, json);
  else if (error.code === "commander.help") process.exitCode = EXIT.usage;
  else if (error.exitCode !== 0) fail(new DualrunError("DR1004", error.message.replace(/^error: /, "")), json);
}
