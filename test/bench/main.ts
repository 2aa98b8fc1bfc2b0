/**
 * Benchmarks: two contestants in turn in one run, medians and ratios. Never fails by the clock.
 *
 *     npm run bench                    everything
 *     npm run bench -- inserts tpcb    chosen ones
 *     BENCH_ROUNDS=3 BENCH_SCALE=0.1   fewer rounds, smaller work
 */
import { BENCHMARKS } from "./benchmarks.ts";

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !(name in BENCHMARKS));
if (unknown.length > 0) {
  process.stderr.write(`unknown: ${unknown.join(", ")}; there are ${Object.keys(BENCHMARKS).join(", ")}\n`);
  process.exit(2);
}
const rounds = Number(process.env["BENCH_ROUNDS"] ?? 5);
const scale = Number(process.env["BENCH_SCALE"] ?? 1);
for (const [name, run] of Object.entries(BENCHMARKS)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue;
  process.stdout.write(`\n${name}\n`);
  await run({ rounds, scale, say: (line) => void process.stdout.write(`  ${line}\n`) });
}
