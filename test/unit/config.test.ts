import { readFile, readdir } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseConfig } from "../../src/config/index.ts";
import { configJsonSchema } from "../../src/config/emit.ts";
import { isDualrunError } from "../../src/core/index.ts";

const ENV = {
  SOURCE_URL: "postgres://dualrun:secret@old.example:5432/billing", TARGET_URL: "postgres://dualrun:secret@new.example:5432/billing",
  SOURCE_CA: "-----BEGIN CERTIFICATE-----", TARGET_CA: "-----BEGIN CERTIFICATE-----", JOURNAL_KEY: "ab".repeat(32),
};
const examples = new URL("../../config/examples/", import.meta.url);
const BASE = { migration: "m", timeZone: "UTC", source: { engine: "postgres", url: "env:SOURCE_URL" }, target: { engine: "postgres", url: "env:TARGET_URL" }, include: ["public.*"] };

const parse = (document: unknown, env: Record<string, string> = ENV) => parseConfig(typeof document === "string" ? document : JSON.stringify(document), { directory: ".", env });

function faults(document: unknown, env?: Record<string, string>): { code: string; details: readonly string[]; text: string } {
  try {
    parse(document, env);
  } catch (error) {
    if (isDualrunError(error)) return { code: error.code, details: error.details, text: [error.message, ...error.details].join("\n") };
    throw error;
  }
  throw new Error("no fault was found");
}

test("every example is valid", async () => {
  const names = await readdir(examples);
  expect(names.length).toBeGreaterThanOrEqual(3);
  for (const name of names) parse(await readFile(new URL(name, examples), "utf8"));
});

test("the checked-in schema is what the validator says", async () => {
  expect(await readFile(new URL("../../config/dualrun.schema.json", import.meta.url), "utf8")).toBe(configJsonSchema());
});

test("defaults", () => {
  const config = parse(BASE);
  expect(config.apply).toMatchObject({ batchRows: 5000, batchDelay: 20, maxBuffer: 64 << 20, onConflict: "source-wins" });
  expect(config.source.tls.mode).toBe("verify-full");
});

describe("faults", () => {
  test("all at once, each with its place", () => {
    const { code, details } = faults({ ...BASE, migration: "NO", timeZone: "Mars/Olympus", apply: { batchRows: -1, nonsense: 1 } });
    expect(code).toBe("DR1001");
    expect(details.length).toBeGreaterThanOrEqual(4);
    for (const place of ["migration", "timeZone", "apply.batchRows", "nonsense"]) expect(details.join("\n")).toContain(place);
  });

  test("a missing secret is named, its value never", () => {
    const { text } = faults(BASE, { SOURCE_URL: ENV.SOURCE_URL });
    expect(text).toContain("TARGET_URL");
    expect(text).not.toContain("secret@");
  });

  test("an inline password is refused beyond loopback", () => {
    const { text } = faults({ ...BASE, source: { engine: "postgres", url: "postgres://u:hunter2@db.example/x" } });
    expect(text).not.toContain("hunter2");
    parse({ ...BASE, source: { engine: "postgres", url: "postgres://u:hunter2@127.0.0.1/x" } });
  });

  test("engines and journals that are not there yet", () => {
    expect((faults({ ...BASE, target: { engine: "mysql", url: "env:TARGET_URL" } }, { ...ENV, TARGET_URL: "mysql://u@new.example/x" })).code).toBe("DR1005");
    expect((faults({ ...BASE, journal: { kind: "kafka", brokers: ["k:9092"], topic: "t" } })).code).toBe("DR1005");
  });
});

test("a mutated configuration is valid or is refused with a code", () => {
  const anything = fc.anything({ maxDepth: 2, withNullPrototype: false });
  const key = fc.constantFrom("migration", "timeZone", "source", "target", "classes", "include", "snapshot", "apply", "journal", "comparison", "gates", "cutover", "safety", "http", "notify", "log", "zzz");
  fc.assert(fc.property(key, anything, fc.string(), (name, value, noise) => {
    for (const text of [JSON.stringify({ ...BASE, [name]: value }) ?? "", `${JSON.stringify(BASE)}${noise}`, noise]) {
      try {
        parse(text);
      } catch (error) {
        expect(isDualrunError(error) && /^DR100[1235]$/.test(error.code), String(error)).toBe(true);
      }
    }
  }), { numRuns: 300 });
});
