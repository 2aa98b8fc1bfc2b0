/** Connections that are encrypted and verified: the mirror's every connection, and when the certificate expires. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { expect, test } from "vitest";
import { program } from "../support/programs.ts";
import { TestMirror } from "../support/mirror.ts";
import { orSkip, postgresPair, type TestServer } from "../support/servers.ts";

const DAY_MS = 86_400_000;

/** An authority, and a certificate of it for 127.0.0.1 that is good for `days`. */
async function certificate(openssl: string, directory: string, days: number): Promise<{ readonly ca: string; readonly certificate: Buffer; readonly key: Buffer }> {
  const run = (...args: string[]): Promise<unknown> => promisify(execFile)(openssl, args, { cwd: directory });
  await writeFile(join(directory, "names"), "subjectAltName=IP:127.0.0.1");
  await run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority");
  await run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=database");
  await run("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.pem", "-days", String(days), "-extfile", "names");
  return { ca: join(directory, "ca.pem"), certificate: await readFile(join(directory, "server.pem")), key: await readFile(join(directory, "server.key")) };
}

/** The server writes its own files: they have to belong to it. */
async function encrypt(server: TestServer, files: { readonly certificate: Buffer; readonly key: Buffer }): Promise<void> {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  for (const [name, content] of [["server.crt", files.certificate], ["server.key", files.key]] as const) {
    await client.query(`COPY (SELECT '${content.toString("base64")}') TO PROGRAM 'umask 077; base64 -d > ${name}'`);
  }
  await client.query("ALTER SYSTEM SET ssl = on");
  await client.query("SELECT pg_reload_conf()");
  await client.end();
}

test("every connection is verified, and the expiry of the certificates is told", { timeout: 120_000 }, async (context) => {
  const openssl = await orSkip(context, program("openssl"));
  const directory = await mkdtemp(join(tmpdir(), "dualrun-tls-"));
  try {
    await using pair = await orSkip(context, postgresPair({ controllable: true }));
    const files = await certificate(openssl, directory, 10);
    await Promise.all([encrypt(pair.source, files), encrypt(pair.target, files)]);
    await using mirror = await TestMirror.make(await pair.fresh("tls"), "CREATE TABLE t (id integer PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a')");
    const tls = { mode: "verify-full", ca: `file:${files.ca}` };
    const sides = (ca: string) => ({ source: { engine: "postgres", url: "env:SOURCE", tls: { ...tls, ca } }, target: { engine: "postgres", url: "env:TARGET", tls: { ...tls, ca } } });
    const stranger = await certificate(openssl, await mkdtemp(join(directory, "stranger-")), 10);
    await expect(mirror.start(sides(`file:${stranger.ca}`))).rejects.toMatchObject({ code: "DR2001", message: expect.stringContaining("certificate") });

    await mirror.start(sides(tls.ca));
    await mirror.streaming();
    await mirror.apply("INSERT INTO t VALUES (2, 'b')");
    expect((await mirror.daemon.control.proof.compare(null, true)).verdict).toBe("in_sync");
    const plain = "SELECT application_name FROM pg_stat_activity LEFT JOIN pg_stat_ssl USING (pid) WHERE application_name LIKE 'dualrun%' AND ssl IS NOT TRUE";
    for (const client of [mirror.source, mirror.target]) expect((await client.query(plain)).rows).toEqual([]);
    const metrics = await (await fetch(`${mirror.daemon.addresses.http}/metrics`)).text();
    for (const side of ["source", "target"]) {
      const until = Number(new RegExp(`^dualrun_tls_certificate_expiry_timestamp_seconds{side="${side}"} (\\S+)$`, "m").exec(metrics)?.[1]) * 1000;
      expect(Math.abs(until - (Date.now() + 10 * DAY_MS))).toBeLessThan(DAY_MS);
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
