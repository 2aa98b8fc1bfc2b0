import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { businessDays, localDate, startOfDay } from "../../src/compare/index.ts";
import { addDecimals, compareDecimals, minorUnits, subtractDecimals } from "../../src/core/index.ts";
import { parseBankCsv } from "../../src/report/index.ts";
import { cell } from "../../src/report/csv.ts";

const decimal = fc.tuple(fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }), fc.integer({ min: 0, max: 30 })).map(([units, scale]) => {
  const digits = (units < 0n ? -units : units).toString().padStart(scale + 1, "0");
  return { units, scale, text: `${units < 0n ? "-" : ""}${digits.slice(0, digits.length - scale)}${scale === 0 ? "" : `.${digits.slice(-scale)}`}` };
});

describe("decimals", () => {
  test("add, subtract and compare exactly", () => {
    fc.assert(fc.property(decimal, decimal, (a, b) => {
      const scale = Math.max(a.scale, b.scale);
      const [x, y] = [a.units * 10n ** BigInt(scale - a.scale), b.units * 10n ** BigInt(scale - b.scale)];
      expect(minorUnits(addDecimals(a.text, b.text), scale)).toBe(x + y);
      expect(minorUnits(subtractDecimals(a.text, b.text), scale)).toBe(x - y);
      expect(Math.sign(compareDecimals(a.text, b.text))).toBe(x < y ? -1 : x > y ? 1 : 0);
    }));
  });

  test("what is none is refused", () => {
    for (const text of ["", "NaN", "1e5", "1,5", "0x10", "Infinity", " 1"]) expect(() => addDecimals(text, "1")).toThrow(TypeError);
  });
});

describe("business days", () => {
  test.each([
    ["Pacific/Auckland", "2026-04-05", "2026-04-04T11:00:00.000Z", 25], ["Pacific/Auckland", "2026-09-27", "2026-09-26T12:00:00.000Z", 23], ["UTC", "2026-01-01", "2026-01-01T00:00:00.000Z", 24],
    ["America/St_Johns", "2026-03-08", "2026-03-08T03:30:00.000Z", 23], ["Asia/Kathmandu", "2026-11-21", "2026-11-20T18:15:00.000Z", 24], ["Africa/Cairo", "2026-04-24", "2026-04-23T22:00:00.000Z", 23],
  ])("%s %s begins at %s and has %d hours", (zone, date, begins, hours) => {
    const next = new Date(Date.parse(`${date}T00:00:00Z`) + 86_400_000).toISOString().slice(0, 10);
    expect(new Date(startOfDay(zone, date)).toISOString()).toBe(begins);
    expect((startOfDay(zone, next) - startOfDay(zone, date)) / 3_600_000).toBe(hours);
  });

  test("every moment is in the day that clocks show, in zones with and without daylight saving", () => {
    for (const zone of ["Pacific/Auckland", "America/Sao_Paulo", "Asia/Tehran", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo"]) {
      const days = businessDays(zone, zone);
      expect(days.moments).toHaveLength(days.names.length + 1);
      expect(days.moments).toEqual(days.moments.toSorted());
      days.names.forEach((name, i) => {
        expect([zone, localDate(zone, Date.parse(days.moments[i]!))]).toEqual([zone, name]);
        expect([zone, localDate(zone, Date.parse(days.moments[i + 1]!) - 1)]).toEqual([zone, name]);
      });
    }
  });
});

describe("files that come and go", () => {
  test("cells that a spreadsheet would execute are text", () => {
    expect(["=1+1", "+cmd", "-5.00", "@x", "\t=1", "a,b", 'say "x"', "plain", "-x"].map(cell)).toEqual(["'=1+1", "'+cmd", "-5.00", "'@x", "'\t=1", '"a,b"', '"say ""x"""', "plain", "'-x"]);
  });

  test("statements in the forms that banks use", () => {
    expect(parseBankCsv("\uFEFFDate,Currency,Amount\r\n2026-11-20,NZD,-1.50\r\n\r\n".replace("\r\n\r\n", "\r\n"))).toEqual([{ date: "2026-11-20", currency: "NZD", amount: "-1.50", account: "" }]);
    expect(() => parseBankCsv(Buffer.from([0x64, 0xff, 0xfe]).toString("utf8"))).toThrow("the file is not UTF-8");
    expect(() => parseBankCsv("datum,betrag\n")).toThrow(/line 1: found datum, betrag/);
    expect(() => parseBankCsv("date,currency,amount\n")).toThrow("there is no line below the header");
  });

  test("no statement is read wrongly, whatever stands in it", () => {
    fc.assert(fc.property(fc.string({ maxLength: 200 }), (text) => {
      try {
        for (const line of parseBankCsv(`date,currency,amount\n${text}`)) expect(line.amount).toMatch(/^-?\d+(\.\d+)?$/);
      } catch (error) {
        expect(error).toMatchObject({ code: "DR7103" });
      }
    }));
  });
});
