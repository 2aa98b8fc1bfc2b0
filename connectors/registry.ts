/** Engines and journals by name: the only place that knows which there are. */
import { DualrunError, type Engine, type Journal, type JournalInspection, type Positions, type Side } from "../src/core/index.ts";
import { mariadb, mysql } from "./mysql/index.ts";
import { postgres } from "./postgres/index.ts";

const ENGINES: Readonly<Record<Side, Readonly<Record<string, Engine>>>> = { source: { postgres, mysql, mariadb }, target: { postgres } };

/** All that are known, whichever sides they can be. */
export const KNOWN_ENGINES: readonly Engine[] = [postgres, mysql, mariadb];

/** Throws DR1005 for an engine that is not available on that side yet. */
export function engineOf(name: string, side: Side): Engine {
  const engine = ENGINES[side][name];
  if (engine === undefined) throw new DualrunError("DR1005", `engine "${name}" is not available as ${side === "source" ? "a source" : "a target"} yet`, { where: "configuration" });
  return engine;
}

export type JournalSettings =
  | { readonly kind: "none" }
  /** `maxBytes` in bytes; `key` are 32 bytes, or null. */
  | { readonly kind: "sqlite"; readonly path: string; readonly maxBytes: number; readonly key: Uint8Array | null };

/** The journal of a migration and its target, whom `owner` names; null: there is none. DR5101, DR5103, DR5104. */
export async function openJournal(settings: JournalSettings, owner: string, positions: Positions): Promise<Journal | null> {
  return settings.kind === "none" ? null : (await import("./sqlite/index.ts")).openSqliteJournal({ ...settings, owner, positions });
}

/** What stands in a journal's file; null: there is none. DR5104. */
export async function inspectJournal(settings: JournalSettings): Promise<JournalInspection | null> {
  return settings.kind === "none" ? null : (await import("./sqlite/index.ts")).inspectSqliteJournal(settings);
}
