/** Positions of MySQL and MariaDB against naive sets of transactions. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { accumulator, canonicalPosition, contains, GtidSet, kindOf, mysqlPositions, union } from "../../connectors/mysql/positions.ts";
import type { Position, Relation } from "../../src/core/index.ts";

const UUIDS = ["11111111-2222-3333-4444-555555555555", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"];
const SOURCES = UUIDS.flatMap((uuid) => [uuid, `${uuid}:dualrun`, `${uuid}:_x1`]);

type Model = ReadonlyMap<string, ReadonlySet<number>>;

const gtid = fc.tuple(fc.constantFrom(...SOURCES), fc.integer({ min: 1, max: 12 }));
const gtids = fc.array(gtid, { maxLength: 40 });

function modelOf(list: readonly (readonly [string, number])[]): Model {
  return new Map([...Map.groupBy(list, ([source]) => source)].map(([source, all]) => [source, new Set(all.map(([, number]) => number))]));
}

/** As clumsily as it may be written: every number on its own, in the order given. */
function clumsy(list: readonly (readonly [string, number])[]): string {
  return list.map(([source, number]) => `${source.toUpperCase()}:${number}`).join(",\n");
}

function includes(whole: Model, part: Model): boolean {
  return [...part].every(([source, numbers]) => [...numbers].every((number) => whole.get(source)?.has(number) === true));
}

function naive(a: Model, b: Model): Relation {
  const [within, holds] = [includes(b, a), includes(a, b)];
  return within && holds ? "equal" : within ? "before" : holds ? "after" : "concurrent";
}

const relate = (a: string, b: string): Relation => mysqlPositions.relate(a as Position, b as Position);

describe("GTID sets of MySQL", () => {
  test("relate as sets of transactions do", () => {
    fc.assert(fc.property(gtids, gtids, (a, b) => {
      expect(relate(clumsy(a), clumsy(b))).toBe(naive(modelOf(a), modelOf(b)));
    }), { numRuns: 500 });
  });

  test("are before what has grown from them, and have one text whatever the order", () => {
    fc.assert(fc.property(gtids, gtids, (a, b) => {
      const grown = b.reduce((position, [source, number]) => union(position, `${source}:${number}`), canonicalPosition(clumsy(a)));
      expect(grown).toBe(canonicalPosition(clumsy([...b, ...a])));
      expect(canonicalPosition(grown)).toBe(grown);
      expect(["before", "equal"]).toContain(relate(clumsy(a), grown));
    }), { numRuns: 300 });
  });

  test("contain exactly what was added", () => {
    fc.assert(fc.property(gtids, gtid, (a, [source, number]) => {
      expect(contains(canonicalPosition(clumsy(a)), `${source}:${number}`)).toBe(modelOf(a).get(source)?.has(number) === true);
    }), { numRuns: 300 });
  });

  test("are printed as the server prints them", () => {
    const [u, v] = UUIDS as [string, string];
    expect(canonicalPosition(`${v}:tag:7,${u}:1-3:5:4:9-10:Tag:3:1-2`)).toBe(`${u}:1-5:9-10:tag:1-3,${v}:tag:7`);
    expect(canonicalPosition(` ${u}:1,\n${u}:2 `)).toBe(`${u}:1-2`);
    expect(canonicalPosition(`${u}:1-9223372036854775806`)).toBe(`${u}:1-9223372036854775806`);
  });

  test("grow along a stream", () => {
    const place = accumulator("gtid-set");
    for (let number = 1; number <= 1000; number += 1) place.addAll(`${UUIDS[0]}:${number}`);
    expect(place.toPosition()).toBe(`${UUIDS[0]}:1-1000`);
    const set = GtidSet.parse(place.toPosition());
    set.add(UUIDS[0]!, 1002n);
    expect(set.toPosition()).toBe(`${UUIDS[0]}:1-1000:1002`);
  });
});

describe("domains of MariaDB", () => {
  const place = fc.dictionary(fc.constantFrom("0", "1", "7", "12"), fc.integer({ min: 1, max: 5 }));
  const written = (sequences: Readonly<Record<string, number>>): string => Object.entries(sequences).map(([domain, sequence]) => `${domain}-${Number(domain) + 100}-${sequence}`).reverse().join(",");
  /** Every transaction that a place stands for. */
  const expanded = (sequences: Readonly<Record<string, number>>): Model => new Map(Object.entries(sequences).map(([domain, last]) => [domain, new Set(Array.from({ length: last }, (_, at) => at + 1))]));

  test("relate as sets of transactions do", () => {
    fc.assert(fc.property(place, place, (a, b) => {
      expect(relate(written(a), written(b))).toBe(naive(expanded(a), expanded(b)));
    }), { numRuns: 500 });
  });

  test("grow, and are sorted by the domain's number", () => {
    fc.assert(fc.property(place, place, (a, b) => {
      const grown = Object.entries(b).reduce((position, [domain, sequence]) => union(position, `${domain}-${Number(domain) + 100}-${sequence}`), canonicalPosition(written(a)));
      const domains = grown.split(",").filter((one) => one !== "").map((one) => Number(one.split("-")[0]));
      expect(domains).toEqual([...new Set([...Object.keys(a), ...Object.keys(b)])].map(Number).sort((x, y) => x - y));
      for (const [domain, sequence] of Object.entries(b)) expect(contains(grown, `${domain}-${Number(domain) + 100}-${sequence}`)).toBe(true);
      expect(["before", "equal"]).toContain(relate(written(a), grown));
    }), { numRuns: 300 });
  });

  test("of two servers that went apart are concurrent", () => {
    expect(relate("0-1-100", "0-2-100")).toBe("concurrent");
    expect(relate("0-1-100", "0-2-101")).toBe("before");
  });
});

describe("files and offsets", () => {
  test("are ordered by number, not by text", () => {
    expect(relate("binlog.999999:4", "binlog.1000000:4")).toBe("before");
    expect(relate("binlog.000002:900", "binlog.000002:1000")).toBe("before");
    expect(relate("binlog.000002:900", "binlog.000002:900")).toBe("equal");
    expect(relate("a.000001:4", "b.000002:4")).toBe("concurrent");
  });

  test("have no order with GTIDs", () => {
    for (const other of ["", "0-1-5", `${UUIDS[0]}:1`]) expect(relate("binlog.000001:4", other)).toBe("concurrent");
  });
});

describe("texts that are no position", () => {
  for (const text of ["16/B374D848", "nonsense", `${UUIDS[0]}`, `${UUIDS[0]}:`, `${UUIDS[0]}:5-3`, `${UUIDS[0]}:0`, `${UUIDS[0]}:1--2`, "0-1", "0-1-5,x", `0-1-5,${UUIDS[0]}:1`]) {
    test(`"${text}" is refused`, () => expect(() => canonicalPosition(text)).toThrow(TypeError));
  }

  test("an empty one is before everything with GTIDs", () => {
    expect(kindOf(" ")).toBe("empty");
    expect([relate("", ""), relate("", "0-1-1"), relate(`${UUIDS[1]}:3`, "")]).toEqual(["equal", "before", "after"]);
  });
});
