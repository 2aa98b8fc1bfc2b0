/** Watches how much log the source keeps for the mirror. It speaks; the slot is never dropped. */
import type { StatusDocument, StreamHealth } from "../core/index.ts";

export type SlotLevel = "ok" | "warn" | "max";

/** A level is left only when this share of its limit is no longer reached: figures that swing do not ring twice. */
const LEAVE_AT = 0.9;

export class SlotWatch {
  private readonly warnBytes: number;
  private readonly maxBytes: number;
  private level: SlotLevel = "ok";

  constructor(limits: { readonly slotRetainedBytesWarn: number; readonly slotRetainedBytesMax: number }) {
    this.warnBytes = limits.slotRetainedBytesWarn;
    this.maxBytes = limits.slotRetainedBytesMax;
  }

  /** The level that was just reached, worse or better than before; null: nothing has changed. */
  observe(retainedBytes: number | null): SlotLevel | null {
    if (retainedBytes === null) return null;
    const before = this.level;
    const factor = (limit: SlotLevel): number => (before === limit || (before === "max" && limit === "warn") ? LEAVE_AT : 1);
    this.level = retainedBytes >= this.maxBytes * factor("max") ? "max" : retainedBytes >= this.warnBytes * factor("warn") ? "warn" : "ok";
    return this.level === before ? null : this.level;
  }

  /** The slot as status and console show it: what the server says of it comes first. */
  judge(health: StreamHealth | null): StatusDocument["slot"] {
    const slot = { state: health?.state ?? "unknown", retainedBytes: health?.retainedBytes ?? null, detail: health?.detail ?? "" } as const;
    if (slot.state !== "ok" || this.level === "ok") return slot;
    return this.level === "max"
      ? { ...slot, state: "over-limit", detail: "the source keeps more log than safety.slotRetainedBytesMax: its disk is at risk. Mend the target or give the source room; the slot is not dropped" }
      : { ...slot, state: "near-limit", detail: "the source keeps more log than safety.slotRetainedBytesWarn" };
  }
}
