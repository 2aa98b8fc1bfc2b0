/** Says once, and not at every tick, that a journal fills up, waits for room, and has room again. */
import type { JournalFacts, JournalLevel } from "../core/index.ts";

export class JournalWatch {
  private level: JournalLevel = "ok";

  /** The level that was just reached, worse or better than before; null: nothing has changed. */
  observe({ level }: Pick<JournalFacts, "level">): JournalLevel | null {
    if (level === this.level) return null;
    this.level = level;
    return level;
  }
}
