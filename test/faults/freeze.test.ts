/** A freeze whose holder dies, or whose server does. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { carryPass } from "../../connectors/postgres/freeze-sql.ts";
import { waitFor } from "../support/daemon.ts";
import { classOf, FreezeStage, MIGRATION, outcome } from "../support/freeze.ts";
import { orSkip, postgresServer, sharedPair } from "../support/servers.ts";

const SCHEMA = "CREATE TABLE orders (id bigserial PRIMARY KEY, note text)";
const CLASSES = [classOf("orders")];

test("the daemon: in the middle of the freeze writers go on at once, afterwards when the lease is over", async (context) => {
  await using stage = await FreezeStage.make((await orSkip(context, sharedPair())).source, SCHEMA);
  await (await stage.freezer()).prepare(CLASSES);
  const child = fileURLToPath(new URL("../support/freeze-child.ts", import.meta.url));
  const application = await stage.connect();
  for (const failpoint of ["freeze.before-commit", "freeze.after-commit"]) {
    const died = await promisify(execFile)(process.execPath, [child, stage.adminUrl, "6000"], { env: { ...process.env, DUALRUN_FAILPOINT: failpoint }, timeout: 20_000 }).then(() => null, (error: unknown) => error as { signal: string });
    expect(died?.signal, failpoint).toBe("SIGKILL");
    const state = await (await stage.freezer()).state();
    expect(state.holds, failpoint).toBe(failpoint === "freeze.after-commit");
    expect(await outcome(application.query("INSERT INTO orders (note) VALUES ('on')")), failpoint).toBe(state.holds ? "DR001" : "ok");
    await waitFor(async () => (await outcome(application.query("INSERT INTO orders (note) VALUES ('on')"))) === "ok", "the lease to run out", 12_000);
  }
  expect(await (await stage.freezer(2n)).thaw()).toBe(0);
});

test("the server: the freeze outlasts it, and the mirror gets a new pass", { timeout: 120_000 }, async (context) => {
  await using server = await orSkip(context, postgresServer({ controllable: true, durable: true }));
  await using stage = await FreezeStage.make(server, SCHEMA);
  const before = await stage.freezer();
  await before.prepare(CLASSES);
  await before.freeze({ lease: 60_000, lockTimeout: 2_000 });
  await before.makePermanent();
  await server.process!.stop("immediate");
  await server.process!.start();
  const freeze = await stage.freezer();
  const [application, mirror] = [await stage.connect(), await stage.connect(stage.adminUrl)];
  expect(await outcome(application.query("INSERT INTO orders (note) VALUES ('on')"))).toBe("DR001");
  expect(await freeze.state()).toMatchObject({ state: "permanent", holds: false, faults: [expect.stringContaining("the mirror's pass is lost: prepare again")] });
  expect(await freeze.prepare(CLASSES)).toMatchObject({ state: "permanent", holds: true });
  await carryPass(mirror, MIGRATION);
  expect(await outcome(mirror.query("INSERT INTO orders (note) VALUES ('mirrored')"))).toBe("ok");
  expect(await outcome(application.query("INSERT INTO orders (note) VALUES ('on')"))).toBe("DR001");
  await stage.reconnect();
});
