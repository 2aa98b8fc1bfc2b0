import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  DualrunError, compileWhere, parseWhere, whereColumns,
  type Comparison, type Literal, type Predicate, type WhereType,
} from "../../src/core/index.ts";

const COMPARISONS = ["=", "<>", "<", "<=", ">", ">="] as const satisfies readonly Comparison[];

function decide(text: string, row: Record<string, string | null>, type: WhereType = "text"): boolean | null {
  return compileWhere(parseWhere(text), () => type)((column) => row[column] ?? null);
}

function messageOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(DualrunError);
    expect((error as DualrunError).code).toBe("DR1001");
    return (error as DualrunError).message;
  }
  throw new Error("nothing was thrown");
}

describe("parseWhere", () => {
  it("binds NOT tighter than AND, AND tighter than OR", () => {
    expect(parseWhere("a = 1 or not b = 2 and c is not null")).toEqual({
      op: "or",
      left: { op: "compare", column: "a", comparison: "=", literal: { kind: "number", text: "1" } },
      right: {
        op: "and",
        left: { op: "not", operand: { op: "compare", column: "b", comparison: "=", literal: { kind: "number", text: "2" } } },
        right: { op: "not", operand: { op: "isNull", column: "c" } },
      },
    });
  });

  it("folds plain names and keeps quoted ones", () => {
    expect(whereColumns(parseWhere(`Deleted_At IS NULL AND "Odd ""Name""" = 'it''s' AND "and" = TRUE AND straße = 'x' AND deleted_at is null`)))
      .toEqual(["deleted_at", 'Odd "Name"', "and", "straße"]);
  });

  it.each([
    ["", "column 1: found the end; allowed: a column name, NOT or ("],
    ["a", "column 2: found the end; allowed: = <> < <= > >=, IN (…), NOT IN (…), IS NULL or IS NOT NULL"],
    ["a = b", "column 5: found `b`; allowed: a literal ('text', a number, true or false)"],
    ["a = null", "column 5: found `null`; allowed: a literal"],
    ["a != 1", "column 3: found `!=`"],
    ["1 = a", "column 1: found `1`; allowed: a column name"],
    ["a in ()", "column 7: found `)`; allowed: a literal"],
    ["a in (1 2)", "column 9: found `2`; allowed: , or )"],
    ["a is 1", "column 6: found `1`; allowed: NULL or NOT NULL"],
    ["a not like 'x'", "column 7: found `like`; allowed: IN"],
    ["(a = 1", "column 7: found the end; allowed: )"],
    ["a = 1 b = 2", "column 7: found `b`; allowed: AND, OR or the end"],
    ["a = 'x", "column 5: found a text without its closing quote"],
    ['"" = 1', "column 1: found a name that is empty"],
    ["a = 1e5", "column 5: found `1e5`"],
    ["a = 1.2.3", "column 5: found `1.2.3`"],
    ["a = 'x\0'", "column 7: found a character that no database text can hold"],
    ["lower(a) = 'x'", "column 6: found `(`; allowed: ="],
  ])("says where %j is wrong", (text, expected) => {
    expect(messageOf(() => parseWhere(text))).toContain(expected);
  });

  it("refuses what would exhaust the stack or the memory", () => {
    expect(messageOf(() => parseWhere("(".repeat(5000)))).toContain("deeper nesting");
    expect(messageOf(() => parseWhere("not ".repeat(100) + "a = 1"))).toContain("deeper nesting");
    expect(messageOf(() => parseWhere("a = 1 and ".repeat(1000)))).toContain("at most 8192 characters");
  });
});

describe("compileWhere", () => {
  it("knows the unknown", () => {
    expect(decide("a = '1'", { a: null })).toBe(null);
    expect(decide("not a = '1'", { a: null })).toBe(null);
    expect(decide("a = '1' or b = '2'", { a: null, b: "2" })).toBe(true);
    expect(decide("a = '1' and b = '2'", { a: null, b: "3" })).toBe(false);
    expect(decide("a in ('1', '2')", { a: null })).toBe(null);
    expect(decide("a not in ('1', '2')", { a: "3" })).toBe(true);
    expect(decide("a is null", { a: null })).toBe(true);
    expect(decide("a is not null", { a: "" })).toBe(true);
  });

  it("orders text by its UTF-8 bytes", () => {
    expect(decide("a < '\u{1F600}'", { a: "\uFFFD" })).toBe(true);
    expect(decide("a < 'a'", { a: "B" })).toBe(true);
    expect(decide("a = 'a '", { a: "a" })).toBe(false);
  });

  it("looks through the padding of char", () => {
    expect(decide("a = 'NZ'", { a: "NZ   " }, "char")).toBe(true);
    expect(messageOf(() => decide("a = 'NZ '", { a: "NZ" }, "char"))).toContain("without trailing blanks");
  });

  it("compares numbers exactly", () => {
    expect(decide("a = 1.5", { a: "1.500" }, "number")).toBe(true);
    expect(decide("a > 9007199254740992", { a: "9007199254740993" }, "number")).toBe(true);
    expect(decide("a > 0.1", { a: "0.10000000000000000000000000000000001" }, "number")).toBe(true);
    expect(decide("a = 0", { a: "-0.00" }, "number")).toBe(true);
    expect(decide("a in (1, 2)", { a: "2.0" }, "number")).toBe(true);
  });

  it("puts -Infinity below, Infinity above and NaN above everything", () => {
    expect(decide("a < -99999999999999999999", { a: "-Infinity" }, "number")).toBe(true);
    expect(decide("a > 99999999999999999999", { a: "Infinity" }, "number")).toBe(true);
    expect(decide("a > 99999999999999999999", { a: "NaN" }, "number")).toBe(true);
    expect(decide("a = 1", { a: "NaN" }, "number")).toBe(false);
  });

  it("compares booleans and uuids", () => {
    expect(decide("a = true", { a: "t" }, "boolean")).toBe(true);
    expect(decide("a < true", { a: "f" }, "boolean")).toBe(true);
    expect(decide("a = '0198f0a4-0000-7000-8000-00000000000a'", { a: "0198f0a4-0000-7000-8000-00000000000a" }, "uuid")).toBe(true);
  });

  it.each([
    ["a = 1", "text", "allowed: 'text'"],
    ["a = 'x'", "number", "allowed: a number"],
    ["a in (1, 'x')", "number", "found 'x'; allowed: a number"],
    ["a = 'true'", "boolean", "allowed: true or false"],
    ["a = 'nonsense'", "uuid", "allowed: 'xxxxxxxx-"],
    ["a = '0198F0A4-0000-7000-8000-00000000000A'", "uuid", "in lower case"],
    ["not (b is null or a = true)", "text", 'column "a" is compared as text: found true'],
  ] as const)("refuses %j on %s", (text, type, expected) => {
    expect(messageOf(() => compileWhere(parseWhere(text), () => type))).toContain(expected);
  });

  it("refuses a value that is no number, without telling it", () => {
    expect(() => decide("a = 1", { a: "secret" }, "number")).toThrow(/column "a" holds a value that is no number/);
  });
});

const column = fc.constantFrom("a", "b", "Odd Name", 'quo"te', "and", "ünï");
const literal: fc.Arbitrary<Literal> = fc.oneof(
  fc.string({ unit: "grapheme" }).filter((text) => text.isWellFormed() && !text.includes("\0")).map((text) => ({ kind: "text", text }) as const),
  fc.tuple(fc.bigInt(), fc.option(fc.nat())).map(([whole, part]) => ({ kind: "number", text: part === null ? `${whole}` : `${whole}.${part}` }) as const),
  fc.boolean().map((value) => ({ kind: "boolean", text: String(value) }) as const),
);
const { predicate } = fc.letrec<{ predicate: Predicate }>((tie) => ({
  predicate: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.record({ op: fc.constant("compare" as const), column, comparison: fc.constantFrom(...COMPARISONS), literal }),
    fc.record({ op: fc.constant("in" as const), column, literals: fc.array(literal, { minLength: 1, maxLength: 4 }) }),
    fc.record({ op: fc.constant("isNull" as const), column }),
    fc.record({ op: fc.constantFrom("and" as const, "or" as const), left: tie("predicate"), right: tie("predicate") }),
    fc.record({ op: fc.constant("not" as const), operand: tie("predicate") }),
  ),
}));

function print(p: Predicate): string {
  const name = "column" in p ? `"${p.column.replaceAll('"', '""')}"` : "";
  switch (p.op) {
    case "compare": return `${name} ${p.comparison} ${printLiteral(p.literal)}`;
    case "in": return `${name} in (${p.literals.map(printLiteral).join(", ")})`;
    case "isNull": return `${name} is null`;
    case "not": return `not (${print(p.operand)})`;
    default: return `(${print(p.left)}) ${p.op} (${print(p.right)})`;
  }
}

function printLiteral({ kind, text }: Literal): string {
  return kind === "text" ? `'${text.replaceAll("'", "''")}'` : text;
}

describe("properties", () => {
  it("what is printed parses to the same predicate", () => {
    fc.assert(fc.property(predicate, (p) => {
      const text = print(p);
      fc.pre(text.length <= 8192);
      expect(parseWhere(text)).toEqual(p);
    }), { numRuns: 500 });
  });

  it("any text parses or is a fault", () => {
    const piece = fc.oneof(fc.constantFrom("a", "and", "or", "not", "in", "is", "null", "(", ")", ",", "=", "<>", "'x'", '"y"', "1", "'", '"'), fc.string());
    fc.assert(fc.property(fc.array(piece).map((pieces) => pieces.join(" ")), (text) => {
      try {
        parseWhere(text);
      } catch (error) {
        expect(error).toBeInstanceOf(DualrunError);
      }
    }), { numRuns: 500 });
  });

  it("agrees with integers on a common scale", () => {
    const decimal = fc.record({ units: fc.bigInt(), scale: fc.nat({ max: 40 }) });
    fc.assert(fc.property(decimal, decimal, fc.constantFrom(...COMPARISONS), (left, right, comparison) => {
      const exact = { "=": (d: bigint) => d === 0n, "<>": (d: bigint) => d !== 0n, "<": (d: bigint) => d < 0n, "<=": (d: bigint) => d <= 0n, ">": (d: bigint) => d > 0n, ">=": (d: bigint) => d >= 0n };
      const difference = left.units * 10n ** BigInt(40 - left.scale) - right.units * 10n ** BigInt(40 - right.scale);
      const test = compileWhere({ op: "compare", column: "a", comparison, literal: { kind: "number", text: printDecimal(right) } }, () => "number");
      expect(test(() => printDecimal(left))).toBe(exact[comparison](difference));
    }), { numRuns: 500 });
  });

  it("agrees with the order of UTF-8 bytes", () => {
    const text = fc.string({ unit: "binary" }).filter((value) => value.isWellFormed());
    fc.assert(fc.property(text, text, (left, right) => {
      const test = compileWhere({ op: "compare", column: "a", comparison: "<", literal: { kind: "text", text: right } }, () => "text");
      expect(test(() => left)).toBe(Buffer.compare(Buffer.from(left), Buffer.from(right)) < 0);
    }));
  });

  it("obeys De Morgan with three values", () => {
    const value = fc.constantFrom("x", "y", null);
    fc.assert(fc.property(value, value, (a, b) => {
      const row = { a, b };
      expect(decide("not (a = 'x' and b = 'x')", row)).toBe(decide("not a = 'x' or not b = 'x'", row));
      expect(decide("not (a = 'x' or b = 'x')", row)).toBe(decide("not a = 'x' and not b = 'x'", row));
    }));
  });
});

function printDecimal({ units, scale }: { units: bigint; scale: number }): string {
  const sign = units < 0n ? "-" : "";
  const digits = (units < 0n ? -units : units).toString().padStart(scale + 1, "0");
  return scale === 0 ? sign + digits : `${sign}${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
}
