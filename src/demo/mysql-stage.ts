/** The demo from MySQL or MariaDB to PostgreSQL. */
import { DualrunError, isDualrunError } from "../core/index.ts";
import { installedBinaries, unpackedBinaries, type MysqlBinaries, type MysqlFlavour } from "./mysql-binaries.ts";
import { furnishMysql, MYSQL_DEMO_CLASSES, READINGS_ON_POSTGRES } from "./mysql-schema.ts";
import { startMysql, type MysqlServer } from "./mysql-servers.ts";
import { withDemo } from "./mysql-session.ts";
import { verifyAcross } from "./mysql-verify.ts";
import { startMysqlWorkload } from "./mysql-workload.ts";
import { createDemoSchema } from "./schema.ts";
import { both, postgresServer, startPostgres, withClient, type DemoServer, type DemoStage } from "./stage.ts";

type MysqlEngine = "mysql" | "mariadb";

const NAMES = { mysql: "MySQL", mariadb: "MariaDB" } as const;
/** In the order in which they are tried. */
const FLAVOURS: Readonly<Record<MysqlEngine, readonly MysqlFlavour[]>> = { mysql: ["mysql-9.7"], mariadb: ["mariadb-10.11", "mariadb-11.8"] };
const DATABASE = "billing";

/**
 * A stage with its servers running.
 * @throws DualrunError DR2001 when this machine cannot have the source's server.
 */
export async function mysqlStage(engine: MysqlEngine, stack: AsyncDisposableStack): Promise<DemoStage> {
  const binaries = await demoBinaries(engine);
  const [mysql, postgres] = await both(startSource(binaries, stack), startPostgres(stack));
  const [source, target] = [sourceServer(mysql), postgresServer(postgres)];
  return {
    source, target, classes: MYSQL_DEMO_CLASSES,
    furnish: (scale) => furnish(mysql.url, source.url, target.url, scale),
    startWorkload: (transactionsPerSecond) => startMysqlWorkload(source.url, { transactionsPerSecond }),
    verify: () => verifyAcross(source.url, target.url, MYSQL_DEMO_CLASSES.map(({ table }) => table)),
  };
}

async function startSource(binaries: MysqlBinaries, stack: AsyncDisposableStack): Promise<MysqlServer> {
  return stack.use(await startMysql({ flavour: binaries.flavour, binaries }));
}

function sourceServer({ engine, version, url }: MysqlServer): DemoServer {
  return { engine, name: `${NAMES[engine]} ${version}`, url: new URL(`/${DATABASE}`, url).href };
}

async function furnish(server: string, source: string, target: string, scale: number): Promise<number> {
  await withDemo(server, (connection) => connection.query(`create database ${DATABASE} character set utf8mb4`));
  await withClient(target, async (client) => {
    await createDemoSchema(client, "target");
    await client.query(READINGS_ON_POSTGRES);
  });
  return withDemo(source, (connection) => furnishMysql(connection, { scale }));
}

/** What is installed comes first, then what can be fetched. */
async function demoBinaries(engine: MysqlEngine): Promise<MysqlBinaries> {
  for (const flavour of FLAVOURS[engine]) {
    const installed = await installedBinaries(flavour);
    if (installed !== null) return installed;
  }
  const reasons: string[] = [];
  for (const flavour of FLAVOURS[engine]) {
    try {
      return await unpackedBinaries(flavour);
    } catch (error) {
      if (!isDualrunError(error)) throw error;
      reasons.push(`${flavour}: ${error.message}`, ...error.details);
    }
  }
  const versions = FLAVOURS[engine].map((flavour) => flavour.slice(engine.length + 1)).join(" or ");
  throw new DualrunError("DR2001", `the demo cannot have a ${NAMES[engine]} server on this machine`, {
    where: "--from", details: reasons,
    next: `Install ${NAMES[engine]} ${versions} so that its server is on PATH, or run this where Debian's packages can be fetched (apt-get and dpkg).`,
  });
}
