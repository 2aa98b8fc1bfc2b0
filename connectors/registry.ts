/** Engines by name: the only place that knows which there are. */
import { DualrunError, type Engine, type Side } from "../src/core/index.ts";
import { mariadb, mysql } from "./mysql/index.ts";
import { postgres } from "./postgres/index.ts";

const ENGINES: Readonly<Record<Side, Readonly<Record<string, Engine>>>> = { source: { postgres, mysql, mariadb }, target: { postgres } };

/** Throws DR1005 for an engine that is not available on that side yet. */
export function engineOf(name: string, side: Side): Engine {
  const engine = ENGINES[side][name];
  if (engine === undefined) throw new DualrunError("DR1005", `engine "${name}" is not available as ${side === "source" ? "a source" : "a target"} yet`, { where: "configuration" });
  return engine;
}
