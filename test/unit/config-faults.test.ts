/** What a configuration may say, what each fault says, and that no document breaks the loader. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { stringify } from "yaml";
import { inertSections, loadConfig, parseConfig, parseTable, parseTablePattern, type Config } from "../../src/config/index.ts";
import { DualrunError } from "../../src/core/index.ts";

const directory = mkdtempSync(join(tmpdir(), "dualrun-config-"));
afterAll(() => rmSync(directory, { recursive: true }));
writeFileSync(join(directory, "ca.pem"), "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n");
writeFileSync(join(directory, "url"), "postgres://u:hunter2@old.example/billing\n");
writeFileSync(join(directory, "empty"), "");

const ENV = { SOURCE_URL: "postgres://u:hunter2@old.example/billing", TARGET_URL: "postgres://u:hunter2@new.example/billing", EMPTY: "", HOOK: "https://hooks.example/x" };

/** Everything that the contract shows. */
const WHOLE = {
  migration: "billing-2026", timeZone: "Pacific/Auckland",
  source: { engine: "postgres", url: "env:SOURCE_URL", tls: { mode: "verify-full", ca: "file:ca.pem" }, readReplica: "env:SOURCE_URL" },
  target: { engine: "postgres", url: "env:TARGET_URL" },
  classes: [{
    name: "invoices", source: "public.invoices", target: "billing.invoices", where: "deleted_at is null", kind: "money",
    money: [{ column: "total", currency: "currency" }, { column: "fee", currency: "'NZD'" }], occurredAt: "issued_at",
    columns: { state: { from: "status", map: { o: "open", p: "paid" } }, legacy_flag: { drop: true }, country: { default: "NZ" }, nothing: { default: null } },
    sensitive: ["email", "phone"],
  }],
  snapshot: { parallel: 4, chunkRows: 50_000, maxRowsPerSecond: 0 },
  apply: { mode: "mirror", batchRows: 5000, batchDelay: "20ms", maxBuffer: "64MiB", onConflict: "source-wins" },
  journal: { kind: "none" },
  comparison: { every: "1h", rescan: "24h", dailyAt: "00:30", holdTimeout: "5s", cutTimeout: "30s", statementTimeout: "15m", maxRowsPerSecond: 0 },
  gates: { dualRun: "14d", cleanHours: 24, maxLag: "5s", rehearsals: 3, rollbackRehearsals: 1, maxBreaks: 0, signOff: ["finance"] },
  cutover: { freezeTimeout: "30s", drainTimeout: "60s", maxFailedShare: 0, sequenceMargin: 1000, reverseWindow: "48h", switch: { command: ["./switch.sh"] } },
  retention: { days: 90 },
  safety: { slotRetainedBytesWarn: "10GiB", slotRetainedBytesMax: "50GiB" },
  http: { listen: "127.0.0.1:7070" },
  notify: [{ kind: "webhook", url: "env:HOOK", on: ["break", "phase", "lag"] }],
  log: { level: "info" },
};
const { classes: _, ...REST } = WHOLE;
const MINIMAL = { migration: "m", timeZone: "UTC", source: { engine: "postgres", url: "env:SOURCE_URL" }, target: WHOLE.target, include: ["public.*"] };

const parse = (document: unknown): Config => parseConfig(typeof document === "string" ? document : stringify(document), { directory, env: ENV });

function fault(document: unknown): DualrunError {
  try {
    parse(document);
  } catch (error) {
    if (error instanceof DualrunError) return error;
    throw error;
  }
  throw new Error("no fault was found");
}

/** Details of a fault without the line numbers. */
const details = (document: unknown): string[] => fault(document).details.map((line) => line.replace(/ \(line \d+\)/, ""));

describe("a whole configuration", () => {
  const config = parse(WHOLE);

  test("is parsed to units that programs use", () => {
    expect(config.apply).toEqual({ mode: "mirror", batchRows: 5000, batchDelay: 20, maxBuffer: 64 * 2 ** 20, onConflict: "source-wins" });
    expect(config.gates.dualRun).toBe(14 * 86_400_000);
    expect(config.safety).toEqual({ slotRetainedBytesWarn: 10 * 2 ** 30, slotRetainedBytesMax: 50 * 2 ** 30 });
    expect(config.snapshot).toEqual({ parallel: 4, chunkRows: 50_000, maxRowsPerSecond: 0, maxRefusedShare: 0, maxAge: 43_200_000 });
    expect(config.http.listen).toEqual({ host: "127.0.0.1", port: 7070 });
    expect(config.notify[0]!.url).toBe(ENV.HOOK);
  });

  test("has its secrets in place", () => {
    expect(config.source.url).toBe(ENV.SOURCE_URL);
    expect(config.source.tls).toEqual({ mode: "verify-full", ca: "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----" });
    expect(config.source.readReplica).toEqual({ url: ENV.SOURCE_URL, tls: config.source.tls });
    expect(parse({ ...MINIMAL, source: { engine: "postgres", url: "file:url" } }).source.url).toBe(ENV.SOURCE_URL);
  });

  test("has its classes", () => {
    expect(config.classes![0]).toMatchObject({
      source: { schema: "public", name: "invoices" }, target: { schema: "billing", name: "invoices" },
      where: { op: "isNull", column: "deleted_at" },
      columns: new Map<string, unknown>([
        ["state", { kind: "take", from: "status", map: new Map([["o", "open"], ["p", "paid"]]) }], ["legacy_flag", { kind: "drop" }],
        ["country", { kind: "constant", value: "NZ" }], ["nothing", { kind: "constant", value: null }],
      ]),
    });
    expect(parse({ ...REST, classes: [{ source: 'public."odd.name"' }] }).classes![0]).toMatchObject({ name: "odd.name", target: { schema: "public", name: "odd.name" } });
  });

  test("has its journal", () => {
    expect(parse({ ...MINIMAL, journal: { kind: "sqlite", path: "data/j.db" } }).journal).toEqual({ kind: "sqlite", path: join(directory, "data/j.db"), maxBytes: 10 * 2 ** 30, key: null });
    for (const key of ["ab".repeat(32), Buffer.alloc(32, 0xab).toString("base64")]) {
      const { journal } = parseConfig(stringify({ ...MINIMAL, journal: { kind: "sqlite", path: "/j.db", maxBytes: "64MiB", key: "env:KEY" } }), { directory, env: { ...ENV, KEY: key } });
      expect(journal).toEqual({ kind: "sqlite", path: "/j.db", maxBytes: 64 * 2 ** 20, key: Buffer.alloc(32, 0xab) });
    }
  });

  test("says what has no effect yet, and only what was given", () => {
    expect(inertSections(parse(MINIMAL))).toEqual([]);
    const lines = inertSections(config).join("\n");
    for (const part of ["gates (", "cutover (", "retention (days)", "notify has no effect"]) expect(lines).toContain(part);
    expect(inertSections(parseConfig(stringify(MINIMAL), { directory, env: { ...ENV, TARGET_URL: `${ENV.TARGET_URL}?sslmode=disable` } }))).toEqual(["target.url: the parameter sslmode has no effect: target.tls decides"]);
  });
});

describe("TLS", () => {
  const mode = (url: string, tls?: object): string => parse({ ...MINIMAL, source: { engine: "postgres", url, ...(tls === undefined ? {} : { tls }) } }).source.tls.mode;

  test.each([
    ["postgres://u@old.example/x", undefined, "verify-full"], ["postgres://u:p@localhost/x", undefined, "disable"], ["postgres://u:p@127.9.9.9/x", undefined, "disable"],
    ["postgres://u:p@[::1]:5433/x", undefined, "disable"], ["postgres://localhost/x", { ca: "file:ca.pem" }, "verify-full"], ["postgres://localhost/x", { mode: "require" }, "require"],
    ["postgres://localhost.evil.example/x", undefined, "verify-full"],
  ])("%s %j: %s", (url, tls, expected) => expect(mode(url, tls)).toBe(expected));
});

describe("faults", () => {
  test.each<[string, object, string]>([
    ["inline password", { source: { engine: "postgres", url: "postgres://u:hunter2@old.example/x" } }, "source.url: found an address with a password in it; allowed: env:NAME or file:PATH"],
    ["parameter that would override the session", { source: { engine: "postgres", url: "postgres://localhost/x?options=-c%20fsync=off" } }, 'source.url: found an address with the parameter "options"'],
    ["host that hides behind loopback", { source: { engine: "postgres", url: "postgres://u:hunter2@localhost/x?host=evil.example" } }, 'source.url: found an address with the parameter "host"'],
    ["address without a database", { source: { engine: "postgres", url: "postgres://localhost" } }, "source.url: found an address without a database"],
    ["address of another kind", { source: { engine: "postgres", url: "https://u:hunter2@old.example/x" } }, "source.url: found an address of another form"],
    ["variable that is not set", { source: { engine: "postgres", url: "env:NOPE" } }, "source.url: found env:NOPE, but NOPE is not set"],
    ["variable that is empty", { source: { engine: "postgres", url: "env:EMPTY" } }, "source.url: found env:EMPTY, but EMPTY is empty"],
    ["file that is not there", { source: { engine: "postgres", url: "file:nope" } }, "nope does not exist"],
    ["file that is empty", { source: { engine: "postgres", url: "file:empty" } }, "empty is empty"],
    ["file that never ends", { source: { engine: "postgres", url: "file:/dev/zero" } }, "/dev/zero is no ordinary file"],
    ["authority that is none", { source: { ...MINIMAL.source, tls: { ca: "file:url" } } }, "source.tls.ca: found file:url, which holds no PEM certificate"],
    ["unknown key", { source: { ...MINIMAL.source, pasword: "hunter2" } }, "source.pasword: found an unknown key; allowed: one of engine, url, tls, readReplica"],
    ["unit", { apply: { batchDelay: "20" } }, 'apply.batchDelay: found "20"; allowed: a duration from 0ms to 60s'],
    ["out of bounds", { apply: { batchDelay: "2m" } }, 'apply.batchDelay: found "2m"; allowed: a duration from 0ms to 60s'],
    ["size", { apply: { maxBuffer: "64MB" } }, 'apply.maxBuffer: found "64MB"; allowed: a size of at least 1MiB'],
    ["number", { snapshot: { parallel: 0 } }, "snapshot.parallel: found 0; allowed: from 1"],
    ["fraction", { snapshot: { parallel: 1.5 } }, "snapshot.parallel: found 1.5; allowed: a whole number"],
    ["choice", { apply: { onConflict: "target-wins" } }, 'apply.onConflict: found "target-wins"; allowed: source-wins, halt'],
    ["choice of kinds", { journal: { kind: "paper" } }, 'journal.kind: found "paper"; allowed: none, sqlite, kafka'],
    ["empty section", { snapshot: null }, "snapshot: found nothing; allowed: a mapping"],
    ["list", { classes: {}, include: undefined }, "classes: found a mapping; allowed: a list"],
    ["both selections", { classes: [{ source: "a.b" }] }, "include: found include beside classes; allowed: either classes or include"],
    ["exclude alone", { classes: [{ source: "a.b" }], include: undefined, exclude: ["a.c"] }, "exclude: found exclude beside classes"],
    ["table", { classes: [{ source: "invoices" }], include: undefined }, 'classes[0].source: found "invoices"; allowed: schema.table'],
    ["same name twice", { classes: [{ source: "a.b" }, { source: "c.b" }], include: undefined }, 'classes[1].name: found "b", which classes[0] has already'],
    ["where", { classes: [{ source: "a.b", where: "x != 1" }], include: undefined }, "classes[0].where: found at column 3 `!=`; allowed: "],
    ["money kind without money", { classes: [{ source: "a.b", kind: "money" }], include: undefined }, "classes[0].money: found nothing; allowed: at least one money column"],
    ["currency", { classes: [{ source: "a.b", money: [{ column: "x", currency: "'nzd'" }] }], include: undefined }, "classes[0].money[0].currency: found \"'nzd'\"; allowed: a column's name, or a literal ISO 4217 code"],
    ["number as a constant", { classes: [{ source: "a.b", columns: { x: { default: 7 } } }], include: undefined }, "classes[0].columns.x.default: found 7; allowed: text or null; write numbers, yes and no in quotes"],
    ["boolean in a map", { classes: [{ source: "a.b", columns: { x: { map: { y: true } } } }], include: undefined }, "classes[0].columns.x.map.y: found true; allowed: a mapping from text to text"],
    ["drop beside from", { classes: [{ source: "a.b", columns: { x: { drop: true, from: "y" } } }], include: undefined }, "classes[0].columns.x: found drop beside other rules"],
    ["rule without a rule", { classes: [{ source: "a.b", columns: { x: {} } }], include: undefined }, "classes[0].columns.x: found no rule"],
    ["warn above max", { safety: { slotRetainedBytesWarn: "60GiB" } }, "safety.slotRetainedBytesWarn: found more than slotRetainedBytesMax"],
    ["time zone that is an offset", { timeZone: "+12:00" }, 'timeZone: found "+12:00"; allowed: an IANA time zone'],
    ["listen", { http: { listen: "7070" } }, 'http.listen: found "7070"; allowed: host:port'],
    ["port", { http: { listen: "localhost:70000" } }, "http.listen"],
    ["time of day", { comparison: { dailyAt: "24:00" } }, 'comparison.dailyAt: found "24:00"; allowed: a time like "00:30"'],
    ["webhook", { notify: [{ kind: "webhook", url: "ftp://x", on: ["lag"] }] }, "notify[0].url: found \"ftp://x\"; allowed: an http(s) address"],
    ["manual mode", { apply: { mode: "manual" } }, 'apply.mode: found "manual", which is not available yet; allowed: mirror'],
    ["journal", { journal: { kind: "kafka", brokers: ["k:9092"], topic: "t" } }, 'journal.kind: found "kafka", which is not available yet; allowed: none, sqlite'],
    ["journal without a path", { journal: { kind: "sqlite" } }, "journal.path: found nothing; allowed: a file's path"],
    ["journal that is too small", { journal: { kind: "sqlite", path: "j.db", maxBytes: "1MiB" } }, 'journal.maxBytes: found "1MiB"; allowed: a size of at least 64MiB'],
    ["journal's key inline", { journal: { kind: "sqlite", path: "j.db", key: "hunter2" } }, "journal.key: found a key that is written here; allowed: env:NAME or file:PATH"],
    ["journal's key as a number", { journal: { kind: "sqlite", path: "j.db", key: 1234567 } }, "journal.key: found something that is no text; allowed: env:NAME or file:PATH"],
    ["journal's key that is none", { journal: { kind: "sqlite", path: "j.db", key: "env:HOOK" } }, "journal.key: found env:HOOK, whose value is no key of 32 bytes; allowed: 64 hex digits or base64"],
    ["journal's key that is not there", { journal: { kind: "sqlite", path: "j.db", key: "env:NOPE" } }, "journal.key: found env:NOPE, but NOPE is not set"],
    ["unknown key of a journal", { journal: { kind: "sqlite", path: "j.db", size: "1GiB" } }, "journal.size: found an unknown key; allowed: one of kind, path, maxBytes, key"],
  ])("%s", (_name, change, expected) => {
    const lines = details({ ...MINIMAL, ...change });
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain(expected);
    expect(lines[0]).not.toContain("hunter2");
  });

  test("the code is the gravest", () => {
    const missing = { source: { engine: "postgres", url: "env:NOPE" } };
    expect(fault({ ...MINIMAL, apply: { mode: "manual" } }).code).toBe("DR1005");
    expect(fault({ ...MINIMAL, ...missing, apply: { mode: "manual" } }).code).toBe("DR1003");
    expect(fault({ ...MINIMAL, ...missing, apply: { mode: "manual" }, log: { level: "loud" } })).toMatchObject({ code: "DR1001", message: "3 settings cannot be used" });
  });

  test("each has its line, in their order", () => {
    const text = "migration: m\ntimeZone: UTC\nsource:\n  engine: postgres\n  url: env:NOPE\ntarget:\n  engine: postgres\n  url: env:TARGET_URL\n  color: red\ninclude:\n  - public.*\n  - nonsense\n";
    expect(fault(text).details.map((line) => line.slice(0, line.indexOf(":")))).toEqual(["source.url (line 5)", "target.color (line 9)", "include[1] (line 12)"]);
  });

  test.each([["a: [", "line 1"], ["migration: m\nmigration: n\n", "line 2"], ["a: !!js/function x", "line 1"], ["a: &x [*x]", "YAML"], ["[".repeat(50_000), "YAML"], ["a: 1\n---\nb: 2", "line"]])("YAML that cannot be read: %s", (text, expected) => {
    const error = fault(text);
    expect(error.code).toBe("DR1002");
    expect(error.message).toContain(expected);
  });

  test("aliases do not multiply", () => {
    const bomb = ["a: &a [x,x,x,x,x,x,x,x,x]", ..."bcdefgh".split("").map((name, i) => `${name}: &${name} [${Array.from({ length: 9 }, () => `*${"abcdefg"[i]}`).join(",")}]`)].join("\n");
    expect(fault(bomb).code).toBe("DR1002");
  });

  test("a file that is not there, or is a directory", async () => {
    await expect(loadConfig(join(directory, "nope.yaml"), ENV)).rejects.toMatchObject({ code: "DR1002" });
    await expect(loadConfig(directory, ENV)).rejects.toMatchObject({ code: "DR1002" });
  });
});

describe("tables", () => {
  test.each([
    ["public.invoices", { schema: "public", name: "invoices" }], ["Public.Invoices", { schema: "Public", name: "Invoices" }], ['"a.b"."c""d"', { schema: "a.b", name: 'c"d' }],
    ["public.my table", { schema: "public", name: "my table" }], ["invoices", null], ["a.b.c", null], ['a."b', null], [".b", null],
  ])("%s", (text, expected) => expect(parseTable(text)).toEqual(expected));

  test.each([
    ["public.*", "public", "x", true], ["public.*", "publix", "x", false], ["public.tmp_*", "public", "tmp_1", true], ["public.t?p", "public", "tmp", true], ["public.a.c", "public", "abc", false],
    ["*.*", "any", "thing", true], ['public."a*"', "public", "ab", false], ['public."a*"', "public", "a*", true], ["p+.(x)", "p+", "(x)", true], ["public.*", "public", "a\nb", true],
  ])("%s on %s.%s: %s", (text, schema, name, expected) => {
    expect(parseTablePattern(text)?.matches({ schema, name }) ?? false).toBe(expected);
  });
});

/** All places of a document, to be mutated. */
function places(value: unknown, path: readonly (string | number)[] = []): (readonly (string | number)[])[] {
  if (typeof value !== "object" || value === null) return [path];
  return [path, ...Object.entries(value).flatMap(([key, inner]) => places(inner, [...path, Array.isArray(value) ? Number(key) : key]))];
}

function replaced(document: unknown, path: readonly (string | number)[], value: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined || typeof document !== "object" || document === null) return value;
  if (Array.isArray(document)) return document.map((inner, i) => (i === key ? replaced(inner, rest, value) : inner));
  return { ...document, [key]: replaced((document as Record<string, unknown>)[key], rest, value) };
}

describe("any document", () => {
  const values = fc.oneof(
    fc.constantFrom<unknown>(null, "", "env:NOPE", "env:SOURCE_URL", "file:/dev/zero", "file:.", "file:\0", "env:__proto__", "postgres://", "1h", "-1s", "99999999999d", "0MiB", "mysql", "public.*", "((((", "a = 'x", 0, -1, Infinity, NaN, true, [], {}, [[]], { drop: true }, JSON.parse(`{"__proto__":1}`) as unknown),
    fc.anything({ maxDepth: 3 }), fc.string({ unit: "binary" }),
  );
  const check = (text: string): void => {
    try {
      parse(text);
    } catch (error) {
      expect(error, String(error)).toBeInstanceOf(DualrunError);
      expect((error as DualrunError).code).toMatch(/^DR100[1235]$/);
      expect([(error as DualrunError).message, ...(error as DualrunError).details].join("\n")).not.toContain("hunter2");
    }
  };

  test("mutated at random places is loaded or refused with a code", () => {
    const mutation = fc.record({ path: fc.constantFrom(...places(WHOLE)), value: values });
    fc.assert(fc.property(fc.array(mutation, { minLength: 1, maxLength: 4 }), (mutations) => {
      const document = mutations.reduce<unknown>((current, { path, value }) => replaced(current, path, value), WHOLE);
      check(JSON.stringify(document, (_key, value: unknown) => (typeof value === "bigint" ? String(value) : value)) ?? "");
    }), { numRuns: 500 });
  });

  test("cut, doubled and sprinkled as text, too", () => {
    const text = stringify(WHOLE);
    const edit = fc.record({ at: fc.nat(text.length), remove: fc.nat(20), insert: fc.oneof(fc.string(), fc.constantFrom("\n", "  ", ": ", "- ", "&a ", "*a", "{", "}", "[", "'", '"', "!!binary ", "<<: ", "? ", "|\n", "\t", "#", "---\n", "%YAML 9\n")) });
    fc.assert(fc.property(fc.array(edit, { minLength: 1, maxLength: 5 }), (edits) => {
      check(edits.reduce((current, { at, remove, insert }) => current.slice(0, at) + insert + current.slice(at + remove), text));
    }), { numRuns: 500 });
  });
});
