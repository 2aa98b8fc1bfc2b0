/** The verifier proves itself: known errors, planted one by one on a class of its own, must each be found. */
import { PLANTED_ERRORS, sameLanes, type ReadLimits, type Scratch, type SelfTestDocument, type Source, type Target } from "../core/index.ts";
import { businessDays } from "./days.ts";
import { totalsAgree } from "./figures.ts";
import { locate } from "./locate.ts";

/** Rows that each error concerns: a swapped pair two, the others one. */
const CONCERNS = { "swapped pair": 2 } as Readonly<Record<string, number>>;

export async function selfTest(source: Source, target: Target, limits: ReadLimits): Promise<SelfTestDocument> {
  await using left = await source.scratch(limits);
  await using right = await target.scratch(limits);
  const equalBefore = (await differing(left, right)) === 0;
  const errors: SelfTestDocument["errors"][number][] = [];
  for (const error of PLANTED_ERRORS) {
    await right.plant(error);
    const rows = await differing(left, right);
    errors.push({ error, rows, found: rows === (CONCERNS[error] ?? 1) });
    await right.restore();
  }
  return { passed: equalBefore && errors.every(({ found }) => found), errors, equalBefore };
}

/** How many rows are found to differ: by the figures first, as a comparison does, then one by one. */
async function differing(left: Scratch, right: Scratch): Promise<number> {
  const request = { days: businessDays("UTC", "UTC"), shares: "all" } as const;
  const [ours, theirs] = await Promise.all([left.reader.totals(left.compared, request), right.reader.totals(right.compared, request)]);
  if (totalsAgree(ours, theirs) && sameLanes(ours.lanes, theirs.lanes)) return 0;
  return (await locate({ source: left.reader, target: right.reader }, left.compared)).suspects.length;
}
