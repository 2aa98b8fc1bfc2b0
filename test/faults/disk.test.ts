/** The target runs out of disk: a real file system of its own that is too small. */
import { execFile } from "node:child_process";
import { chown, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { isEqual, verifyTables } from "../../src/demo/verify.ts";
import { DaemonHome } from "../support/daemon.ts";
import { orSkip, postgresServer } from "../support/servers.ts";
import { query } from "../support/standby.ts";

const run = promisify(execFile);

/** 24 MiB that a server of ours may write to. */
async function smallDisk(): Promise<AsyncDisposable & { readonly path: string; resize(size: string): Promise<void> }> {
  if (process.getuid?.() !== 0) throw new Error("a file system can be mounted by root only");
  const path = await mkdtemp(join(tmpdir(), "dualrun-disk-"));
  try {
    await run("mount", ["-t", "tmpfs", "-o", "size=24m", "tmpfs", path]);
  } catch (cause) {
    await rm(path, { recursive: true, force: true });
    throw new Error("this machine lets nobody mount a file system", { cause });
  }
  await chown(path, 65534, 65534);
  return {
    path,
    resize: async (size) => void (await run("mount", ["-o", `remount,size=${size}`, path])),
    async [Symbol.asyncDispose]() {
      await run("umount", ["-l", path]);
      await rm(path, { recursive: true, force: true });
    },
  };
}

test("a full disk under the target's table: nothing is lost or doubled, and it goes on by itself when there is room", { timeout: 120_000 }, async (context) => {
  await using disk = await smallDisk().catch((error: Error) => context.skip(error.message)); // a right that no package gives
  await using source = await orSkip(context, postgresServer({ controllable: true, durable: true }));
  await using target = await orSkip(context, postgresServer({ controllable: true, durable: true }));
  const [from, to] = [(await source.createDatabase("disk")).url, (await target.createDatabase("disk")).url];
  await query(from, "CREATE TABLE t (id integer PRIMARY KEY, pad text)");
  await query(to, `CREATE TABLESPACE small LOCATION '${disk.path}'`);
  await query(to, "CREATE TABLE t (id integer PRIMARY KEY, pad text) TABLESPACE small");
  await query(from, "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 1000) AS g");
  await using home = await DaemonHome.make({ migration: "disk", source: from, target: to, config: { include: ["public.*"] } });
  const daemon = home.start();
  await daemon.until(({ phase, state }) => phase === "dual-run" && state === "streaming", "streaming");
  for (let i = 1; i <= 30; i++) await query(from, `INSERT INTO t SELECT ${i * 10_000} + g, repeat('y', 500) FROM generate_series(1, 2000) AS g; UPDATE t SET pad = pad || '!' WHERE id % 97 = ${i}`);
  const full = await daemon.until(({ halt }) => halt !== null, "the full disk");
  expect(full).toMatchObject({ state: "retrying", halt: { code: "DR5008", what: expect.stringMatching(/could not extend file|No space left/) } });
  await disk.resize("200m");
  await daemon.until(({ state, halt, lagBytes }) => state === "streaming" && halt === null && lagBytes === 0, "the rest");
  expect((await daemon.stop()).code).toBe(0);
  expect((await verifyTables(from, to, ["t"])).filter((verdict) => !isEqual(verdict))).toEqual([]);
});
