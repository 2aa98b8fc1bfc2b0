/** What every kind of journal must do. A new kind is done when it stands in KINDS and all of this passes. */
import { execFile, spawn } from "node:child_process";
import { mkdtemp, open as openFile, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { inspectJournal, openJournal, type JournalSettings } from "../../connectors/registry.ts";
import { lsnPositions } from "../../connectors/postgres/lsn.ts";
import { DualrunError, ENTRY, decodeRecord, type ChangeBlock, type Journal, type Position } from "../../src/core/index.ts";
import { waitFor } from "../support/daemon.ts";
import { HandMadeBlock, TABLES, at, idle, inBlocks, insert, remove, tell, transaction, update, type Entry } from "../support/history.ts";
import { nth } from "../support/journal-writer.ts";

const run = promisify(execFile);
const WRITER = fileURLToPath(new URL("../support/journal-writer.ts", import.meta.url));
const KEY = Buffer.alloc(32, 7);
const START = at(5);

type Settings = Exclude<JournalSettings, { kind: "none" }>;
type Kind = (directory: string, more?: Partial<Settings>) => Settings;

const KINDS: Readonly<Record<string, Kind>> = {
  "sqlite": (directory, more = {}) => ({ kind: "sqlite", path: join(directory, "journal.db"), maxBytes: 1 << 30, key: null, ...more }),
  "sqlite, encrypted": (directory, more = {}) => ({ kind: "sqlite", path: join(directory, "journal.db"), maxBytes: 1 << 30, key: KEY, ...more }),
};

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "dualrun-journal-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const open = async (settings: JournalSettings, owner = "m token"): Promise<Journal> => (await openJournal(settings, owner, lsnPositions))!;

async function opened(settings: JournalSettings): Promise<Journal> {
  const journal = await open(settings);
  await journal.begin(START);
  return journal;
}

const appendAll = async (journal: Journal, blocks: readonly ChangeBlock[]): Promise<void> => void (await Promise.all(blocks.map((block) => journal.append(block, TABLES))));

/** What is read behind a position until the journal's present end, entry by entry. */
async function readAll(journal: Journal, after: Position): Promise<string[]> {
  const lines: string[] = [];
  const last = journal.durable();
  if (after === last) return lines;
  for await (const block of journal.read(after, new AbortController().signal)) {
    lines.push(...tell(block, journal.tables));
    if (lines.includes(`idle ${last}`) || lines.some((line) => line.startsWith(`commit ${last} `))) return lines;
  }
  return lines;
}

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** What buffers hold when what is garbage is gone: the memory behind them goes when the next collection begins. */
function heldBytes(): number {
  collectGarbage();
  collectGarbage();
  return process.memoryUsage().arrayBuffers;
}

const told = (entries: readonly Entry[]): string[] => tell(new HandMadeBlock(entries), TABLES);

async function faultOf(work: Promise<unknown>): Promise<DualrunError> {
  const error: unknown = await work.then(() => null, (reason: unknown) => reason);
  expect(error).toBeInstanceOf(DualrunError);
  return error as DualrunError;
}

/** Every kind of entry, in transactions with ends 10, 20, 30, …, with idle positions between some. */
const history = fc.array(fc.record({
  changes: fc.array(fc.oneof(
    fc.tuple(fc.integer(), fc.option(fc.string({ unit: "binary" }))).map(([id, note]) => insert(id, note)), fc.tuple(fc.integer(), fc.boolean()).map(([id, same]) => update(id, same ? undefined : "x".repeat(3000))),
    fc.integer().map((id) => remove(id)), fc.constant<Entry>({ kind: ENTRY.truncate, table: 1, flags: 5 }),
    fc.string().map((mark): Entry => ({ kind: ENTRY.mark, mark, position: at(3) })),
    fc.string().map((line): Entry => ({ kind: ENTRY.schema, table: 0, change: { table: { schema: "a", name: "b" }, differences: [line] } })),
  ), { maxLength: 6 }),
  idle: fc.boolean(),
}), { minLength: 1, maxLength: 12 }).map((transactions) => transactions.flatMap(({ changes, idle: isIdle }, i) => [...transaction((i + 1) * 10, ...changes), ...(isIdle ? [idle((i + 1) * 10 + 3)] : [])]));

describe.each(Object.entries(KINDS))("%s", (_, kind) => {
  test("whatever is appended, however it is cut, is read in order and whole, at once and after a restart", { timeout: 120_000 }, async () => {
    let round = 0;
    await fc.assert(fc.asyncProperty(history, fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 }), async (entries, sizes) => {
      const settings = kind(directory, { path: join(directory, `round-${round++}.db`) } as Partial<Settings>);
      {
        await using journal = await opened(settings);
        await appendAll(journal, inBlocks(entries, sizes));
        expect(await readAll(journal, START)).toEqual(told(entries));
      }
      await using again = await open(settings);
      expect(await readAll(again, START)).toEqual(told(entries));
    }), { numRuns: 25 });
  });

  test("from every transaction's end the next one is read first", async () => {
    const transactions = Array.from({ length: 30 }, (_x, i) => transaction((i + 1) * 10, insert(i, "n"), update(i, "m")));
    await using journal = await opened(kind(directory));
    for (const block of inBlocks(transactions.flat(), [5, 2])) await journal.append(block, TABLES); // a record each
    for (let from = 1; from <= transactions.length; from++) {
      const lines = await readAll(journal, at(from * 10));
      const rest = told(transactions.slice(from).flat());
      expect(lines.slice(lines.length - rest.length)).toEqual(rest);
      for (const line of lines.slice(0, lines.length - rest.length)) expect(told(transactions[from - 1]!).concat(told(transactions[from - 2] ?? []))).toContain(line);
    }
  });

  test("a transaction is seen when its commit is durable, and not before", async () => {
    await using journal = await opened(kind(directory));
    const [begin, change, commit] = transaction(10, insert(1, "a"));
    const stop = new AbortController();
    const seen: string[] = [];
    const reading = (async () => {
      for await (const block of journal.read(START, stop.signal)) seen.push(...tell(block, journal.tables));
    })();
    await journal.append(new HandMadeBlock([begin!, change!]), TABLES);
    await sleep(50);
    expect([seen, journal.durable()]).toEqual([[], START]);
    await journal.append(new HandMadeBlock([commit!]), TABLES);
    await waitFor(() => Promise.resolve(seen.length === 3), "the transaction", 5_000);
    expect(journal.durable()).toBe(at(10));
    stop.abort();
    await reading;
  });

  test("what was not appended to its end is cut off, and what is sent again is left out", async () => {
    const settings = kind(directory);
    const [first, second] = [transaction(10, insert(1, "a")), transaction(20, insert(2, "b"), insert(3, "c"))];
    {
      await using journal = await opened(settings);
      await journal.append(new HandMadeBlock([...first, ...second.slice(0, 2)]), TABLES);
      await journal.cutOff();
      await appendAll(journal, inBlocks([...first, ...second.slice(0, 3)], [2]));
    }
    await using again = await open(settings);
    expect(again.durable()).toBe(at(10));
    await appendAll(again, inBlocks([...first, ...second, idle(10), idle(25)], [3]));
    expect(await readAll(again, START)).toEqual(told([...first, ...second, idle(25)]));
  });

  test("a huge transaction passes in bounded memory", { timeout: 120_000 }, async () => {
    await using journal = await opened(kind(directory));
    const note = "x".repeat(60_000);
    const [begin, , commit] = transaction(10, insert(0, null));
    const blocks = 1_600; // 96 MB
    const before = heldBytes();
    let most = 0;
    const look = (): void => void (most = Math.max(most, heldBytes() - before));
    await journal.append(new HandMadeBlock([begin!]), TABLES);
    for (let i = 0; i < blocks; i += 16) {
      await appendAll(journal, Array.from({ length: 16 }, (_x, j) => new HandMadeBlock([insert(i + j, note)])));
      if (i % 160 === 0) look();
    }
    await journal.append(new HandMadeBlock([commit!]), TABLES);
    let rows = 0;
    for await (const block of journal.read(START, new AbortController().signal)) {
      rows += block.count;
      if (rows % 160 === 0) look();
      if (block.words[0] === ENTRY.commit) break;
    }
    expect(rows).toBe(blocks + 2);
    expect(most).toBeLessThan(48 << 20);
  });

  test("what is trimmed is gone, its room is used again, and nothing else goes", { timeout: 120_000 }, async () => {
    const settings = kind(directory, { maxBytes: 4 << 20 });
    const note = "y".repeat(20_000);
    const size = async (): Promise<number> => (await run("du", ["-sb", directory])).stdout.split("\t").map(Number)[0]!;
    await using journal = await opened(settings);
    for (let i = 1; i <= 600; i++) { // 12 MB
      await journal.append(new HandMadeBlock(transaction(i * 10, insert(i, note))), TABLES);
      if (i > 20) await journal.trim(at((i - 20) * 10));
    }
    await waitFor(() => Promise.resolve(journal.start() === at(5800)), "the last trim", 5_000);
    expect(await readAll(journal, at(5800))).toEqual(told(Array.from({ length: 20 }, (_x, i) => transaction((581 + i) * 10, insert(581 + i, note))).flat()));
    expect(await size()).toBeLessThan(5 << 20);
    const early = journal.read(at(1000), new AbortController().signal)[Symbol.asyncIterator]().next();
    expect((await faultOf(early)).code).toBe("DR5102");
  });

  test("at its bound it waits, says so, and goes on in order when there is room", { timeout: 60_000 }, async () => {
    await using journal = await opened(kind(directory, { maxBytes: 2 << 20 }));
    const transactions = Array.from({ length: 200 }, (_x, i) => transaction((i + 1) * 10, insert(i, "z".repeat(20_000))));
    let durable = 0;
    const all = Promise.all(transactions.map((entries) => journal.append(new HandMadeBlock(entries), TABLES).then(() => void durable++)));
    await waitFor(() => Promise.resolve(journal.facts().level === "waiting"), "the bound", 10_000);
    await sleep(300);
    expect(durable).toBeLessThan(110);
    expect(durable).toBeGreaterThan(60);
    expect(journal.facts().waitedSeconds).toBeGreaterThan(0.2);
    const seen: string[] = [];
    for await (const block of journal.read(START, new AbortController().signal)) {
      seen.push(...tell(block, journal.tables));
      await journal.trim(block.position(block.count - 1));
      if (seen.length === 600) break;
    }
    await all;
    expect(seen).toEqual(told(transactions.flat()));
    await waitFor(() => Promise.resolve(journal.facts().level === "ok"), "room again", 5_000);
  });

  test("it says that it is nearly full at 80 %", async () => {
    await using journal = await opened(kind(directory, { maxBytes: 4 << 20 }));
    const levels = new Map<string, number>();
    for (let i = 1; levels.get("near-limit") === undefined; i++) {
      await journal.append(new HandMadeBlock(transaction(i * 10, insert(i, "z".repeat(20_000)))), TABLES);
      const { level, bytes, maxBytes } = journal.facts();
      if (!levels.has(level)) levels.set(level, bytes / maxBytes);
    }
    expect([...levels.keys()]).toEqual(["ok", "near-limit"]);
    expect(levels.get("near-limit")).toBeGreaterThanOrEqual(0.8);
    expect(levels.get("near-limit")).toBeLessThan(0.9);
  });

  test("a transaction that can never fit is an error with a name", async () => {
    await using journal = await opened(kind(directory, { maxBytes: 2 << 20 }));
    const entries = transaction(10, ...Array.from({ length: 200 }, (_x, i) => insert(i, "z".repeat(20_000))));
    expect((await faultOf(appendAll(journal, inBlocks(entries, [1])))).code).toBe("DR5105");
  });

  test("of two that open it the second is refused, and so is who it does not belong to", async () => {
    const settings = kind(directory);
    {
      await using _journal = await opened(settings);
      expect(await faultOf(open(settings))).toMatchObject({ code: "DR5104", message: "another process uses it" });
    }
    expect(await faultOf(open(settings, "other token"))).toMatchObject({ code: "DR5103", message: "the journal keeps changes of migration m, not of migration other with this target" });
    expect((await faultOf(open(settings, "m another"))).code).toBe("DR5103");
    await using again = await open(settings);
    expect(again.durable()).toBe(START);
  });
});

// ---------------------------------------------------------------- the file

describe("sqlite: the file", () => {
  const sqlite = (more: Partial<Settings> = {}): Extract<Settings, { kind: "sqlite" }> => KINDS["sqlite"]!(directory, more) as Extract<Settings, { kind: "sqlite" }>;

  async function filled(settings: Settings, transactions = 20): Promise<void> {
    await using journal = await opened(settings);
    for (let i = 1; i <= transactions; i++) await journal.append(new HandMadeBlock(transaction(i * 10, insert(i, `confidential ${i} `.repeat(50)))), TABLES);
  }

  async function files(): Promise<string> {
    const names = (await readdir(directory)).filter((name) => name.startsWith("journal.db"));
    return (await Promise.all(names.map((name) => readFile(join(directory, name), "latin1")))).join("");
  }

  test("holds no text of a row when there is a key, while it is written and afterwards", async () => {
    const journal = await opened(sqlite({ key: KEY }));
    await journal.append(new HandMadeBlock(transaction(10, insert(1, "confidential"), update(2, "confidential"))), TABLES);
    const [during, reading] = [await files(), await readAll(journal, START)];
    await journal[Symbol.asyncDispose]();
    for (const content of [during, await files()]) for (const text of ["confidential", "invoices"]) expect(content).not.toContain(text);
    expect(reading.join()).toContain("confidential");
    await rm(join(directory, "journal.db"));
    await filled(sqlite());
    expect(await files()).toContain("confidential");
  });

  test("is refused with another key, without one, and with one that it was not written with", async () => {
    await filled(sqlite({ key: KEY }));
    for (const key of [Buffer.alloc(32, 8), null]) {
      expect(await faultOf(open(sqlite({ key })))).toMatchObject({ code: "DR5104", message: "the key is not the one that the journal was written with" });
      await expect(inspectJournal(sqlite({ key }))).rejects.toThrow("the key is not the one");
    }
    await rm(join(directory, "journal.db"));
    await filled(sqlite());
    expect((await faultOf(open(sqlite({ key: KEY })))).code).toBe("DR5104");
  });

  const DAMAGE: readonly [what: string, statement: string, says: RegExp][] = [
    ["a changed byte", "UPDATE records SET body = substr(body, 1, 40) || x'ff' || substr(body, 42) WHERE seq = 7", /record 7 does not have the checksum/],
    ["a changed position", "UPDATE records SET ended = '0/FFFF' WHERE seq = 7", /record 7 does not have the checksum/],
    ["a missing record", "DELETE FROM records WHERE seq = 7", /record 7 is missing/],
    ["two records that changed places", "UPDATE records SET seq = -seq WHERE seq IN (7, 8); UPDATE records SET seq = 15 + seq WHERE seq < 0", /record 7 does not have the checksum/],
  ];

  test.each(DAMAGE.flatMap((damage) => [null, KEY].map((key) => [...damage, key] as const)))("%s is found and named, by the reader and by inspect", async (_, statement, says, key) => {
    const settings = sqlite({ key });
    await filled(settings);
    const db = new DatabaseSync(settings.path);
    db.exec(statement);
    db.close();
    expect(await inspectJournal(settings)).toMatchObject({ intact: false, fault: expect.stringMatching(says) });
    await using journal = await open(settings);
    const fault = await faultOf(readAll(journal, START));
    expect([fault.code, fault.message]).toEqual(["DR5101", expect.stringMatching(says)]);
    expect(fault.next).toContain("dualrun journal inspect");
  });

  test("damaged pages are named, and a file of something else is no journal", async () => {
    await filled(sqlite());
    const bytes = await readFile(sqlite().path);
    await writeFile(sqlite().path, bytes.fill(0x5a, 16 << 10));
    const fault = await faultOf((async () => {
      await using journal = await open(sqlite());
      await readAll(journal, START);
    })());
    expect(fault.code).toBe("DR5101");
    await writeFile(sqlite().path, "not a database at all, but long enough to be looked at");
    expect((await faultOf(open(sqlite()))).code).toBe("DR5101");
    await rm(sqlite().path);
    const other = new DatabaseSync(sqlite().path);
    other.exec("CREATE TABLE theirs (a)");
    other.close();
    expect(await faultOf(open(sqlite()))).toMatchObject({ code: "DR5104", message: "the file is no journal of dualrun" });
    expect((await faultOf(open(sqlite({ path: join(directory, "nowhere", "j.db") })))).code).toBe("DR5104");
  });

  test("is told of by inspect, also beside whoever writes to it, without a value", async () => {
    await using journal = await opened(sqlite());
    for (let i = 1; i <= 20; i++) await journal.append(new HandMadeBlock(transaction(i * 10, insert(i, "confidential"))), TABLES);
    await journal.append(new HandMadeBlock(transaction(300, insert(1, "confidential")).slice(0, 2)), TABLES);
    await journal.trim(at(50));
    await waitFor(() => Promise.resolve(journal.start() === at(50)), "the trim", 5_000);
    const found = (await inspectJournal(sqlite()))!;
    expect(found).toMatchObject({ kind: "sqlite", owner: "migration m", first: at(50), last: at(200), records: 16, transactions: 15, uncommittedRecords: 1, intact: true, fault: null, encrypted: false });
    expect(found.oldestCommitAt).toBe(new Date(1_700_000_000_060).toISOString());
    expect(JSON.stringify(found)).not.toContain("confidential");
    expect(journal.facts()).toMatchObject({ first: at(50), last: at(200), oldestCommitAt: 1_700_000_000_060 });
  });

  test("a record of another version is not read as if it were known", () => {
    const body = Buffer.alloc(24);
    body.write("DRJ1", "latin1");
    body.writeUInt32LE(2, 4);
    expect(() => decodeRecord(body)).toThrow("version 2");
  });

  const POINTS = ["journal.before-commit", "journal.after-commit", "journal.before-trim", "journal.after-trim"];

  test.each(POINTS)("kill -9 at %s: what was durable is there, whole and without holes", { timeout: 120_000 }, async (point) => {
    let [first, durable] = [1, 5];
    for (const pass of [1, 2, 4]) {
      const output = await killed(sqlite().path, first, `${point}:${pass}`);
      durable = Math.max(durable, ...output.map((line) => parseInt(line.split("/")[1]!, 16)));
      await using journal = await open(sqlite());
      const end = parseInt(journal.durable()!.split("/")[1]!, 16);
      expect(end).toBeGreaterThanOrEqual(durable);
      const start = parseInt(journal.start()!.split("/")[1]!, 16);
      const expected = Array.from({ length: 6_000 }, (_, i) => i + 1).filter((number) => number * 10 > start && number * 10 <= end).flatMap((number) => told(nth(number)));
      expect(await readAll(journal, journal.start()!)).toEqual(expected);
      [first, durable] = [Math.floor(end / 10) + 1, end];
    }
    expect((await inspectJournal(sqlite()))!.intact).toBe(true);
  });

  /** Lines that the writer could say before it was killed. */
  async function killed(path: string, first: number, failpoint: string): Promise<string[]> {
    const said = await openFile(join(directory, "said"), "w");
    const child = spawn(process.execPath, [WRITER, path, String(first), "1500"], { env: { ...process.env, DUALRUN_FAILPOINT: failpoint }, stdio: ["ignore", said.fd, "pipe"] });
    let err = "";
    child.stderr!.on("data", (chunk: Buffer) => (err += chunk.toString()));
    const signal = await new Promise((resolve) => child.once("close", (_, name) => resolve(name)));
    expect([signal, err]).toEqual(["SIGKILL", expect.stringContaining(`failpoint ${failpoint.split(":")[0]}: killed`)]);
    await said.close();
    return (await readFile(join(directory, "said"), "utf8")).split("\n").slice(0, -1);
  }

  test("a full disk: it waits, says so, and goes on by itself when there is room", { timeout: 60_000 }, async (context) => {
    if (process.getuid?.() !== 0) context.skip("a file system can be mounted by root only");
    await run("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", directory]).catch(() => context.skip("this machine lets nobody mount a file system"));
    try {
      await using journal = await opened(sqlite());
      const transactions = Array.from({ length: 300 }, (_x, i) => transaction((i + 1) * 10, insert(i, "z".repeat(20_000))));
      const all = appendAll(journal, transactions.map((entries) => new HandMadeBlock(entries)));
      await waitFor(() => Promise.resolve(journal.facts().level === "waiting"), "the full disk", 20_000);
      const before = journal.durable();
      await sleep(1_200);
      expect(journal.durable()).toBe(before);
      await run("mount", ["-o", "remount,size=64m", directory]);
      await all;
      expect(await readAll(journal, START)).toEqual(told(transactions.flat()));
      expect(journal.facts().level).toBe("ok");
    } finally {
      await run("umount", ["-l", directory]);
    }
  });
});
