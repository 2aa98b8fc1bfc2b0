/** What is read out of texts that MySQL and MariaDB print: labels, grants, versions. */
import { describe, expect, test } from "vitest";
import { labelsOf } from "../../connectors/mysql/common-types.ts";
import { sessionStatements } from "../../connectors/mysql/connection.ts";
import { quoteAccount, quoteGrantedDatabase, quoteIdent, quoteLiteral } from "../../connectors/mysql/identifiers.ts";
import { versionNumberOf } from "../../connectors/mysql/inspect.ts";
import { holds, parseGrants } from "../../connectors/mysql/privileges.ts";
import { foreignKeysIn, jsonColumnsIn } from "../../connectors/mysql/show-create.ts";

describe("labels", () => {
  test.each([
    ["enum('a','b')", ["a", "b"]],
    ["set('a,b','it''s','')", ["a,b", "it's", ""]],
    [String.raw`enum('back\\slash','new\nline','\'','dq"')`, ["back\\slash", "new\nline", "'", 'dq"']],
    ["enum('''')", ["'"]],
    ["enum('(',')')", ["(", ")"]],
  ])("%s", (type, labels) => expect(labelsOf(type)).toEqual(labels));
});

describe("grants", () => {
  const grants = (...lines: string[]) => parseGrants(lines);

  test("hold everywhere, on a database, on a table", () => {
    const all = grants("GRANT SELECT, BINLOG MONITOR ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*AB' WITH GRANT OPTION", "GRANT LOCK TABLES ON `shop`.* TO `u`@`%`", "GRANT SELECT (`id`), DELETE ON `shop`.`a``b` TO `u`@`%`", "GRANT `r1`@`%` TO `u`@`%`");
    expect(holds(all, "BINLOG MONITOR")).toBe(true);
    expect(holds(all, "SELECT", "any", "table")).toBe(true);
    expect(holds(all, "LOCK TABLES")).toBe(false);
    expect(holds(all, "LOCK TABLES", "shop")).toBe(true);
    expect(holds(all, "LOCK TABLES", "shop2")).toBe(false);
    expect(holds(all, "DELETE", "shop", "a`b")).toBe(true);
    expect(holds(all, "DELETE", "shop", "other")).toBe(false);
  });

  test("on single columns are not on the table", () => {
    expect(holds(grants("GRANT SELECT (`id`, `name`), UPDATE (`id`) ON `shop`.`t` TO `u`@`%`"), "SELECT", "shop", "t")).toBe(false);
  });

  test("with ALL PRIVILEGES hold everything on their level", () => {
    const all = grants("GRANT USAGE ON *.* TO `u`@`%`", "GRANT ALL PRIVILEGES ON `shop`.* TO `u`@`%`");
    expect([holds(all, "LOCK TABLES", "shop"), holds(all, "LOCK TABLES"), holds(all, "SELECT", "shop", "t")]).toEqual([true, false, true]);
  });

  test("take _ and % for others, unless escaped", () => {
    const all = grants(String.raw`GRANT SELECT ON ${"`shop\\_%`"}.* TO ${"`u`@`%`"}`, "GRANT INSERT ON `a_c`.* TO `u`@`%`");
    expect(["shop_1", "shop_", "shopx1", "shop"].map((name) => holds(all, "SELECT", name))).toEqual([true, true, false, false]);
    expect(["abc", "a_c", "abbc"].map((name) => holds(all, "INSERT", name))).toEqual([true, true, false]);
  });

  test("of one account the most specific counts, of several accounts their sum", () => {
    expect(holds(grants("GRANT LOCK TABLES ON `pro_e`.* TO `u`@`%`", "GRANT SELECT ON `probe`.* TO `u`@`%`"), "LOCK TABLES", "probe")).toBe(false);
    expect(holds(grants("GRANT LOCK TABLES ON `pro_e`.* TO `u`@`%`", "GRANT SELECT ON `probe`.* TO `r1`"), "LOCK TABLES", "probe")).toBe(true);
  });

  test("can be revoked for one database", () => {
    const all = grants("GRANT SELECT, INSERT ON *.* TO `u`@`%`", "REVOKE SELECT ON `secret`.* FROM `u`@`%`");
    expect([holds(all, "SELECT", "secret"), holds(all, "INSERT", "secret"), holds(all, "SELECT", "shop")]).toEqual([false, true, true]);
  });
});

describe("SHOW CREATE TABLE of MariaDB", () => {
  const statement = ["CREATE TABLE `c` (", "  `id` int(11) NOT NULL COMMENT 'CONSTRAINT `x` FOREIGN KEY (`a`) REFERENCES `p` (`id`)',", "  `j``1` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(`j``1`)),",
    "  `k` longtext DEFAULT NULL CHECK (json_valid(`other`)),", "  PRIMARY KEY (`id`),", "  CONSTRAINT `up``x` FOREIGN KEY (`p`, `q`) REFERENCES `pp` (`id`, `q`) ON DELETE CASCADE,",
    "  CONSTRAINT `far` FOREIGN KEY (`p`) REFERENCES `else where`.`pp` (`id`) ON DELETE SET NULL ON UPDATE CASCADE,", "  CONSTRAINT `plain` FOREIGN KEY (`p`) REFERENCES `pp` (`id`) ON UPDATE NO ACTION,", "  CONSTRAINT `it`self` FOREIGN KEY (`a)b`) REFERENCES `pp` (`i)d`) ON DELETE CASCADE,", "  CONSTRAINT `bare` FOREIGN KEY (`p`) REFERENCES `pp` (`id`)", ") ENGINE=InnoDB"].join("\n");

  test("tells the foreign keys", () => expect(foreignKeysIn(statement, "here")).toEqual([
    { name: "up`x", references: { schema: "here", name: "pp" }, onDelete: "cascade", onUpdate: "restrict" },
    { name: "far", references: { schema: "else where", name: "pp" }, onDelete: "set null", onUpdate: "cascade" },
    { name: "plain", references: { schema: "here", name: "pp" }, onDelete: "restrict", onUpdate: "no action" },
    { name: "it`self", references: { schema: "here", name: "pp" }, onDelete: "cascade", onUpdate: "restrict" },
    { name: "bare", references: { schema: "here", name: "pp" }, onDelete: "restrict", onUpdate: "restrict" },
  ]));

  test("tells the JSON columns", () => expect(jsonColumnsIn(statement)).toEqual(["j`1"]));
});

test("versions are numbers that compare", () => {
  expect(["8.0.36", "9.7.4-2", "10.11.18-MariaDB-0+deb12u1-log", "5.5.5-11.8.9-MariaDB"].map(versionNumberOf)).toEqual([80_036, 90_704, 101_118, 110_809]);
});

test("names and literals are quoted", () => {
  expect([quoteIdent("a`b"), quoteLiteral("it's \\"), quoteGrantedDatabase("my_db"), quoteAccount("a@b@10.%")]).toEqual(["`a``b`", "'it''s \\'", "`my\\_db`", "`a@b`@`10.%`"]);
  expect(() => quoteIdent("a\0b")).toThrow(TypeError);
});

test("a session's modes change nothing that is read", () => {
  const modes = /sql_mode = '([^']*)'/.exec(sessionStatements("mysql", { application: "test" }).join("\n"))?.[1]?.split(",") ?? [];
  expect(modes).toContain("STRICT_ALL_TABLES");
  for (const mode of ["PAD_CHAR_TO_FULL_LENGTH", "NO_ZERO_DATE", "NO_ZERO_IN_DATE", "ALLOW_INVALID_DATES", "TIME_TRUNCATE_FRACTIONAL", "ANSI_QUOTES"]) expect(modes).not.toContain(mode);
});
