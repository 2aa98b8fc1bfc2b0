/** Encrypted connections to MySQL and MariaDB: who is believed to be the server. */
import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";

import { certificateExpiry, connect, connectPool, query } from "../../connectors/mysql/connection.ts";
import type { Endpoint, TlsOptions } from "../../src/core/index.ts";
import { mysqlRows, requireMysql } from "../support/mysql.ts";
import { program } from "../support/programs.ts";
import { orSkip } from "../support/servers.ts";

const APPLICATION = { application: "dualrun-test" };
const DAY_MS = 86_400_000;
const DAYS = 10;

interface Authority {
  /** PEM text. */
  readonly ca: string;
  /** Makes a certificate for these names in `server.pem` and `server.key`. */
  certify(names: string): Promise<void>;
}

async function authority(openssl: string, directory: string): Promise<Authority> {
  await mkdir(directory, { recursive: true });
  const run = (...args: string[]): Promise<unknown> => promisify(execFile)(openssl, args, { cwd: directory });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await run("req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority");
  return {
    ca: await readFile(join(directory, "ca.pem"), "utf8"),
    certify: async (names) => {
      await writeFile(join(directory, "names"), `subjectAltName=${names}`);
      await run("req", ...key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=database");
      await run("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.pem", "-days", String(DAYS), "-extfile", "names");
      await chmod(join(directory, "server.key"), 0o644); // the server may run as another user
    },
  };
}

for (const flavour of ["mysql-9.7", "mariadb-10.11", "mariadb-11.8"] as const) {
  test(`${flavour} is believed only with the right certificate`, { timeout: 120_000 }, async (context) => {
    const openssl = await orSkip(context, program("openssl"));
    const directory = await mkdtemp(join(tmpdir(), "dualrun-tls-"));
    onTestFinished(() => rm(directory, { recursive: true }));
    await chmod(directory, 0o755);
    const own = await authority(openssl, directory);
    const stranger = await authority(openssl, join(directory, "stranger"));
    await own.certify("DNS:localhost");
    await using server = await requireMysql(context, { flavour, controllable: true, settings: { ssl_ca: join(directory, "ca.pem"), ssl_cert: join(directory, "server.pem"), ssl_key: join(directory, "server.key") } });
    const endpoint = (host: string, tls: TlsOptions): Endpoint => {
      const url = new URL(server.url);
      url.hostname = host;
      return { url: url.href, tls };
    };
    const isBelieved = async (host: string, tls: TlsOptions): Promise<boolean> => {
      const outcome = await connect(endpoint(host, tls), APPLICATION).catch((error: unknown) => error);
      if (outcome instanceof Error) {
        expect(outcome).toMatchObject({ code: "DR2001", message: expect.stringMatching(/cert/i) });
        return false;
      }
      const connection = outcome as Awaited<ReturnType<typeof connect>>;
      expect((await query(connection, "SHOW SESSION STATUS LIKE 'Ssl_cipher'"))[0]?.["Value"]).toMatch(/AES|CHACHA/);
      await connection.end();
      return true;
    };
    const expectations = async (named: string, unnamed: string): Promise<void> => {
      expect(await isBelieved(named, { mode: "verify-full", ca: own.ca })).toBe(true);
      expect(await isBelieved(unnamed, { mode: "verify-full", ca: own.ca })).toBe(false);
      expect(await isBelieved(unnamed, { mode: "verify-ca", ca: own.ca })).toBe(true);
      for (const mode of ["verify-ca", "verify-full"] as const) {
        expect(await isBelieved(named, { mode, ca: stranger.ca })).toBe(false);
        expect(await isBelieved(named, { mode })).toBe(false);
      }
      expect(await isBelieved(unnamed, { mode: "require" })).toBe(true);
    };
    await expectations("localhost", "127.0.0.1");
    await own.certify("IP:127.0.0.1");
    await mysqlRows(server.url, server.engine === "mysql" ? "ALTER INSTANCE RELOAD TLS" : "FLUSH SSL");
    await expectations("127.0.0.1", "localhost");

    const verified = endpoint("127.0.0.1", { mode: "verify-full", ca: own.ca });
    expect(Math.abs((await certificateExpiry(verified, APPLICATION))!.getTime() - (Date.now() + DAYS * DAY_MS))).toBeLessThan(DAY_MS);
    const pool = await connectPool(verified, APPLICATION);
    expect((await query(pool, "SHOW SESSION STATUS LIKE 'Ssl_cipher'"))[0]?.["Value"]).toMatch(/AES|CHACHA/);
    await pool.end();
  });
}
