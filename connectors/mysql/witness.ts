/**
 * Whether a server's log is still the one that the target was filled from. RESET begins a log anew, with the same identity and
 * the same numbers for other transactions; tables outlive it. So a mark, which is a row and stands in the log, tells the two apart.
 */
import type { Pool } from "mariadb";
import { ENTRY, ENTRY_WORDS, type ChangeBlock, type Endpoint, type Position } from "../../src/core/index.ts";
import { query, type Flavour } from "./connection.ts";
import { quoteTable } from "./identifiers.ts";
import { MARKS } from "./layout.ts";
import { canonicalPosition, isWithin } from "./positions.ts";
import { openMysqlStream } from "./stream.ts";

const PATIENCE_MS = 60_000;

/** The last mark of a migration, and a place in the log that it stands behind. */
export interface Witness {
  readonly after: Position;
  readonly token: string;
}

/** What `dualrun.marks` consists of. */
export const MARKS_COLUMNS = "migration varchar(40) NOT NULL PRIMARY KEY, token varchar(200) NOT NULL, behind mediumtext CHARACTER SET ascii NOT NULL";

export async function writeMark(pool: Pool, migration: string, { after, token }: Witness): Promise<void> {
  await pool.query(`INSERT INTO ${quoteTable(MARKS)} (migration, token, behind) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE token = VALUES(token), behind = VALUES(behind)`, [migration, token, after]);
}

/** Null when there is none. */
export async function lastMark(pool: Pool, migration: string): Promise<Witness | null> {
  const [row] = await query(pool, `SELECT token, behind FROM ${quoteTable(MARKS)} WHERE migration = ?`, [migration]);
  return row === undefined ? null : { token: String(row["token"]), after: canonicalPosition(String(row["behind"])) };
}

/** Reads the log from the witness's place to the mark, which is among the first transactions there, or in vain to `head`. */
export async function standsInLog({ after, token }: Witness, head: Position, endpoint: Endpoint, flavour: Flavour, migration: string): Promise<boolean> {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  await using stream = await openMysqlStream(endpoint, { flavour, migration, after, layouts: new Map(), hints: new Map(), signal });
  for await (const block of stream.blocks()) {
    const place = lookFor(token, block);
    if (place === "found") return true;
    if (place !== null && isWithin(head, place)) return false;
  }
  throw signal.reason;
}

/** Where the block ends when the mark is not in it; null when it ends nowhere. */
function lookFor(token: string, block: ChangeBlock): Position | "found" | null {
  let last = -1;
  for (let entry = 0; entry < block.count; entry++) {
    const kind = block.words[entry * ENTRY_WORDS];
    if (kind === ENTRY.mark && block.mark(entry) === token) return "found";
    if (kind === ENTRY.commit || kind === ENTRY.idle) last = entry;
  }
  return last < 0 ? null : block.position(last);
}
