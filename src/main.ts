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
command("demo", "two PostgreSQL servers, a live business and the mirror between them", "dualrun demo --for 60s")
  .option("--for <duration>", "end by itself after this long, with a comparison")
  .option("--port <port>", "port of status page, API and metrics", "7070")
  .option("--rate <transactions>", "transactions per second of the workload", "200")
  .action(async (options) => (await import("./commands/demo.ts")).demo(options));
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
program.command("schema").description("after a schema change").exitOverride().command("accept")
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
