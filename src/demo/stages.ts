/** Which pairs of engines the demo can be played with. */
import { DualrunError } from "../core/index.ts";
import { mysqlStage } from "./mysql-stage.ts";
import { createDemoSchema, DEMO_CLASSES, seed } from "./schema.ts";
import { both, postgresServer, startPostgres, withClient, type DemoStage, type StageMaker } from "./stage.ts";
import { verifyTables } from "./verify.ts";
import { startWorkload } from "./workload.ts";

/**
 * The stage for a pair of engines.
 * @throws DualrunError DR1005 for an engine that is not available as that side.
 */
export function stageFor(from: string, to: string): StageMaker {
  if (to !== "postgres") throw new DualrunError("DR1005", `engine "${to}" is not available as the demo's target yet`, { where: "--to", next: "Use `--to postgres`." });
  if (from === "postgres") return postgresStage;
  if (from !== "mysql" && from !== "mariadb") throw new DualrunError("DR1005", `engine "${from}" is not available as the demo's source`, { where: "--from", next: "Use `--from postgres`, `--from mysql` or `--from mariadb`." });
  return (stack) => mysqlStage(from, stack);
}

async function postgresStage(stack: AsyncDisposableStack): Promise<DemoStage> {
  const [source, target] = await both(startPostgres(stack), startPostgres(stack));
  return {
    source: postgresServer(source), target: postgresServer(target), classes: DEMO_CLASSES,
    furnish: (scale) => furnish(source.url, target.url, scale),
    startWorkload: (transactionsPerSecond) => startWorkload(source.url, { transactionsPerSecond }),
    verify: () => verifyTables(source.url, target.url, DEMO_CLASSES.map(({ table }) => table)),
  };
}

async function furnish(source: string, target: string, scale: number): Promise<number> {
  await withClient(target, (client) => createDemoSchema(client, "target"));
  return withClient(source, async (client) => {
    await createDemoSchema(client, "source");
    return seed(client, { scale });
  });
}
