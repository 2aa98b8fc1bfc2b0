/** What a binary log can have wrong, as errors that name it. No message holds a row's value. */
import { DualrunError, isDualrunError } from "../../src/core/index.ts";

/** Bytes that are no event of a binary log: truncated, inconsistent, or of a layout that nobody has described. */
export function malformed(what: string): DualrunError {
  return new DualrunError("DR5005", `the binary log cannot be decoded: ${what}`, { where: "source" });
}

/** The log is sound, but the source was told to write it in a way that leaves something out or cannot be read. */
export function refused(what: string, next: string): DualrunError {
  return new DualrunError("DR5009", what, { where: "source", next });
}

/** The log no longer holds what the mirror would have to go on with. */
export function lost(what: string, cause?: unknown): DualrunError {
  return new DualrunError("DR4004", what, {
    where: "source", cause, next: "Changes are missing between source and target: empty the target and copy anew with `dualrun run --truncate-target`. Keep the source's log for longer (binlog_expire_logs_seconds), and never RESET it while it is mirrored.",
  });
}

/** The same error, of a table that it names. */
export function ofTable(error: unknown, schema: string, table: string): unknown {
  if (!isDualrunError(error)) return error;
  return new DualrunError(error.code, `${schema}.${table}: ${error.message}`, { where: "source", next: error.next, cause: error });
}
