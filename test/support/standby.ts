/** A physical standby of a server of ours: a file copy of its cluster that follows its log. */
import { chown, cp, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { startEmbeddedPostgres, type EmbeddedServer } from "../../src/demo/servers.ts";
import { waitFor } from "./daemon.ts";

export interface Standby extends AsyncDisposable {
  readonly server: EmbeddedServer;
  /** Address of a database on it. */
  urlOf(database: string): string;
  /** Makes it a primary, and waits until it is. */
  promote(): Promise<void>;
}

const SLOT = "standby";

/** `database` is where logical slots are synchronised from; from 17 on. */
export async function startStandby(primary: EmbeddedServer, database: string, settings: Readonly<Record<string, string>> = {}): Promise<Standby> {
  const directory = await mkdtemp(join(tmpdir(), "dualrun-standby-"));
  await copyCluster(primary, directory);
  const address = new URL(primary.url);
  const server = await startEmbeddedPostgres({
    directory,
    settings: {
      primary_conninfo: `host=127.0.0.1 port=${primary.port} user=postgres password=${address.password} dbname=${database} application_name=${SLOT}`,
      primary_slot_name: SLOT, hot_standby_feedback: "on", wal_receiver_status_interval: "100ms", ...settings,
    },
  });
  const urlOf = (name: string): string => Object.assign(new URL(server.url), { pathname: `/${name}` }).toString();
  return {
    server, urlOf,
    async promote() {
      await query(urlOf("postgres"), "SELECT pg_promote()");
      await waitFor(async () => (await query(urlOf("postgres"), "SELECT pg_is_in_recovery() AS standby"))[0]!["standby"] === false, "the promotion");
    },
    async [Symbol.asyncDispose]() {
      await server.stop("immediate");
      await server[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function copyCluster(primary: EmbeddedServer, directory: string): Promise<void> {
  const client = new pg.Client({ connectionString: primary.url });
  await client.connect();
  try {
    await client.query(`SELECT pg_create_physical_replication_slot('${SLOT}', true)`);
    await client.query("SELECT pg_backup_start('standby', true)");
    await cp(join(primary.directory, "data"), join(directory, "data"), { recursive: true, preserveTimestamps: true });
    const { rows } = await client.query<{ labelfile: string }>("SELECT labelfile FROM pg_backup_stop(false)");
    const files: readonly (readonly [string, string])[] = [["data/backup_label", rows[0]!.labelfile], ["data/standby.signal", ""], ["password", decodeURIComponent(new URL(primary.url).password)]];
    for (const [name, content] of files) await writeFile(join(directory, name), content, { mode: 0o600 });
    await rm(join(directory, "data/postmaster.pid"), { force: true });
    await rm(join(directory, "data/pg_replslot"), { recursive: true, force: true });
    await cp(join(primary.directory, "data/pg_wal"), join(directory, "data/pg_wal"), { recursive: true });
    await mkdir(join(directory, "data/pg_replslot"), { mode: 0o700 });
    if (process.getuid?.() === 0) await give(directory);
  } finally {
    await client.end();
  }
}

/** Root's copies belong to whom the server runs as. */
async function give(directory: string): Promise<void> {
  const nobody = 65534;
  await chown(directory, nobody, nobody);
  for (const entry of await readdir(directory, { recursive: true })) await chown(join(directory, entry), nobody, nobody);
  await chown(join(directory, "password"), 0, 0);
}

export async function query(connectionString: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString });
  client.on("error", () => undefined);
  await client.connect();
  try {
    return (await client.query(sql)).rows as Record<string, unknown>[];
  } finally {
    await client.end();
  }
}
