/** The command line as a process: help, usage errors, exit codes, and what it says to and hears from a daemon. */
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { withCommonType } from "../../connectors/postgres/common-types.ts";
import { initDocument } from "../../src/commands/init.ts";
import { LATER } from "../../src/commands/later.ts";
import { parseConfig } from "../../src/config/index.ts";
import type { Catalogue, ColumnFacts, StatusDocument, TableFacts } from "../../src/core/index.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function dualrun(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const child = spawn(process.execPath, [MAIN, ...args], { env: { PATH: process.env["PATH"] ?? "", ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  let err = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (err += text));
  return new Promise((resolve, reject) => child.once("error", reject).once("close", (code) => resolve({ code, out, err })));
}

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "dualrun-cli-"));
});
afterAll(() => rm(directory, { recursive: true }));

async function configFile(port: number): Promise<string> {
  const file = join(directory, `port-${port}.yaml`);
  const side = { engine: "postgres", url: "postgres://localhost:1/x" };
  await writeFile(file, JSON.stringify({ migration: "m", timeZone: "UTC", source: side, target: side, include: ["public.*"], http: { listen: `127.0.0.1:${port}` } }));
  return file;
}

describe("version and help", () => {
  test("version", async () => {
    const { version } = JSON.parse(await readFile(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
    expect(await dualrun(["version"])).toEqual({ code: 0, out: `dualrun ${version} (Node ${process.version})\n`, err: "" });
    expect(JSON.parse((await dualrun(["version", "--json"])).out)).toEqual({ version, node: process.version });
  });

  test.each(["demo", "init", "check", "run", "status", "pause", "resume", "resnapshot", "version", "schema accept", "types", "cutover", "sign-off"])("%s --help has an example", async (command) => {
    const { code, out, err } = await dualrun([...command.split(" "), "--help"]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toContain(`Usage: dualrun ${command}`);
    expect(out).toContain(`Example:\n  dualrun ${command}`);
  });

  test("without a command it shows what there is", async () => {
    const { code, out, err } = await dualrun([]);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toContain("Usage: dualrun");
    expect(err).not.toContain("error DR");
  });
});

describe("usage", () => {
  test.each([
    [["nope"], "unknown command 'nope'"],
    [["status", "--nope"], "unknown option '--nope'"],
    [["status", "surplus"], "too many arguments"],
    [["resnapshot"], "required option '--class <name>' not specified"],
    [["schema", "accept"], "required option '--note <text>' not specified"],
    [["demo", "--for", "soon"], "--for takes a duration"],
    [["demo", "--port", "x"], "--port takes a whole number"],
    [["init", "--source", "nonsense", "--target", "postgres://localhost/x"], "--source takes an address"],
    [["init", "--source", "postgres://localhost/x", "--target", "postgres://localhost/x", "--migration", "No Name"], "--migration takes"],
    [["init", "--source", "postgres://localhost/x", "--target", "postgres://localhost/x", "--tls", "yes"], "--tls takes disable, require"],
  ])("%j", async (args, message) => {
    const { code, out, err } = await dualrun(args);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(/^error DR1004: /);
    expect(err).toContain(message);
    expect(err.split("next: ").length).toBe(2);
  });

  test("for programs: one object", async () => {
    expect(JSON.parse((await dualrun(["status", "--nope", "--json"])).err)).toMatchObject({ code: "DR1004", what: "unknown option '--nope'" });
  });

  test("every later command of the contract is there", () => {
    const later = ["plan", "cutover", "rollback", "gates", "rehearsals", "runbook", "close-out", "abort", "replay"];
    expect(Object.keys(LATER)).toEqual(later);
  });

  test("a secret that is not there", async () => {
    const { code, err } = await dualrun(["init", "--source", "env:NOPE", "--target", "postgres://localhost/x"]);
    expect(code).toBe(2);
    expect(err).toContain("error DR1003: --source: env:NOPE, but NOPE is not set");
  });

  test("an engine that is not there yet", async () => {
    const { code, err } = await dualrun(["init", "--source", "postgres://127.0.0.1:1/x", "--target", "mysql://localhost/x"]);
    expect(code).toBe(2);
    expect(err).toContain("error DR1005");
  });

  test.each(["rehearsals", "cutover", "plan"])("%s says what to use meanwhile", async (command) => {
    const { code, err } = await dualrun([command, "--class", "x", "anything"]);
    expect(code).toBe(2);
    expect(err).toMatch(/^error DR1005: .*\nnext: Meanwhile: /);
  });
});

describe("configuration", () => {
  test("that does not exist", async () => {
    const { code, err } = await dualrun(["check", "-c", join(directory, "nope.yaml"), "--json"]);
    expect(code).toBe(2);
    expect(JSON.parse(err)).toMatchObject({ code: "DR1002", title: "The configuration cannot be read" });
  });

  test("with faults: each with its line, and no daemon is started", async () => {
    const file = join(directory, "faulty.yaml");
    await writeFile(file, "migration: NO\ntimeZone: Mars/Olympus\nsource: { engine: postgres, url: env:NOPE }\n");
    const { code, err } = await dualrun(["run", "-c", file]);
    expect(code).toBe(2);
    expect(err).toContain("error DR1001: 5 settings cannot be used");
    for (const part of ["migration (line 1): found \"NO\"; allowed: 1 to 40", "timeZone (line 2)", "source.url (line 3): found env:NOPE", "target: found nothing", "classes: found neither"]) expect(err).toContain(part);
  });

  test("databases that are out of reach are both named", async () => {
    const { code, err } = await dualrun(["check", "-c", await configFile(1)]);
    expect(code).toBe(5);
    expect(err).toContain("error DR2001: neither source nor target");
  });
});

const STATUS: StatusDocument = {
  version: "0", migration: "m", phase: "snapshotting", state: "halted", startedAt: "", format: "text", epoch: "1", position: "0/1", head: "0/2", lagSeconds: 0.25, lagBytes: 2048,
  lastEventAt: null, lastCommitAt: null, slot: { state: "ok", retainedBytes: 1 << 21, detail: "" }, journal: null, changesPerSecond: 1234, transactionsPerSecond: 5, changesApplied: 0, transactionsApplied: 0,
  bytesRead: 0, bufferBytes: 0, restarts: 0, newTables: ["public.fresh"], warnings: ["wal-level: something"],
  snapshot: { position: "0/1", openedAt: "", ageSeconds: 4000, holds: "xmin 7", rows: 500, expectedRows: 1000, bytes: 1, expectedBytes: 2, refused: 0, rowsPerSecond: 1, etaSeconds: 12_000, done: false },
  classes: [{ name: "invoices", source: "", target: "", kind: "record", snapshotRows: 500, snapshotRowsExpected: 1000, chunksDone: 1, chunks: 2, inserts: 1, updates: 2, deletes: 3, truncates: 0, conflicts: 4 }],
  halt: { code: "DR5001", title: "", what: "public.invoices has changed", where: "source", details: ['column "x" was added'], next: "do this", at: "" },
};

interface Heard {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly token: string | undefined;
  readonly body: string;
}

/** A daemon that answers everything with the same; resolves to what it heard. */
async function answering(status: number, answer: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended & { readonly heard: readonly Heard[] }> {
  const heard: Heard[] = [];
  const server = createServer((request: IncomingMessage, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => (body += text)).on("end", () => {
      heard.push({ method: request.method, url: request.url, token: request.headers.authorization, body });
      response.writeHead(status, { "content-type": "application/json" }).end(answer);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const file = await configFile((server.address() as AddressInfo).port);
    return { ...(await dualrun([...args, "-c", file], env)), heard };
  } finally {
    server.close();
  }
}

describe("a running daemon", () => {
  test("that is not there", async () => {
    const { code, err } = await dualrun(["status", "-c", await configFile(1)]);
    expect(code).toBe(5);
    expect(err).toContain("error DR2002: nothing answers at 127.0.0.1:1");
  });

  test("status for people", async () => {
    const { code, out, heard } = await answering(200, JSON.stringify(STATUS), ["status"], { DUALRUN_TOKEN: "t0ken" });
    expect(code).toBe(0);
    expect(heard).toEqual([{ method: "GET", url: "/api/v1/status", token: "Bearer t0ken", body: "" }]);
    for (const part of ["snapshotting (halted)", "250 ms, 2 KiB", "500 of 1,000 rows", "ETA 3 h 20 min", "open for 67 min", "holds xmin 7", "not mirrored yet: public.fresh", "warning: wal-level", "DR5001 public.invoices has changed", 'column "x" was added', "next: do this"]) expect(out).toContain(part);
    expect(out).toMatch(/^invoices +500 +1 +2 +3 +4$/m);
  });

  test("status for programs", async () => {
    const { out, heard } = await answering(200, JSON.stringify(STATUS), ["status", "--json"]);
    expect(JSON.parse(out)).toEqual(STATUS);
    expect(heard[0]!.token).toBeUndefined();
  });

  test.each([
    [["pause"], "/api/v1/pause", ""],
    [["resume"], "/api/v1/resume", ""],
    [["resnapshot", "--class", "a/b ü"], "/api/v1/classes/a%2Fb%20%C3%BC/resnapshot", ""],
    [["schema", "accept", "--note", "tax added"], "/api/v1/schema/accept", '{"note":"tax added"}'],
  ])("%j", async (args, url, body) => {
    const { code, heard } = await answering(200, JSON.stringify(STATUS), args);
    expect(code).toBe(0);
    expect(heard).toEqual([{ method: "POST", url, token: undefined, body }]);
  });

  test("its problems are the command's errors", async () => {
    const { code, err } = await answering(409, JSON.stringify({ code: "DR4001", title: "T", detail: "fenced out", next: "find the other", where: "target", details: ["one"] }), ["resume", "--json"]);
    expect(code).toBe(6);
    expect(JSON.parse(err)).toMatchObject({ code: "DR4001", what: "fenced out", where: "target", details: ["one"], next: "find the other" });
  });

  test("a missing token is a usage error, with its next step", async () => {
    const { code, err } = await answering(401, JSON.stringify({ code: "unauthorized", detail: "a token is needed", next: "set DUALRUN_TOKEN" }), ["status"]);
    expect(code).toBe(2);
    expect(err).toContain("a token is needed");
    expect(err).toContain("next: set DUALRUN_TOKEN");
  });

  test.each([[200, "<html>"], [404, "<html>"], [500, "{}"]])("something else answers: %i %s", async (status, answer) => {
    const { code, err } = await answering(status, answer, ["status"]);
    expect(code).toBe(5);
    expect(err).toContain("DR2002: something else than dualrun");
  });
});

describe("init", () => {
  const column = (name: string, baseTypeName: string): ColumnFacts => withCommonType({
    name, type: baseTypeName, typeName: baseTypeName, baseTypeName, typeKind: "base", typeSchema: "pg_catalog", notNull: false, generated: null, identity: null, hasDefault: false, collation: null, enumLabels: null,
  });
  const table = (schema: string, name: string, kind: TableFacts["kind"] = "table"): TableFacts =>
    ({ table: { schema, name }, kind, columns: [column("id", "int8"), column("total", "numeric"), column("invoice_currency", "bpchar")] }) as unknown as TableFacts;
  const catalogue = (...tables: TableFacts[]): Catalogue => ({ server: {} as Catalogue["server"], tables });
  const side = { engine: "postgres", reference: "env:SOURCE_URL", tls: { mode: "verify-full", ca: null } } as const;
  const parse = (text: string) => parseConfig(text, { directory: ".", env: { SOURCE_URL: "postgres://u@h.example/x" } });

  test("what it writes is a configuration", () => {
    const names = [["public", "invoices"], ["old", "invoices"], ["public", 'odd "name".x'], ["public", "Größe"]] as const;
    const tables = names.map(([schema, name]) => table(schema, name));
    const text = initDocument("123", side, side, catalogue(...tables, table("public", "part", "partition"), table("public", "gone")), catalogue(...tables, table("dualrun", "checkpoint")));
    const config = parse(text);
    expect(config.migration).toBe("123");
    expect(config.classes!.map((cls) => [cls.source.schema, cls.source.name])).toEqual(names);
    expect(config.source.tls.mode).toBe("verify-full");
    expect(text).toContain('# not on the target: "public.gone"');
    expect(text).toContain('# money: [{ column: "total", currency: "invoice_currency" }]');
    const accepted = parse(text.replaceAll(/# (kind: money|money: )/g, "$1"));
    expect(accepted.classes![0]!.money).toEqual([{ column: "total", currency: "invoice_currency" }]);
  });

  test("nothing on the target yet", () => {
    expect(parse(initDocument("m", side, side, catalogue(table("public", "a")), catalogue())).include.map(({ text }) => text)).toEqual(["public.*"]);
  });
});
