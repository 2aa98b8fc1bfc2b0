/** PostgreSQL as the source of a mirror. */
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import {
  DualrunError,
  type Catalogue, type ChangeStream, type Checkpoint, type CutMaker, type Endpoint, type Finding, type Freeze, type FreezeHolder, type PassedTransactions, type Position, type ReadLimits, type RecordClass, type SchemaTrigger, type Scratch,
  type SequenceValue, type Snapshot, type Source, type StreamHealth, type TableLayout, type TableName, type ValueFormat,
} from "../../src/core/index.ts";
import { certificateExpiry, connect, connectPool, sqlState, withClient } from "./connection.ts";
import { SlotCut, SlotFreeCut, StandbyCut, hiddenBy, runningSnapshot, type RunningSnapshot } from "./cut.ts";
import { installDdlTrigger, removeDdlTrigger } from "./ddl-trigger.ts";
import { PostgresFreeze } from "./freeze.ts";
import { sourceGrants } from "./grants.ts";
import { quoteTable } from "./identifiers.ts";
import { inspectEndpoint } from "./inspect.ts";
import { lsnPositions, lsnToBigInt } from "./lsn.ts";
import { IDENTITY_FACT, KEY_FACT, MARK_PREFIX, RELATION_FACT, columnLine, layoutDifferences } from "./pgoutput.ts";
import { preflightSource } from "./preflight.ts";
import { openScratch } from "./scratch.ts";
import { readSequences } from "./sequences.ts";
import { openPostgresSnapshot } from "./snapshot.ts";
import { openPostgresStream } from "./stream.ts";

/** Writers that end within this time are waited for. */
const WRITER_PATIENCE_MS = 1_000;
const WRITER_POLL_MS = 20;
/** How long a slot may stay in use by a predecessor that was killed. */
const SLOT_RELEASE_TRIES = 150;

export async function connectPostgresSource(endpoint: Endpoint, migration: string, replica: Endpoint | null): Promise<PostgresSource> {
  return new PostgresSource(endpoint, migration, replica, await connectPool(endpoint, { application: `dualrun ${migration}`, settings: { synchronous_commit: "local" } })); // markers need not wait for standbys
}

export class PostgresSource implements Source {
  readonly positions = lsnPositions;
  private readonly endpoint: Endpoint;
  private readonly migration: string;
  private readonly name: string;
  private readonly replica: Endpoint | null;
  private readonly client: pg.Pool;
  /** The first transaction that cannot have ended before the stream was opened. */
  private streamSince = 0n;

  constructor(endpoint: Endpoint, migration: string, replica: Endpoint | null, client: pg.Pool) {
    this.endpoint = endpoint;
    this.replica = replica;
    this.migration = migration;
    this.name = `dualrun_${migration.replaceAll("-", "_")}`;
    this.client = client;
  }

  async identity(): Promise<string> {
    const { systemid, timeline } = await this.identify();
    return `${systemid}/${timeline}`;
  }

  certificateExpiry(): Promise<Date | null> {
    return certificateExpiry(this.endpoint, { application: `${this.name} certificate` });
  }

  inspect(): Promise<Catalogue> {
    return inspectEndpoint(this.endpoint, `${this.name} inspect`);
  }

  preflight(classes: readonly RecordClass[], catalogue: Catalogue): Finding[] {
    return preflightSource(classes, catalogue);
  }

  grants(classes: readonly RecordClass[], catalogue: Catalogue): string[] {
    return sourceGrants(classes, catalogue);
  }

  async head(): Promise<Position> {
    const { rows } = await this.client.query<{ lsn: string }>("SELECT pg_current_wal_lsn()::text AS lsn");
    return rows[0]!.lsn as Position;
  }

  async mark(token: string): Promise<Position> {
    const { rows } = await this.client.query<{ lsn: string }>("SELECT pg_current_wal_insert_lsn()::text AS lsn");
    await this.client.query("SELECT pg_logical_emit_message(true, $1, $2)", [MARK_PREFIX, token]);
    return rows[0]!.lsn as Position;
  }

  async openSnapshot(classes: readonly RecordClass[], purpose: "first" | "more", readers: number, signal: AbortSignal): Promise<Snapshot> {
    if (purpose === "first") {
      await this.publish(classes);
      await this.dropSlot();
    }
    const catalogue = await this.inspect();
    const replication = await connect(this.endpoint, { application: `${this.name} export`, replication: true });
    const giveUp = (): void => void this.terminate(replication);
    signal.addEventListener("abort", giveUp, { once: true });
    try {
      signal.throwIfAborted();
      const exported = await this.createSlot(replication, purpose, catalogue.server.versionNumber);
      return await openPostgresSnapshot(this.endpoint, this.name, catalogue, exported, readers);
    } finally {
      signal.removeEventListener("abort", giveUp);
      await replication.end().catch(() => undefined); // a temporary slot goes with its connection, and so does the log that it held
    }
  }

  async resumeCheck(checkpoint: Checkpoint): Promise<string> {
    const now = await this.identify();
    await this.checkIdentity(checkpoint, now);
    await this.checkSlot(checkpoint);
    await this.noteStreamBegins();
    return `${now.systemid}/${now.timeline}`;
  }

  async openStream(after: Position, format: ValueFormat, layouts: ReadonlyMap<string, TableLayout>, signal: AbortSignal): Promise<ChangeStream> {
    await this.noteStreamBegins();
    return openPostgresStream(this.endpoint, { slot: this.name, publication: this.name, after, format, layouts, signal });
  }

  /** Where a journal brings the stream, it is opened elsewhere: the check before it is then the latest moment that is known here. */
  private async noteStreamBegins(): Promise<void> {
    const { rows } = await this.client.query<{ number: string }>("SELECT pg_current_xact_id()::text AS number");
    this.streamSince = BigInt(rows[0]!.number);
  }

  async prepareCut(limits: ReadLimits, passed: PassedTransactions): Promise<CutMaker> {
    if (this.replica !== null) return StandbyCut.prepare(this.replica, this.name, limits, () => this.mark("cut"));
    if (await this.writersEnd()) return SlotCut.prepare(this.endpoint, this.client, this.name, limits);
    return SlotFreeCut.prepare(this.endpoint, this.name, limits, { passed, since: this.streamSince });
  }

  /** Making a slot waits for every transaction that is writing: worth while where none of them writes for long. */
  private async writersEnd(): Promise<boolean> {
    await this.client.query("SELECT pg_current_xact_id()"); // a snapshot does not list what began after the last transaction that has ended
    let writing = (await this.snapshot()).running;
    for (const deadline = Date.now() + WRITER_PATIENCE_MS; writing.length > 0 && Date.now() < deadline;) {
      await sleep(WRITER_POLL_MS);
      const now = new Set((await this.snapshot()).running);
      writing = writing.filter((number) => now.has(number));
    }
    return writing.length === 0;
  }

  async forgetVisible(passed: PassedTransactions): Promise<void> {
    passed.keepHidden(hiddenBy(await this.snapshot()));
  }

  private async snapshot(): Promise<RunningSnapshot> {
    return runningSnapshot((await this.client.query<{ s: string }>("SELECT pg_current_snapshot()::text AS s")).rows[0]!.s);
  }

  freezer(holder: FreezeHolder): Freeze {
    return new PostgresFreeze(this.endpoint, this.migration, "source", holder, this.client);
  }

  readSequences(classes: readonly RecordClass[]): Promise<SequenceValue[]> {
    return readSequences(this.client, classes);
  }

  scratch(limits: ReadLimits): Promise<Scratch> {
    return openScratch(this.endpoint, "source", this.name, limits);
  }

  async streamHealth(): Promise<StreamHealth> {
    const { rows } = await this.client.query<{ head: string; found: boolean; status: string | null; safe: string | null; retained: string | null }>(`
      SELECT pg_current_wal_lsn()::text AS head, s.slot_name IS NOT NULL AS found, s.wal_status AS status, s.safe_wal_size AS safe,
        pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) AS retained
      FROM (SELECT $1::name AS name) AS wanted LEFT JOIN pg_replication_slots AS s ON s.slot_name = wanted.name`, [this.name]);
    const { head, found, status, safe, retained } = rows[0]!;
    const retainedBytes = retained === null ? null : Number(retained);
    const health = (state: StreamHealth["state"], detail: string): StreamHealth => ({ head: head as Position, retainedBytes, state, detail });
    if (!found) return health("missing", `slot "${this.name}" does not exist`);
    if (status === "lost") return health("lost", `slot "${this.name}" was invalidated: the log that it needs is gone`);
    if (status === "unreserved") return health("near-limit", `slot "${this.name}" is about to be invalidated: it is beyond max_slot_wal_keep_size`);
    if (safe !== null && retainedBytes !== null && Number(safe) < retainedBytes) return health("near-limit", `slot "${this.name}" has used more than half of max_slot_wal_keep_size`);
    return health("ok", "");
  }

  async layouts(tables: readonly TableName[]): Promise<Map<string, TableLayout>> {
    const { rows } = await this.client.query<{ table: string; columns: { name: string; type: string; modifier: number }[] | null; facts: string[]; streamed: boolean }>(LAYOUTS, [
      tables.map((table) => table.schema), tables.map((table) => table.name), this.name,
    ]);
    return new Map(rows.map(({ table, columns, facts, streamed }) => [table, {
      streamed,
      columns: (columns ?? []).map(({ name, type, modifier }) => columnLine(name, Number(type), modifier)),
      facts,
    }]));
  }

  layoutDifferences(agreed: TableLayout, found: TableLayout): string[] {
    const gone = agreed.facts.filter((fact) => !found.facts.includes(fact));
    return [...layoutDifferences(agreed.columns, found.columns), ...gone.map((fact) => `no longer holds: ${fact}`)];
  }

  schemaTrigger(): SchemaTrigger {
    const state = async (): Promise<boolean> => (await this.client.query("SELECT 1 FROM pg_event_trigger WHERE evtname = $1 AND evtenabled <> 'D'", [this.name])).rows.length > 0;
    const execute = async (statements: readonly string[]): Promise<void> => withClient(this.client, async (client) => {
      await client.query(`BEGIN; ${statements.join(";\n")}; COMMIT`);
    });
    const [install, remove] = [installDdlTrigger(this.name), removeDdlTrigger(this.name)];
    return { statements: install, isInstalled: state, install: () => execute(install), remove: () => execute(remove) };
  }

  async tearDown(): Promise<void> {
    if (await this.schemaTrigger().isInstalled()) await this.schemaTrigger().remove();
    await this.dropSlot();
    await this.client.query(`DROP PUBLICATION IF EXISTS "${this.name}"`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.end().catch(() => undefined); // it may be broken already
  }

  // ------------------------------------------------------------ slot and publication

  private async createSlot(replication: pg.Client, purpose: "first" | "more", version: number): Promise<{ name: string; position: Position }> {
    const options = version >= 150_000
      ? `LOGICAL pgoutput (SNAPSHOT 'export'${version >= 170_000 && purpose === "first" ? ", FAILOVER true" : ""})`
      : "LOGICAL pgoutput EXPORT_SNAPSHOT";
    const slot = purpose === "first" ? `"${this.name}"` : `"${this.name}_${process.pid}_${Date.now() % 1_000_000}" TEMPORARY`;
    const result = (await replication.query(`CREATE_REPLICATION_SLOT ${slot} ${options}`)) as unknown as { rows: { consistent_point: string; snapshot_name: string }[] };
    const { consistent_point: position, snapshot_name: name } = result.rows[0]!;
    // The exported snapshot lives as long as this connection is idle: the readers import it before the connection is closed.
    return { name, position: position as Position };
  }

  /** A slot waits for every transaction that is open on the source, however long that takes, and does not notice when its client leaves. */
  private async terminate(client: pg.Client): Promise<void> {
    const { processID } = client as unknown as { processID: number };
    await this.client.query("SELECT pg_terminate_backend($1)", [processID]).catch(() => client.end());
  }

  async publish(classes: readonly RecordClass[]): Promise<void> {
    const wanted = [...new Set(classes.map((cls) => quoteTable(cls.source)))].sort();
    const { rows } = await this.client.query<{ root: boolean; complete: boolean }>(
      "SELECT pubviaroot AS root, pubinsert AND pubupdate AND pubdelete AND pubtruncate AS complete FROM pg_publication WHERE pubname = $1", [this.name]);
    if (rows[0] === undefined) {
      await this.client.query(`CREATE PUBLICATION "${this.name}" FOR TABLE ${wanted.join(", ")} WITH (publish_via_partition_root = true)`);
      return;
    }
    const { rows: published } = await this.client.query<{ table: string }>(
      "SELECT format('%I.%I', schemaname, tablename) AS table FROM pg_publication_tables WHERE pubname = $1", [this.name]);
    const same = rows[0].root && rows[0].complete && (await this.sameTables(published.map((row) => row.table), wanted));
    if (same) return;
    await this.client.query(`ALTER PUBLICATION "${this.name}" SET TABLE ${wanted.join(", ")}`);
    await this.client.query(`ALTER PUBLICATION "${this.name}" SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`);
  }

  private async sameTables(published: readonly string[], wanted: readonly string[]): Promise<boolean> {
    const { rows } = await this.client.query<{ same: boolean }>(
      "SELECT (SELECT array_agg(t::regclass ORDER BY 1) FROM unnest($1::text[]) AS t) = (SELECT array_agg(t::regclass ORDER BY 1) FROM unnest($2::text[]) AS t) AS same",
      [published, wanted]);
    return rows[0]!.same;
  }

  /** Only for a slot from which nothing was ever copied, or whose stream is over. Waits for a killed predecessor to let go. */
  private async dropSlot(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        await this.client.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", [this.name]);
        return;
      } catch (error) {
        if (sqlState(error) !== "55006" || attempt >= SLOT_RELEASE_TRIES) throw error;
        await sleep(200);
      }
    }
  }

  // ------------------------------------------------------------ may we go on?

  private async identify(): Promise<{ systemid: string; timeline: number }> {
    const client = await connect(this.endpoint, { application: `${this.name} identify`, replication: true });
    try {
      const { rows } = await client.query<{ systemid: string; timeline: number }>("IDENTIFY_SYSTEM");
      return { systemid: rows[0]!.systemid, timeline: Number(rows[0]!.timeline) };
    } finally {
      await client.end().catch(() => undefined); // nothing depends on it any more
    }
  }

  private async checkIdentity(checkpoint: Checkpoint, now: { systemid: string; timeline: number }): Promise<void> {
    const [systemid, timeline] = (checkpoint.sourceIdentity ?? "").split("/");
    if (systemid !== now.systemid) {
      throw new DualrunError("DR4003", `the checkpoint belongs to system ${systemid}, this server is ${now.systemid}`, { where: "source" });
    }
    if (Number(timeline) === now.timeline) return;
    const switched = await this.switchPoint(Number(timeline), now.timeline);
    if (switched === null) {
      throw new DualrunError("DR4005", `timeline ${now.timeline} does not descend from timeline ${timeline}`, { where: "source" });
    }
    if (lsnToBigInt(checkpoint.position!) > lsnToBigInt(switched)) {
      throw new DualrunError("DR4005", `the target holds changes up to ${checkpoint.position}, the promoted standby left the old timeline at ${switched}`, { where: "source" });
    }
    const { rows } = await this.client.query<{ synced: boolean }>(
      "SELECT coalesce((to_jsonb(s) ->> 'synced')::boolean, false) AS synced FROM pg_replication_slots AS s WHERE slot_name = $1", [this.name]);
    if (rows[0]?.synced !== true) {
      throw new DualrunError("DR4005", `slot "${this.name}" was not synchronised from the old primary`, { where: "source" });
    }
  }

  /** Where the given timeline was left on the way to the present one; null when it is not an ancestor. */
  private async switchPoint(from: number, to: number): Promise<string | null> {
    const client = await connect(this.endpoint, { application: `${this.name} timeline`, replication: true });
    try {
      const { rows } = await client.query<{ content: Buffer | string }>(`TIMELINE_HISTORY ${to}`);
      const history = rows[0]!.content.toString().split("\n").map((line) => line.trim().split(/\s+/));
      return history.find(([timeline]) => Number(timeline) === from)?.[1] ?? null;
    } finally {
      await client.end().catch(() => undefined); // nothing depends on it any more
    }
  }

  private async checkSlot(checkpoint: Checkpoint): Promise<void> {
    const { rows } = await this.client.query<{ confirmed: string | null; status: string | null; here: boolean }>(
      "SELECT confirmed_flush_lsn::text AS confirmed, wal_status AS status, database = current_database() AS here FROM pg_replication_slots WHERE slot_name = $1", [this.name]);
    const slot = rows[0];
    if (slot === undefined || !slot.here) throw new DualrunError("DR4004", `slot "${this.name}" does not exist in this database`, { where: "source" });
    if (slot.status === "lost") throw new DualrunError("DR4004", `slot "${this.name}" was invalidated`, { where: "source" });
    if (slot.confirmed !== null && lsnToBigInt(slot.confirmed) > lsnToBigInt(checkpoint.position!)) {
      throw new DualrunError("DR4002", `the target stands at ${checkpoint.position}, but it had confirmed ${slot.confirmed} to the source`, { where: "target" });
    }
  }
}

/** CREATE TABLE … PARTITION OF attaches 3 command numbers after it has made the table; CREATE, INSERT and ATTACH need 6 and more. */
const PARTITION_COMMANDS = 4;

/**
 * Columns as the stream describes them, and the facts that a change stream through a partition root does not tell:
 * which partitions there are and in which file each stands (TRUNCATE of a single partition is not published),
 * and which were attached with rows of their own perhaps: those were made by an earlier transaction, or by an earlier command of it.
 */
const LAYOUTS = `
  SELECT wanted.schema || '.' || wanted.name AS table,
    (SELECT json_agg(json_build_object('name', a.attname, 'type', a.atttypid::text, 'modifier', a.atttypmod) ORDER BY a.attnum)
     FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS columns,
    array_cat(
      array_remove(ARRAY[
        '${IDENTITY_FACT}' || c.relreplident::text, '${RELATION_FACT}' || c.oid::text,
        (SELECT '${KEY_FACT}' || string_agg(a.attname, ', ' ORDER BY a.attnum)
         FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
         WHERE i.indrelid = c.oid AND (c.relreplident = 'd' AND i.indisprimary AND i.indimmediate OR c.relreplident = 'i' AND i.indisreplident)),
        (SELECT 'attached with rows of their own, perhaps: ' || coalesce(string_agg(h.inhrelid::regclass::text, ', ' ORDER BY h.inhrelid), 'none')
         FROM pg_inherits AS h JOIN pg_attribute AS made ON made.attrelid = h.inhrelid AND made.attnum = -6
         WHERE h.inhrelid IN (SELECT t.relid FROM pg_partition_tree(c.oid) AS t WHERE t.relid <> c.oid)
           AND (h.xmin <> made.xmin OR h.cmin::text::bigint - made.cmin::text::bigint > ${PARTITION_COMMANDS})),
        (SELECT 'tables that inherit: ' || coalesce(string_agg(h.inhrelid::regclass::text, ', ' ORDER BY h.inhrelid), 'none')
         FROM pg_inherits AS h WHERE c.relkind <> 'p' AND h.inhparent = c.oid)], NULL),
      ARRAY(SELECT 'partition ' || t.relid::regclass::text || ' in file ' || pg_relation_filenode(t.relid)::text
            FROM pg_partition_tree(c.oid) AS t WHERE c.relkind = 'p' AND t.isleaf AND t.relid <> c.oid ORDER BY 1)) AS facts,
    EXISTS (SELECT 1 FROM pg_publication_rel AS r JOIN pg_publication AS p ON p.oid = r.prpubid WHERE p.pubname = $3 AND r.prrelid = c.oid) AS streamed
  FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
  JOIN pg_namespace AS n ON n.nspname = wanted.schema
  JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name`;
