/**
 * Everything dualrun can say when it stops, in one place.
 *
 * A code is stable: people put it into alerts and runbooks. `exit` is the exit code of a command that ends with it.
 * ERRORS.md is generated from this table.
 */

export const EXIT = {
  done: 0,
  unexpected: 1,
  usage: 2,
  outOfSync: 3,
  refused: 4,
  unreachable: 5,
  fenced: 6,
  interrupted: 130,
} as const;

interface ErrorEntry {
  readonly title: string;
  readonly next: string;
  readonly exit: number;
}

const entry = (title: string, next: string, exit: number): ErrorEntry => ({ title, next, exit });

export const ERRORS = {
  DR1001: entry("The configuration is not valid", "Correct the listed paths; config/dualrun.schema.json shows what is allowed.", EXIT.usage),
  DR1002: entry("The configuration cannot be read", "Check the path and the YAML syntax.", EXIT.usage),
  DR1003: entry("A secret cannot be resolved", "Set the environment variable, or make the file readable for this user.", EXIT.usage),
  DR1004: entry("The command line is not valid", "See `dualrun COMMAND --help`.", EXIT.usage),
  DR1005: entry("This belongs to a part that is not available yet", "Remove the setting or do not use the command; CHANGELOG.md says what is available.", EXIT.usage),
  DR2001: entry("The database cannot be reached", "Check address, network, TLS and credentials; then start again.", EXIT.unreachable),
  DR2002: entry("The running daemon cannot be reached", "Start it with `dualrun run`, or correct `http.listen`.", EXIT.unreachable),
  DR3001: entry("Preflight found faults", "Run the printed statements, then `dualrun check` again.", EXIT.refused),
  DR3002: entry("The target tables are not empty", "Empty them, or start with `dualrun run --truncate-target`.", EXIT.refused),
  DR3003: entry("The target would forget what it has confirmed", "Set fsync = on (PostgreSQL) on the target; a demo may set DUALRUN_ALLOW_UNSAFE_TARGET=1.", EXIT.refused),
  DR4001: entry("Another daemon has taken over", "Only one daemon may run for a migration. Find the other one, stop it, and start this one again.", EXIT.fenced),
  DR4002: entry("The target has gone back in time", "The target no longer holds what it had confirmed. Restore a newer backup of it, or empty it and copy anew.", EXIT.unexpected),
  DR4003: entry("The source is not the one that this migration began with", "Point the configuration at the original server, or begin a new migration.", EXIT.unexpected),
  DR4004: entry("The source no longer has the log that the mirror needs", "Changes may be lost between source and target: the slot is never made anew silently. Empty the target and start with `--truncate-target`, or restore the slot.", EXIT.unexpected),
  DR4005: entry("The standby that was promoted cannot be followed", "The promoted server does not hold what the target has; go back to the old primary or copy anew.", EXIT.unexpected),
  DR5001: entry("The schema of a mapped table has changed", "Make the same change on the target, then `dualrun schema accept --note \"…\"`; after a rewrite also `dualrun resnapshot --class C`.", EXIT.unexpected),
  DR5002: entry("The target refused a row", "Look at the constraint and the row named by its key's hash, mend the target, then `dualrun resume`.", EXIT.unexpected),
  DR5003: entry("The target's rows differ from what the log says", "apply.onConflict is `halt`. Find who writes to the target; then `dualrun resume`, or set `source-wins`.", EXIT.unexpected),
  DR5004: entry("A row is missing on the target and the log does not carry its whole image", "Run `dualrun resnapshot --class C`, or use REPLICA IDENTITY FULL on that table.", EXIT.unexpected),
  DR5005: entry("The change stream holds something that dualrun does not understand", "Report it with the message; nothing after it was applied.", EXIT.unexpected),
  DR5006: entry("A value cannot be mapped", "Extend the `map` of that column, then `dualrun resume`.", EXIT.unexpected),
  DR5007: entry("A filtered class lacks the before image of a row", "ALTER TABLE … REPLICA IDENTITY FULL on the source table, then `dualrun resnapshot --class C`.", EXIT.unexpected),
  DR5008: entry("The target is out of room or out of order", "Mend the target (disk, locks, read-only mode); dualrun tries again by itself.", EXIT.unreachable),
  DR5009: entry("The source writes its log in a way that cannot be mirrored", "Change the setting that the message names on the source; what was logged before has to be copied anew.", EXIT.unexpected),
  DR5101: entry("The journal is damaged", "Run `dualrun journal inspect`. Put back an undamaged copy of the file if there is one; otherwise the changes in it are lost: move the file away, drop schema dualrun on the target and start with `--truncate-target`.", EXIT.unexpected),
  DR5102: entry("The journal is lost, or is an older copy", "The source has forgotten what the journal held. Put the journal's file back where the configuration says; otherwise drop schema dualrun on the target and start with `--truncate-target`.", EXIT.unexpected),
  DR5103: entry("The journal belongs to another migration", "Correct `journal.path`, or move that file away if its migration is over.", EXIT.refused),
  DR5104: entry("The journal cannot be opened", "Check path, rights, key, and that no other daemon uses it.", EXIT.refused),
  DR5105: entry("A transaction does not fit into the journal", "Raise `journal.maxBytes` beyond the size of that transaction and start again.", EXIT.unexpected),
  DR6001: entry("Too many rows were refused during the snapshot", "Look at `dualrun status`; mend the target's types or constraints, then start again with `--truncate-target`.", EXIT.refused),
  DR6002: entry("The snapshot has been open for too long", "It holds back vacuum on the source. Raise snapshot.maxAge, or copy with more workers.", EXIT.unexpected),
  DR6101: entry("The tables could not be locked in time", "Nothing was changed. End the named transactions or wait for them, then try again; `cutover.freezeTimeout` says how long writers may be kept waiting.", EXIT.unexpected),
  DR6102: entry("The freeze is not in force", "Its lease has run out or it was lifted, so writes may have come through: undo this attempt and begin a new one.", EXIT.outOfSync),
  DR6103: entry("Writers are left after the freeze", "End the named sessions, or let dualrun end them; switch the named guards on again. Then try again.", EXIT.outOfSync),
  DR6104: entry("The guards of the freeze are not in place", "Run the named grants, then prepare again.", EXIT.refused),
  DR6105: entry("Prepared transactions hold mapped tables", "COMMIT PREPARED or ROLLBACK PREPARED each of them: whoever prepared it has to say which.", EXIT.outOfSync),
  DR6106: entry("Sequences cannot be carried over", "Mend the listed sequences on the target, or advance them by hand; none was set.", EXIT.outOfSync),
  DR7001: entry("Source and target are not in sync", "`dualrun diff --class C` shows the rows.", EXIT.outOfSync),
  DR7002: entry("These differences cannot be mended row by row", "Run `dualrun resnapshot --class C`.", EXIT.outOfSync),
  DR7003: entry("A comparison cannot be made now", "See `dualrun status`; the mirror goes on. Try again when the named condition is over.", EXIT.unexpected),
  DR7004: entry("The self-test has failed", "This is a defect of dualrun: do not trust its comparisons, and please report it.", EXIT.outOfSync),
  DR7101: entry("There is no such report", "Prepare it: `dualrun report --date D`; `dualrun status` tells when the day was compared last.", EXIT.usage),
  DR7102: entry("The report cannot be signed", "See what the message names; a report is signed by somebody else than who prepared it, when its day is over.", EXIT.outOfSync),
  DR7103: entry("The bank's statement cannot be read", "Correct the listed lines; nothing of the file was kept.", EXIT.usage),
  DR8001: entry("The audit trail is broken", "Somebody has changed, removed or reordered entries of dualrun.audit: compare with the heads in the daemon's log, and find out who.", EXIT.outOfSync),
  DR9001: entry("Unexpected error", "This is a defect of dualrun: please report it with the log.", EXIT.unexpected),
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;

export interface ErrorDetails {
  /** The place: a configuration path, `source`, `target`, a class, a position. */
  readonly where?: string;
  /** One line per fact; never a row value, never a secret. */
  readonly details?: readonly string[];
  /** Overrides the catalogue's next step where something more exact is known. */
  readonly next?: string;
  readonly cause?: unknown;
}

/** An error an operator can act upon: a stable code, what happened, where, and what to do next. */
export class DualrunError extends Error {
  readonly code: ErrorCode;
  readonly where: string | null;
  readonly details: readonly string[];
  readonly next: string;

  constructor(code: ErrorCode, what: string, options: ErrorDetails = {}) {
    super(what, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "DualrunError";
    this.code = code;
    this.where = options.where ?? null;
    this.details = options.details ?? [];
    this.next = options.next ?? ERRORS[code].next;
  }

  get title(): string {
    return ERRORS[this.code].title;
  }

  get exitCode(): number {
    return ERRORS[this.code].exit;
  }
}

export function isDualrunError(error: unknown): error is DualrunError {
  return error instanceof DualrunError;
}

/** SQLSTATE classes whose messages quote values of rows. */
const QUOTES_VALUES = /^(21|22|23|44|P0)/;

/** Wraps what nobody expected, so that everything that leaves the program has a code, and no message a row's value. */
export function asDualrunError(error: unknown): DualrunError {
  if (isDualrunError(error)) return error;
  const message = error instanceof Error ? error.message : String(error);
  const { code: state, constraint } = (error ?? {}) as { code?: unknown; constraint?: string };
  if (typeof state !== "string" || !/^[0-9A-Z]{5}$/.test(state)) return new DualrunError("DR9001", message, { cause: error });
  const named = constraint === undefined ? "" : `, constraint ${constraint}`;
  return new DualrunError("DR9001", QUOTES_VALUES.test(state) ? `the database answered with SQLSTATE ${state}${named}` : `${message} (SQLSTATE ${state})`, { cause: error });
}
