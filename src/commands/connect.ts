/** Both databases at once, for commands that look at them. */
import { engineOf } from "../../connectors/registry.ts";
import { DualrunError, isDualrunError, type Endpoint, type Source, type Target } from "../core/index.ts";

export interface Side extends Endpoint {
  readonly engine: string;
}

export interface BothSides extends AsyncDisposable {
  readonly source: Source;
  readonly target: Target;
}

/** Connects to both sides; when neither can be reached, one error says so of both. */
export async function connectBoth(source: Side, target: Side, migration: string): Promise<BothSides> {
  const engines = { source: engineOf(source.engine, "source"), target: engineOf(target.engine, "target") };
  const [from, to] = await Promise.allSettled([engines.source.connectSource(source, migration, null), engines.target.connectTarget(target, migration)]);
  const opened = [from, to].flatMap((side): AsyncDisposable[] => (side.status === "fulfilled" ? [side.value] : []));
  const close = async (): Promise<void> => void (await Promise.allSettled(opened.map((side) => side[Symbol.asyncDispose]())));
  if (from.status === "fulfilled" && to.status === "fulfilled") return { source: from.value, target: to.value, [Symbol.asyncDispose]: close };
  await close();
  const failed = [{ side: "source", result: from }, { side: "target", result: to }]
    .flatMap(({ side, result }) => (result.status === "rejected" ? [{ side, reason: result.reason as unknown }] : []));
  throw failure(failed);
}

function failure(failed: readonly { readonly side: string; readonly reason: unknown }[]): unknown {
  const first = failed[0]!.reason;
  if (!isDualrunError(first) || !failed.every(({ reason }) => isDualrunError(reason) && reason.code === first.code)) return first;
  const details = failed.map(({ side, reason }) => `${side}: ${(reason as DualrunError).message}`);
  return failed.length === 1 ? new DualrunError(first.code, details[0]!, { details: first.details, next: first.next, cause: first }) : new DualrunError(first.code, "neither source nor target can be used", { details, next: first.next, cause: first });
}
