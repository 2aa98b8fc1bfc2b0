import type { ColumnFacts, CommonFit, Engine } from "../../src/core/index.ts";
import { typeSamples } from "./common-types.ts";
import { isTransient } from "./connection.ts";
import { connectPostgresSource } from "./source.ts";
import { connectPostgresTarget } from "./target.ts";
import { typeFit, valueType } from "./typefit.ts";

export const postgres: Engine = { name: "postgres", connectSource: connectPostgresSource, connectTarget: connectPostgresTarget, isTransient, typeSamples: typeSamples(), fitWithin };

/** Types that PostgreSQL brings, so that nothing has to be looked up. */
function fitWithin(from: ColumnFacts, to: ColumnFacts): CommonFit {
  const fit = typeFit(valueType(from, { definitions: {} }), valueType(to, { definitions: {} }));
  if (!fit.fits) return { fits: "refused", note: fit.reason };
  return fit.note === null ? { fits: "exact", note: null } : { fits: "widened", note: fit.note };
}
