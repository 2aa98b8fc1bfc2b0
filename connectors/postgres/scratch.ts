/** A small class in temporary tables, on which the self-test plants what a comparison must find. */
import type { ComparedClass, ColumnFacts, Endpoint, PlantedError, ReadLimits, Scratch, Side, TableFacts } from "../../src/core/index.ts";
import { withCommonType } from "./common-types.ts";
import { connect } from "./connection.ts";
import { PostgresCutReader } from "./digest.ts";

const TABLE = { schema: "pg_temp", name: "dualrun_selftest" };
const COLUMNS: readonly (readonly [string, string, string])[] = [
  ["id", "bigint", "int8"], ["currency", "text", "text"], ["amount", "numeric(14,2)", "numeric"], ["at", "timestamp with time zone", "timestamptz"],
  ["note", "text", "text"], ["factor", "numeric", "numeric"], ["rate", "double precision", "float8"],
];
const MAKE = `CREATE TEMPORARY TABLE dualrun_selftest (${COLUMNS.map(([name, type]) => `${name} ${type}`).join(", ")}, PRIMARY KEY (id))`;
const FILL = `INSERT INTO dualrun_selftest SELECT g, (ARRAY['NZD','EUR'])[1 + g % 2], g * 1.25, timestamptz '2026-01-01Z' + g * interval '1 hour',
  CASE WHEN g % 3 = 0 THEN NULL ELSE 'Note ' || g END, g + 0.5, 0 FROM generate_series(1, 1000) AS g`;

const PLANTS: Readonly<Record<PlantedError, string>> = {
  "missing row": "DELETE FROM dualrun_selftest WHERE id = 100",
  "extra row": "INSERT INTO dualrun_selftest SELECT 5000, currency, amount, at, note, factor, rate FROM dualrun_selftest WHERE id = 100",
  "one cent": "UPDATE dualrun_selftest SET amount = amount + 0.01 WHERE id = 101",
  "shifted time zone": "UPDATE dualrun_selftest SET at = at + interval '13 hours' WHERE id = 102",
  "swapped pair": "UPDATE dualrun_selftest AS a SET amount = b.amount FROM dualrun_selftest AS b WHERE (a.id, b.id) IN ((103, 105), (105, 103))",
  "trailing space": "UPDATE dualrun_selftest SET note = note || ' ' WHERE id = 106",
  "NULL against empty": "UPDATE dualrun_selftest SET note = '' WHERE id = 108",
  "case": "UPDATE dualrun_selftest SET note = lower(note) WHERE id = 109",
  "scale": "UPDATE dualrun_selftest SET factor = factor + 0.00 WHERE id = 110",
  "minus zero": "UPDATE dualrun_selftest SET rate = '-0' WHERE id = 111",
};

function facts(): TableFacts {
  const columns = COLUMNS.map(([name, type, base]): ColumnFacts => withCommonType({
    name, type, typeName: base, typeKind: "base", typeSchema: "pg_catalog", baseTypeName: base, notNull: name === "id", generated: null, identity: null, hasDefault: false, collation: null, enumLabels: null,
  }));
  return {
    table: TABLE, kind: "table", persistence: "temporary", columns, uniqueKeys: [], exclusionConstraints: [], replicaIdentity: { kind: "default", index: null },
    rowSecurity: { enabled: false, forced: false }, triggers: [], foreignKeys: [], estimatedRows: 1000, bytes: 0, privileges: [], owner: "",
  };
}

function scratchClass(): ComparedClass {
  return {
    cls: {
      name: "selftest", source: TABLE, target: TABLE, kind: "money", columns: COLUMNS.map(([name]) => ({ target: name, from: name, map: null, constant: null })), key: ["id"],
      where: null, fullBeforeImage: false, money: [{ column: "amount", currency: "currency" }], occurredAt: "at", occurredAtZone: null, sensitive: [],
    },
    source: facts(), target: facts(),
  };
}

export async function openScratch(endpoint: Endpoint, side: Side, application: string, limits: ReadLimits): Promise<Scratch> {
  const client = await connect(endpoint, { application: `${application} selftest`, settings: { search_path: "pg_temp, pg_catalog" } });
  try {
    const { rows } = await client.query<{ v: string }>("SELECT current_setting('server_version_num') AS v");
    await client.query(`${MAKE}; ${FILL}`);
    const reader = new PostgresCutReader(side, client, Number(rows[0]!.v), limits);
    return {
      compared: scratchClass(), reader,
      plant: async (error) => void (await client.query(PLANTS[error])),
      restore: async () => void (await client.query(`TRUNCATE dualrun_selftest; ${FILL}`)),
      [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
    };
  } catch (error) {
    await client.end().catch(() => undefined); // the first error is the one to report
    throw error;
  }
}
