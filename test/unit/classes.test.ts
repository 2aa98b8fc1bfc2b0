/** Classes from a configuration and hand-made catalogues. */
import { describe, expect, test } from "vitest";
import { withCommonType } from "../../connectors/postgres/common-types.ts";
import { parseConfig } from "../../src/config/index.ts";
import type { Catalogue, ColumnFacts, Finding, RecordClass, TableFacts, UniqueKeyFacts } from "../../src/core/index.ts";
import { resolveClasses } from "../../src/plan/index.ts";

type Column = Partial<ColumnFacts> & { readonly name: string };
type Table = Partial<Omit<TableFacts, "columns" | "table">> & { readonly name?: string; readonly schema?: string; readonly columns?: readonly Column[] };

function column(facts: Column): ColumnFacts {
  const typeName = facts.typeName ?? facts.type ?? "text";
  return withCommonType({
    type: typeName, typeName, typeKind: "base", typeSchema: "pg_catalog", baseTypeName: typeName, notNull: false, generated: null,
    identity: null, hasDefault: false, collation: null, enumLabels: null, ...facts,
  });
}

function unique(name: string, columns: readonly string[], facts: Partial<UniqueKeyFacts> = {}): UniqueKeyFacts {
  return { name, columns, primary: false, deferrable: false, partial: false, valid: true, allNotNull: true, ...facts };
}

const primary = (...columns: string[]): UniqueKeyFacts => unique("t_pkey", columns, { primary: true });
const ID: Column = { name: "id", type: "int8", notNull: true };
const V: Column = { name: "v" };

function table({ name = "t", schema = "public", columns = [ID, V], ...facts }: Table = {}): TableFacts {
  return {
    table: { schema, name }, kind: "table", persistence: "permanent", columns: columns.map(column), uniqueKeys: [primary("id")], exclusionConstraints: [],
    replicaIdentity: { kind: "default", index: null }, rowSecurity: { enabled: false, forced: false }, triggers: [], foreignKeys: [],
    estimatedRows: 0, bytes: 0, privileges: [], owner: "o", ...facts,
  };
}

function catalogue(tables: readonly TableFacts[]): Catalogue {
  return { server: {} as Catalogue["server"], tables };
}

const FULL = { replicaIdentity: { kind: "full", index: null } } as const;

interface Outcome {
  readonly classes: readonly RecordClass[];
  readonly findings: readonly Finding[];
  /** `severity check` per finding. */
  readonly checks: readonly string[];
}

function resolve(source: readonly TableFacts[], target: readonly TableFacts[], selection: object): Outcome {
  const config = parseConfig(JSON.stringify({
    migration: "m", timeZone: "UTC", source: { engine: "postgres", url: "postgres://localhost/s" }, target: { engine: "postgres", url: "postgres://localhost/t" }, ...selection,
  }), { directory: ".", env: {} });
  const { classes, findings } = resolveClasses(config, catalogue(source), catalogue(target));
  return { classes, findings, checks: findings.map(({ severity, check }) => `${severity} ${check}`) };
}

/** One class on tables `t`. */
function one(source: Table, target: Table = {}, rules: object = {}): Outcome {
  return resolve([table(source)], [table(target)], { classes: [{ source: "public.t", ...rules }] });
}

describe("selection", () => {
  test("include and exclude choose tables, never partitions, views, temporary tables or dualrun's own", () => {
    const tables = [
      table({ name: "a" }), table({ name: "b", kind: "partitioned" }), table({ name: "b_1", kind: "partition" }), table({ name: "c", kind: "view" }),
      table({ name: "tmp_x" }), table({ name: "t", persistence: "temporary" }), table({ schema: "dualrun", name: "checkpoint" }), table({ schema: "other", name: "a" }),
    ];
    const { classes, checks } = resolve(tables, tables, { include: ["*.*"], exclude: ["public.tmp_*"] });
    expect(checks).toEqual([]);
    expect(classes.map((cls) => cls.name)).toEqual(["public.a", "b", "other.a"]);
  });

  test("nothing selected is a fault", () => {
    expect(resolve([table()], [table()], { include: ["nowhere.*"] }).checks).toEqual(["error no-classes"]);
  });

  test("two classes on one target table are a fault, also when one of them has others", () => {
    const { checks } = resolve([table()], [table()], { classes: [{ name: "a", source: "public.t" }, { name: "b", source: "public.nope", target: "public.t" }] });
    expect(checks).toEqual(["error missing-table", "error shared-target"]);
  });

  test("every fault of every class at once", () => {
    const { checks, classes } = resolve(
      [table({ name: "a", columns: [ID, V, { name: "w" }] }), table({ name: "b", uniqueKeys: [] }), table({ name: "c" })], [table({ name: "a" }), table({ name: "b" })],
      { classes: [{ source: "public.a", sensitive: ["nope"] }, { source: "public.b" }, { source: "public.c" }] },
    );
    expect(checks).toEqual(["error unknown-column", "error missing-column", "error no-identity", "error missing-table"]);
    expect(classes).toEqual([]);
  });
});

describe("columns", () => {
  test("same names, in the target's order", () => {
    const { classes, checks } = one({ columns: [V, ID] }, { columns: [ID, V] });
    expect(checks).toEqual([]);
    expect(classes[0]!.columns).toEqual([{ target: "id", from: "id", map: null, constant: null }, { target: "v", from: "v", map: null, constant: null }]);
  });

  test("from, map, default and drop", () => {
    const { classes, checks } = one(
      { columns: [ID, { name: "status" }, { name: "legacy" }] }, { columns: [ID, { name: "state" }, { name: "country", notNull: true }] },
      { columns: { state: { from: "status", map: { o: "open" } }, legacy: { drop: true }, country: { default: "NZ" } } },
    );
    expect(checks).toEqual([]);
    expect(classes[0]!.columns.slice(1)).toEqual([
      { target: "state", from: "status", map: new Map([["o", "open"]]), constant: null }, { target: "country", from: null, map: null, constant: "NZ" },
    ]);
  });

  test.each<[string, Table, Table, object, string[]]>([
    ["source column without a place", { columns: [ID, V, { name: "w" }] }, {}, {}, ["error missing-column"]],
    ["target column that nothing fills", {}, { columns: [ID, V, { name: "n", notNull: true }] }, {}, ["error unfilled-column"]],
    ["NULL for a column that takes none", {}, { columns: [ID, V, { name: "n", notNull: true, hasDefault: true }] }, { columns: { n: { default: null } } }, ["error unfilled-column"]],
    ["target column with a default", {}, { columns: [ID, V, { name: "n", notNull: true, hasDefault: true }] }, {}, ["warning unfilled-column"]],
    ["generated on both sides", { columns: [ID, { ...V, generated: "stored" }] }, { columns: [ID, { ...V, generated: "stored" }] }, {}, []],
    ["generated on the source, plain on the target", { columns: [ID, { ...V, generated: "stored" }] }, {}, {}, ["error generated-column"]],
    ["the same, dropped", { columns: [ID, { ...V, generated: "stored" }] }, { columns: [ID] }, { columns: { v: { drop: true } } }, []],
    ["generated on the source, absent on the target", { columns: [ID, { ...V, generated: "virtual" }] }, { columns: [ID] }, {}, ["warning generated-column"]],
    ["generated on the target, plain on the source", {}, { columns: [ID, { ...V, generated: "stored" }] }, {}, ["error generated-column"]],
    ["the same, dropped on purpose", {}, { columns: [ID, { ...V, generated: "stored" }] }, { columns: { v: { drop: true } } }, []],
    ["a rule for a generated column", {}, { columns: [ID, { ...V, generated: "stored" }] }, { columns: { v: { default: "x" } } }, ["error generated-column"]],
    ["identity on the target is written", {}, { columns: [{ ...ID, identity: "always" }, V] }, {}, []],
    ["map of a number", { columns: [ID, { ...V, type: "int4" }] }, {}, { columns: { v: { map: { "1": "2" } } } }, ["error map-type"]],
    ["map of an enumeration that forgets a label", { columns: [ID, { ...V, typeKind: "enum", typeName: "mood", enumLabels: ["a", "b"] }] }, {}, { columns: { v: { map: { a: "x" } } } }, ["warning map-incomplete"]],
    ["map of a padded value", { columns: [ID, { ...V, type: "character(3)", typeName: "bpchar" }] }, {}, { columns: { v: { map: { ab: "x" } } } }, ["error map-type"]],
    ["map of a value that fills its column", { columns: [ID, { ...V, type: "character(3)", typeName: "bpchar" }] }, {}, { columns: { v: { map: { abc: "x" } } } }, []],
    ["rule for an unknown target column", {}, {}, { columns: { w: { default: "x" } } }, ["error unknown-column"]],
    ["from an unknown source column", {}, { columns: [ID, V, { name: "w" }] }, { columns: { w: { from: "nope" } } }, ["error unknown-column", "warning unfilled-column"]],
    ["money, currency and date that are not there", {}, {}, { kind: "money", money: [{ column: "x", currency: "y" }], occurredAt: "z" }, ["error unknown-column", "error unknown-column", "error unknown-column"]],
    ["literal currency", {}, {}, { kind: "money", money: [{ column: "id", currency: "'NZD'" }] }, []],
    ["money that is text, a date that is none", {}, {}, { kind: "money", money: [{ column: "v", currency: "'NZD'" }], occurredAt: "id" }, ["error money-type", "error money-type", "error occurred-at-type", "error occurred-at-type"]],
    ["where: unknown column", FULL, {}, { where: "w = 'x'" }, ["error unknown-column"]],
    ["where: literal that does not fit", FULL, {}, { where: "id = 'x'" }, ["error where-type"]],
    ["where: generated column", { ...FULL, columns: [ID, { ...V, generated: "stored" }] }, { columns: [ID, { ...V, generated: "stored" }] }, { where: "v = 'x'" }, ["error generated-column"]],
    ["where without full before images", {}, {}, { where: "v = 'x'" }, ["error filter-identity"]],
    ["where with them", FULL, {}, { where: "v = 'x' and id > 0" }, []],
  ])("%s", (_, source, target, rules, expected) => {
    expect(one(source, target, rules).checks).toEqual(expected);
  });

  test("a missing table is mended by its own rules", () => {
    const { findings } = resolve(
      [table({ columns: [ID, { name: "status", notNull: true }, { name: 'o"dd' }, { name: "g", generated: "stored" }, { name: "legacy" }] })], [],
      { classes: [{ source: "public.t", target: "billing.t", columns: { state: { from: "status" }, legacy: { drop: true } } }] },
    );
    expect(findings[0]!.mend).toBe('CREATE TABLE "billing"."t" ("id" int8 NOT NULL, "state" text NOT NULL, "o""dd" text, PRIMARY KEY ("id"));');
  });
});

describe("key", () => {
  const deferrable = { uniqueKeys: [unique("t_pkey", ["id"], { primary: true, deferrable: true })] };
  const onV = unique("t_v", ["v"]);

  test.each<[string, Table, readonly string[]]>([
    ["the primary key", {}, ["id"]],
    ["the named index", { uniqueKeys: [primary("id"), onV], replicaIdentity: { kind: "index", index: "t_v" } }, ["v"]],
    ["full: the primary key", FULL, ["id"]],
    ["full: a unique key without NULLs", { ...FULL, uniqueKeys: [...deferrable.uniqueKeys, unique("n", ["v"], { allNotNull: false }), unique("p", ["v"], { partial: true }), unique("i", ["v"], { valid: false }), onV] }, ["v"]],
    ["full without any key: a multiset", { ...FULL, uniqueKeys: [unique("n", ["v"], { allNotNull: false })] }, []],
  ])("%s", (_, source, expected) => {
    const { classes, checks } = one(source, { uniqueKeys: [primary("id"), onV] });
    expect(checks).toEqual([]);
    expect(classes[0]!.key).toEqual(expected);
    expect(classes[0]!.fullBeforeImage).toBe(source.replicaIdentity?.kind === "full");
  });

  test("in the target's names", () => {
    const { classes } = one({}, { columns: [{ ...ID, name: "number" }, V], uniqueKeys: [primary("number")] }, { columns: { number: { from: "id" } } });
    expect(classes[0]!.key).toEqual(["number"]);
  });

  test("the plain copy of a key column that is also mapped elsewhere", () => {
    const text: Column = { name: "id", notNull: true };
    const { classes } = one({ columns: [text, V] }, { columns: [{ name: "kind" }, text, V] }, { columns: { kind: { from: "id", map: { a: "b" } } } });
    expect(classes[0]!.key).toEqual(["id"]);
  });

  test.each<[string, Table, Table, object, string, string]>([
    ["no key at all", { uniqueKeys: [] }, {}, {}, "no-identity", 'ALTER TABLE "public"."t" REPLICA IDENTITY FULL; or add a primary key'],
    ["a deferrable primary key", deferrable, {}, {}, "no-identity", 'ALTER TABLE "public"."t" REPLICA IDENTITY FULL;'],
    ["a unique key that could serve", { uniqueKeys: [onV] }, {}, {}, "no-identity", 'ALTER TABLE "public"."t" REPLICA IDENTITY USING INDEX "t_v"; or'],
    ["identity nothing", { replicaIdentity: { kind: "nothing", index: null } }, {}, {}, "no-identity", "REPLICA IDENTITY FULL"],
    ["dropped", {}, { columns: [V] }, { columns: { id: { drop: true } } }, "key-column", "copy it"],
    ["mapped", { columns: [{ name: "id" }, V] }, {}, { columns: { id: { map: { a: "b" } } } }, "key-column", "remove `map`"],
    ["target without an index", {}, { uniqueKeys: [] }, {}, "target-key", 'CREATE UNIQUE INDEX ON "public"."t" ("id");'],
    ["target with a deferrable one", {}, deferrable, {}, "target-key", "CREATE UNIQUE INDEX"],
    ["target with a longer one", {}, { uniqueKeys: [unique("x", ["id", "v"])] }, {}, "target-key", "CREATE UNIQUE INDEX"],
  ])("fault: %s", (_, source, target, rules, check, mend) => {
    const finding = one(source, target, rules).findings.find((found) => found.check === check);
    expect(finding).toMatchObject({ severity: "error", subject: "t" });
    expect(finding!.mend).toContain(mend);
  });
});
