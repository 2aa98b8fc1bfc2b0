/** What of an error may stand in a log. */
import { isDualrunError } from "../core/index.ts";

const DEEPEST_CAUSE = 5;
const WITHHELD = "withheld: the message may hold a row's values";

/** SQLSTATE classes whose messages quote values: cardinality, data exceptions, constraints, check options, RAISE. */
const QUOTING = /^(?:21|22|23|44|P0)[0-9A-Z]{3}$/;

/** Names of database objects, which are no values. */
const NAMES = ["severity", "schema", "table", "column", "constraint", "dataType", "routine", "syscall", "errno", "address", "port"] as const;

interface ForeignError extends Error {
  readonly code?: unknown;
}

function quotesValues(error: Error): boolean {
  return QUOTING.test(String((error as ForeignError).code ?? ""));
}

/**
 * An error's type, code, message and stack, and its causes'. Of a database's error only the names of things are kept:
 * its `detail`, `where` and often its message hold row values. What is no Error is passed through.
 */
export function asFacts(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return error;
  const foreign = error as ForeignError & Record<string, unknown>;
  return {
    type: error.name,
    ...(foreign.code === undefined ? {} : { code: foreign.code }),
    message: safeMessage(error),
    ...(isDualrunError(error) ? { where: error.where, details: error.details, next: error.next } : named(foreign)),
    stack: frames(error),
    ...(error.cause === undefined || depth >= DEEPEST_CAUSE ? {} : { cause: asFacts(error.cause, depth + 1) }),
    ...(error instanceof AggregateError && depth < DEEPEST_CAUSE ? { errors: error.errors.map((each) => asFacts(each, depth + 1)) } : {}),
  };
}

/** An error's message, without what it repeats of causes that quote values. */
export function safeMessage(error: Error): string {
  if (quotesValues(error)) return WITHHELD;
  let message = error.message;
  let { cause } = error;
  for (let depth = 0; cause instanceof Error && depth < DEEPEST_CAUSE; depth++, { cause } = cause) {
    if (quotesValues(cause) && cause.message !== "") message = message.replaceAll(cause.message, WITHHELD);
  }
  return message;
}

function named(error: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(NAMES.filter((name) => error[name] !== undefined).map((name) => [name, error[name]]));
}

/** The stack without its head, which repeats the message. */
function frames(error: Error): string[] {
  return (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line)).map((line) => line.trim());
}
