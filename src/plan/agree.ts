/** What both sides can agree upon today: the configuration against both catalogues. */
import type { Config } from "../config/index.ts";
import {
  DualrunError, whereColumns, whereTypeOf,
  type AgreedClass, type Agreement, type Catalogue, type Conversion, type Finding, type RecordClass, type Source, type Target, type WhereType,
} from "../core/index.ts";
import { resolveClasses } from "./classes.ts";

export interface Proposal {
  readonly agreement: Agreement;
  /** One line each. */
  readonly warnings: readonly string[];
}

/** Reads both catalogues and resolves the classes; with `refuse`, faults found by preflight are thrown together as DR3001. */
export async function agree(config: Config, source: Source, target: Target, options: { readonly refuse: boolean }): Promise<Proposal> {
  const [sourceFacts, targetFacts] = await Promise.all([source.inspect(), target.inspect()]);
  const { classes: resolved, findings } = resolveClasses(config, sourceFacts, targetFacts, target.dialect);
  const classes = sourceFacts.server.engine === targetFacts.server.engine ? resolved : resolved.map((cls) => converted(cls, target.conversions(cls, targetFacts)));
  const all = [...findings, ...source.preflight(classes, sourceFacts), ...target.preflight(classes, targetFacts, sourceFacts)];
  const errors = all.filter((finding) => finding.severity === "error");
  if (options.refuse && errors.length > 0) {
    throw new DualrunError("DR3001", `preflight found ${errors.length} faults`, { details: errors.map(line) });
  }
  const agreed = classes.map((cls): AgreedClass => ({
    cls, format: target.formats(cls, sourceFacts, targetFacts), whereTypes: whereTypes(cls, sourceFacts),
  }));
  return {
    agreement: { classes: agreed, layouts: await source.layouts(classes.map((cls) => cls.source)) },
    warnings: [...new Set(all.filter((finding) => finding.severity === "warning").map(line))],
  };
}

function converted(cls: RecordClass, conversions: Readonly<Record<string, Conversion>>): RecordClass {
  return { ...cls, columns: cls.columns.map((column) => (column.from === null || column.map !== null || conversions[column.target] === undefined ? column : { ...column, conversion: conversions[column.target]! })) };
}

function line(finding: Finding): string {
  return `${finding.check}: ${finding.what} → ${finding.mend}`;
}

/** How `where` reads each column that it names. */
function whereTypes(cls: RecordClass, catalogue: Catalogue): Record<string, WhereType> {
  if (cls.where === null) return {};
  const table = catalogue.tables.find((facts) => facts.table.schema === cls.source.schema && facts.table.name === cls.source.name);
  return Object.fromEntries([...whereColumns(cls.where)].map((column) => {
    const facts = table?.columns.find((one) => one.name === column);
    return [column, facts === undefined ? "text" : whereTypeOf(facts)];
  }));
}
