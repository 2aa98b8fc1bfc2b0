/** The written table of types is what check decides by. */
import { describe, expect, test } from "vitest";
import { KNOWN_ENGINES } from "../../connectors/registry.ts";
import { typeTables, type TypePair } from "../../src/commands/types.ts";
import { commonFit, type Engine } from "../../src/core/index.ts";

function pairs(from: string, to: string): readonly TypePair[] {
  return typeTables({ from, to })[0]!.pairs;
}

function pair(from: string, to: string, [source, target]: readonly [string, string]): TypePair | undefined {
  return pairs(from, to).find((one) => one.from === source && one.to === target);
}

describe("the table of types", () => {
  test("without a choice, between all engines that differ", () => {
    expect(typeTables({}).map(({ from, to }) => `${from} > ${to}`)).toEqual(["postgres > mysql", "postgres > mariadb", "mysql > postgres", "mysql > mariadb", "mariadb > postgres", "mariadb > mysql"]);
  });

  test.each([
    ["mysql", "postgres", "decimal(14,2)", "numeric(14,2)", "exact", "the number, whatever digits it is written with"],
    ["mysql", "postgres", "bigint unsigned", "numeric(20,0)", "widened", "the number, whatever digits it is written with"],
    ["mysql", "postgres", "bigint unsigned", "bigint", "refused", null],
    ["mysql", "postgres", "timestamp(6)", "timestamp with time zone", "checked", "the time to the microsecond"],
    ["mysql", "postgres", "datetime(6)", "timestamp with time zone", "refused", null],
    ["mysql", "postgres", "binary(16)", "uuid", "widened", null],
    ["mysql", "postgres", "char(10)", "character(10)", "exact", "the text without blanks at its end"],
    ["mysql", "postgres", "json", "jsonb", "exact", "whether there is a value, and nothing of the value"],
    ["mariadb", "postgres", "json", "json", "exact", null],
    ["mariadb", "postgres", "json", "jsonb", "widened", "whether there is a value, and nothing of the value"],
    ["mysql", "postgres", "enum('a','b')", "enum('a','b')", "exact", null],
    ["mariadb", "postgres", "inet6", "inet", "exact", null],
    ["postgres", "mysql", "timestamp with time zone", "timestamp(6)", "checked", "the time to the microsecond"],
  ])("%s to %s: %s to %s is %s", (from, to, source, target, fits, compared) => {
    expect(pair(from, to, [source, target])).toMatchObject({ fits, compared });
  });

  test("every pair between engines is as the rules say, and every refusal has its reason", () => {
    const [postgres, mysql] = KNOWN_ENGINES as [Engine, Engine];
    const told = new Map(pairs("mysql", "postgres").map((one) => [`${one.from} > ${one.to}`, one]));
    for (const from of mysql.typeSamples) {
      for (const to of postgres.typeSamples) {
        const { fits, note } = commonFit(from.common, to.common);
        const found = told.get(`${from.type} > ${to.type}`);
        if (found === undefined) expect([from.type, to.type, fits]).toEqual([from.type, to.type, "refused"]);
        else expect([from.type, to.type, found.fits, found.note]).toEqual([from.type, to.type, fits, note]);
        if (fits === "refused") expect([from.type, to.type, note === ""]).toEqual([from.type, to.type, false]);
      }
    }
  });

  test("samples are types that the engine knows, and every one can go somewhere", () => {
    for (const { name, typeSamples } of KNOWN_ENGINES) {
      expect(typeSamples.filter(({ common }) => common.kind === "other").map(({ type }) => type)).toEqual([]);
      const going = new Set(typeTables({ from: name }).flatMap((table) => table.pairs.filter(({ fits }) => fits !== "refused").map(({ from }) => from)));
      expect(typeSamples.map(({ type }) => type).filter((type) => !going.has(type))).toEqual([]);
    }
  });

  test("between two servers of PostgreSQL the connector's own rules hold", () => {
    expect(pair("postgres", "postgres", ["smallint", "bigint"])).toMatchObject({ fits: "exact" });
    expect(pair("postgres", "postgres", ["bigint", "smallint"])).toMatchObject({ fits: "refused" });
    expect(pair("postgres", "postgres", ["json", "json"])).toMatchObject({ fits: "exact", compared: null });
  });

  test("an engine that there is not is refused by name", () => {
    expect(() => typeTables({ from: "oracle" })).toThrow(/engine "oracle"/);
  });
});
