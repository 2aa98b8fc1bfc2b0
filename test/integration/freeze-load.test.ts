/** Frozen and thawed under writers who keep a ledger of their own. */
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { expect, test } from "vitest";
import { waitFor } from "../support/daemon.ts";
import { classOf, FreezeStage, outcome } from "../support/freeze.ts";
import { orSkip, sharedPair } from "../support/servers.ts";

/** Writes without pause and keeps its own ledger: a number is in it when, and only when, its commit was acknowledged. */
class Writer {
  readonly acknowledged = new Set<number>();
  readonly refusals = new Map<string, number>();
  private stopped = false;
  private readonly done: Promise<void>;

  constructor(client: pg.Client, number: number) {
    this.done = this.write(client, number * 1_000_000);
  }

  stop(): Promise<void> {
    this.stopped = true;
    return this.done;
  }

  private async write(client: pg.Client, base: number): Promise<void> {
    for (let n = base; !this.stopped; n++) {
      const result = await outcome(n % 3 === 0 ? this.inTransaction(client, n) : client.query(n % 3 === 1 ? "INSERT INTO ledger (n) VALUES ($1)" : "INSERT INTO split (n) VALUES ($1)", [n]));
      if (result === "ok") this.acknowledged.add(n);
      else this.refusals.set(result, (this.refusals.get(result) ?? 0) + 1);
      if (result !== "ok") await sleep(2);
    }
  }

  private async inTransaction(client: pg.Client, n: number): Promise<void> {
    await client.query(n % 2 === 0 ? "BEGIN" : "BEGIN ISOLATION LEVEL REPEATABLE READ");
    try {
      await client.query("SELECT count(*) FROM unmapped");
      await client.query("INSERT INTO split (n) VALUES ($1)", [n]);
      await client.query("UPDATE ledger SET n = n WHERE n = $1", [n - 2]);
      await client.query("COMMIT");
    } catch (error) {
      await client.query("ROLLBACK");
      throw error;
    }
  }
}

test("eight writers, frozen and thawed again and again: nothing is acknowledged in between, and what is acknowledged is there", { timeout: 120_000 }, async (context) => {
  await using stage = await FreezeStage.make((await orSkip(context, sharedPair())).source, `
    CREATE TABLE ledger (n bigint PRIMARY KEY); CREATE TABLE unmapped (id int);
    CREATE TABLE split (n bigint PRIMARY KEY) PARTITION BY HASH (n);
    CREATE TABLE split_0 PARTITION OF split FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE split_1 PARTITION OF split FOR VALUES WITH (MODULUS 2, REMAINDER 1)`);
  const freeze = await stage.freezer();
  await freeze.prepare([classOf("ledger"), classOf("split")]);
  const writers: Writer[] = [];
  for (let number = 1; number <= 8; number++) writers.push(new Writer(await stage.connect(), number));
  const stored = async (): Promise<number[]> => (await stage.admin.query<{ n: string }>("SELECT n FROM ledger UNION ALL SELECT n FROM split ORDER BY n")).rows.map(({ n }) => Number(n));
  const acknowledged = (): number[] => writers.flatMap((writer) => [...writer.acknowledged]).sort((a, b) => a - b);

  let last = 0;
  for (let round = 0; round < 8; round++) {
    await waitFor(() => Promise.resolve(acknowledged().length > last + 50), "writes between two freezes", 10_000);
    await freeze.freeze({ lease: 10_000, lockTimeout: 3_000 });
    const atFreeze = await stored();
    const proof = await freeze.proveQuiet({ timeout: 2_000, terminate: false });
    await sleep(60);
    await freeze.renew(10_000);
    const refused = writers.reduce((sum, writer) => sum + (writer.refusals.get("DR001") ?? 0), 0);
    await sleep(60);
    const atThaw = await stored();
    expect(atThaw, `round ${round}`).toEqual(atFreeze);
    expect(acknowledged(), `round ${round}`).toEqual(atFreeze); // the answers to what was committed before have arrived by now
    expect(writers.reduce((sum, writer) => sum + (writer.refusals.get("DR001") ?? 0), 0)).toBeGreaterThan(refused);
    expect(proof.terminated).toBe(0);
    last = atThaw.length;
    expect(await freeze.thaw()).toBe(0);
  }

  await freeze.freeze({ lease: 2_000, lockTimeout: 3_000 });
  const atFreeze = await stored();
  await sleep(400);
  expect(await stored()).toEqual(atFreeze);
  await waitFor(() => Promise.resolve(acknowledged().length > atFreeze.length + 50), "writes after the lease has run out", 5_000);
  expect(await freeze.state()).toMatchObject({ state: "lapsed" });
  for (const writer of writers) await writer.stop();
  expect(await stored()).toEqual(acknowledged());
  expect([...new Set(writers.flatMap((writer) => [...writer.refusals.keys()]))]).toEqual(["DR001"]);
});
