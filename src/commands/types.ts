/** The written table of types: what check and mapper decide by, for a column of each type. */
import { KNOWN_ENGINES } from "../../connectors/registry.ts";
import { commonFit, DualrunError, equated, isKnownPair, type ColumnFacts, type CommonFit, type Engine } from "../core/index.ts";
import { print, printJson } from "./shared.ts";

export interface TypesOptions {
  readonly from?: string;
  readonly to?: string;
  readonly json?: boolean;
}

/** One type of the source and one of the target. */
export interface TypePair {
  readonly from: string;
  readonly to: string;
  readonly fits: CommonFit["fits"];
  /** Why, or what becomes of a value; null where there is nothing to say. */
  readonly note: string | null;
  /** What of a value a comparison looks at; null: all of it. */
  readonly compared: string | null;
}

/** All pairs of two engines about which there is something to say; every other pair is refused. */
export interface TypeTable {
  readonly from: Engine["name"];
  readonly to: Engine["name"];
  readonly pairs: readonly TypePair[];
}

/** Prints the tables between the engines asked for; without any, all between different engines. */
export async function types(options: TypesOptions): Promise<void> {
  const tables = typeTables(options);
  if (options.json === true) printJson({ tables });
  else for (const table of tables) print(tableText(table));
}

/** @throws DualrunError DR1005 for an engine that there is not. */
export function typeTables({ from, to }: Pick<TypesOptions, "from" | "to">): TypeTable[] {
  const [sources, targets] = [known(from, "--from"), known(to, "--to")];
  const exactlyOne = from !== undefined && to !== undefined;
  return sources.flatMap((source) => targets.filter((target) => exactlyOne || target !== source).map((target) => tableOf(source, target)));
}

function known(name: string | undefined, where: string): readonly Engine[] {
  const engines = KNOWN_ENGINES.filter((engine) => name === undefined || engine.name === name);
  if (engines.length === 0) throw new DualrunError("DR1005", `engine "${name}" is not available yet`, { where });
  return engines;
}

function tableOf(source: Engine, target: Engine): TypeTable {
  const within = source === target ? source.fitWithin : undefined;
  const pairs = source.typeSamples.flatMap((from) => target.typeSamples.flatMap((to): TypePair[] => {
    const { fits, note } = within === undefined ? commonFit(from.common, to.common) : within(from, to);
    if (fits === "refused" && !isWorthSaying(from, to)) return [];
    return [{ from: from.type, to: to.type, fits, note, compared: fits === "refused" || within !== undefined ? null : equated(from.common, to.common) }];
  }));
  return { from: source.name, to: target.name, pairs };
}

/** Nobody expects a date to become a number. */
function isWorthSaying(from: ColumnFacts, to: ColumnFacts): boolean {
  return isKnownPair(from.common, to.common);
}

function tableText({ from, to, pairs }: TypeTable): string {
  const rows = pairs.map((pair, i) => [pair.from === pairs[i - 1]?.from ? "" : pair.from, pair.to, pair.fits, remark(pair)]);
  const header = [from, to, "fits", ""];
  const widths = [0, 1, 2].map((column) => Math.max(...[header, ...rows].map((row) => row[column]!.length)));
  const text = (row: readonly string[]): string => row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join("  ").trimEnd();
  return [text(header), ...rows.map(text), "Every other pair is refused.", ""].join("\n");
}

function remark({ note, compared }: TypePair): string {
  return [note, compared === null ? null : `compared: ${compared}`].filter((part) => part !== null).join("; ");
}
