/** What both sides agreed upon when a mirror began, or when a schema change was accepted. */
import type { ValueFormat, TableLayout } from "./ports.ts";
import type { WhereType } from "./where.ts";
import type { Position, RecordClass } from "./words.ts";

export interface AgreedClass {
  readonly cls: RecordClass;
  /** How a copy of the class is encoded. */
  readonly format: ValueFormat;
  /** How `where` reads the columns that it names. */
  readonly whereTypes: Readonly<Record<string, WhereType>>;
}

export interface Agreement {
  readonly classes: readonly AgreedClass[];
  /** Layouts of the source's tables by `schema.table`. */
  readonly layouts: ReadonlyMap<string, TableLayout>;
  /** Schema changes that the log tells of before this place are part of what was agreed upon; absent: none are. */
  readonly acceptedUpTo?: Position;
}

/** The stream carries all classes, so it is binary only where every class may be. */
export function streamFormat(agreement: Agreement): ValueFormat {
  return agreement.classes.every(({ format }) => format === "binary") ? "binary" : "text";
}

const MAP_TAG = "$map";

/** As JSON; the same agreement always gives the same text. */
export function formatAgreement(agreement: Agreement): string {
  return JSON.stringify(agreement, (_, value: unknown) => (value instanceof Map ? { [MAP_TAG]: [...value] } : value));
}

export function parseAgreement(text: string): Agreement {
  return JSON.parse(text, (_, value: unknown) => {
    const entries = (value as { [MAP_TAG]?: [string, unknown][] } | null)?.[MAP_TAG];
    return entries === undefined ? value : new Map(entries);
  }) as Agreement;
}
