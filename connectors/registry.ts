/** Engines by name: the only place that knows which there are. */
import { DualrunError, type Engine } from "../src/core/index.ts";
import { mariadb, mysql } from "./mysql/index.ts";
import { postgres } from "./postgres/index.ts";

const ENGINES: Readonly<Record<string, Engine>> = { postgres, mysql, mariadb };

/** In the order in which they are listed. */
export const ENGINE_NAMES: readonly string[] = Object.keys(ENGINES);

/** Throws DR1005 for an engine that is not available yet. */
export function engineOf(name: string): Engine {
  const engine = ENGINES[name];
  if (engine === undefined) throw new DualrunError("DR1005", `engine "${name}" is not available yet`, { where: "configuration" });
  return engine;
}
