/** From configuration and both catalogues to the classes that are mirrored, with every fault on the way. */
import type { ClassConfig, ColumnRule, Config } from "../config/index.ts";
import {
  compileWhere, findTable, isDualrunError, tableKey, whereColumns, whereTypeOf,
  type Catalogue, type ColumnFacts, type CommonKind, type Dialect, type Finding, type MappedColumn, type RecordClass, type TableFacts, type TableName, type UniqueKeyFacts,
} from "../core/index.ts";

export interface Resolution {
  readonly classes: readonly RecordClass[];
  readonly findings: readonly Finding[];
}

const OWN_SCHEMA = "dualrun";
const ident = (name: string): string => `"${name.replaceAll('"', '""')}"`;
const table = (name: TableName): string => `${ident(name.schema)}.${ident(name.name)}`;

/** How the target's statements are written. */
interface Writing {
  ident(name: string): string;
  /** Null: the target has no such type. */
  typeOf(column: ColumnFacts): string | null;
}

/** A class with an error among its findings is left out of `classes`. `dialect` is the target's: between engines it names the types. */
export function resolveClasses(config: Config, source: Catalogue, target: Catalogue, dialect?: Dialect): Resolution {
  const crosses = dialect !== undefined && source.server.engine !== target.server.engine;
  const writing: Writing = { ident: dialect?.ident ?? ident, typeOf: (column) => (crosses ? dialect.typeFor(column.common) : column.type) };
  const findings: Finding[] = [];
  const classes: RecordClass[] = [];
  const chosen = wantedClasses(config, source);
  for (const wanted of chosen) {
    const resolver = new ClassResolver(wanted, source, target, writing);
    const cls = resolver.resolve();
    findings.push(...resolver.findings);
    if (cls !== null) classes.push(cls);
  }
  findings.push(...sharedTargets(chosen));
  if (classes.length === 0 && findings.length === 0) {
    findings.push({ severity: "error", check: "no-classes", side: "configuration", subject: null, what: "no table of the source is selected", mend: "widen `include`, or list `classes`" });
  }
  return { classes, findings };
}

function wantedClasses(config: Config, source: Catalogue): readonly ClassConfig[] {
  if (config.classes !== null) return config.classes;
  const chosen = source.tables.filter((facts) => isMirrorable(facts)
    && config.include.some((pattern) => pattern.matches(facts.table)) && !config.exclude.some((pattern) => pattern.matches(facts.table)));
  const names = chosen.map((facts) => facts.table.name);
  return chosen.map(({ table: name }) => ({
    name: names.indexOf(name.name) === names.lastIndexOf(name.name) ? name.name : tableKey(name),
    source: name, target: name, where: null, kind: "record", money: [], occurredAt: null, occurredAtZone: null, columns: new Map(), sensitive: [],
  }));
}

function isMirrorable(facts: TableFacts): boolean {
  return (facts.kind === "table" || facts.kind === "partitioned") && facts.table.schema !== OWN_SCHEMA && facts.persistence !== "temporary";
}

function sharedTargets(classes: readonly ClassConfig[]): Finding[] {
  const seen = new Map<string, string>();
  return classes.flatMap((cls): Finding[] => {
    const key = tableKey(cls.target);
    const other = seen.get(key);
    seen.set(key, cls.name);
    if (other === undefined) return [];
    return [{ severity: "error", check: "shared-target", side: "configuration", subject: cls.name, what: `classes ${other} and ${cls.name} both write ${key}`, mend: "give each class a target table of its own" }];
  });
}

/** Types whose sums are exact. */
const MONEY_KINDS: ReadonlySet<CommonKind> = new Set(["integer", "decimal", "unbounded decimal"]);
const DATE_KINDS: ReadonlySet<CommonKind> = new Set(["date", "timestamp", "instant"]);

class ClassResolver {
  readonly findings: Finding[] = [];
  private readonly wanted: ClassConfig;
  private readonly writing: Writing;
  private readonly from: TableFacts | undefined;
  private readonly to: TableFacts | undefined;

  constructor(wanted: ClassConfig, source: Catalogue, target: Catalogue, writing: Writing) {
    this.wanted = wanted;
    this.writing = writing;
    this.from = findTable(source, wanted.source);
    this.to = findTable(target, wanted.target);
  }

  resolve(): RecordClass | null {
    const { wanted, from, to } = this;
    if (from === undefined) this.fault("missing-table", "source", `${tableKey(wanted.source)} does not exist on the source`, "correct `source` of the class");
    if (to === undefined) this.fault("missing-table", "target", `${tableKey(wanted.target)} does not exist on the target`, this.createTable());
    if (from === undefined || to === undefined) return null;
    this.checkNames(from, to);
    const columns = this.columns(from, to);
    this.checkTotals(from, to, columns);
    const key = this.key(from, to, columns);
    if (key === null || this.findings.some((finding) => finding.severity === "error")) return null;
    return {
      name: wanted.name, source: wanted.source, target: wanted.target, kind: wanted.kind, columns, key, where: wanted.where,
      fullBeforeImage: from.replicaIdentity.kind === "full", money: wanted.money, occurredAt: wanted.occurredAt,
      occurredAtZone: wanted.occurredAtZone, sensitive: wanted.sensitive,
    };
  }

  private fault(check: string, side: Finding["side"], what: string, mend: string): void {
    this.findings.push({ severity: "error", check, side, subject: this.wanted.name, what, mend });
  }

  /** The source's table under the class's rules; generated columns are the operator's to define. */
  private createTable(): string {
    if (this.from === undefined) return "create the table on the target";
    const { writing } = this;
    const renamed = new Map([...this.wanted.columns].flatMap(([name, rule]) => (rule.kind === "take" && rule.from !== null ? [[rule.from, name] as const] : [])));
    const copied = this.from.columns.filter((column) => column.generated === null && !this.isDropped(column.name));
    const typed = copied.flatMap((column) => [writing.typeOf(column)].flatMap((type) => (type === null ? [] : [{ column, type }])));
    const names = new Map(typed.map(({ column: { name } }) => [name, writing.ident(renamed.get(name) ?? name)]));
    const parts = typed.map(({ column, type }) => `${names.get(column.name)!} ${type}${column.notNull ? " NOT NULL" : ""}`);
    const primary = this.from.uniqueKeys.find((key) => key.primary)?.columns;
    if (primary !== undefined && primary.every((name) => names.has(name))) parts.push(`PRIMARY KEY (${primary.map((name) => names.get(name)!).join(", ")})`);
    const homeless = copied.filter((column) => !names.has(column.name)).map(({ name, type }) => ` and \`${name}: { drop: true }\` in \`columns\`, for the target has no type for ${type}`);
    return `CREATE TABLE ${this.targetTable()} (${parts.join(", ")});${homeless.join("")}`;
  }

  private targetTable(): string {
    return `${this.writing.ident(this.wanted.target.schema)}.${this.writing.ident(this.wanted.target.name)}`;
  }

  // ------------------------------------------------------------ columns

  private checkNames(from: TableFacts, to: TableFacts): void {
    const { wanted } = this;
    const onSource = new Set(from.columns.map((column) => column.name));
    const onTarget = new Set(to.columns.map((column) => column.name));
    for (const column of wanted.where === null ? [] : whereColumns(wanted.where)) {
      if (!onSource.has(column)) this.fault("unknown-column", "configuration", `\`where\` names "${column}", which the source table has not`, "correct `where`");
    }
    const named = [
      ...wanted.money.flatMap(({ column, currency }) => [column, ...(currency.startsWith("'") ? [] : [currency])]),
      ...(wanted.occurredAt === null ? [] : [wanted.occurredAt]), ...wanted.sensitive,
    ];
    for (const column of new Set(named)) {
      if (!onTarget.has(column)) this.fault("unknown-column", "configuration", `"${column}" is not a column of the target table`, "correct the class");
    }
    for (const [name, rule] of wanted.columns) this.checkRule(name, rule, onSource, onTarget);
    this.checkWhere(from);
  }

  /** What is summed must be exact, and what dates a row must name a day. */
  private checkTotals(from: TableFacts, to: TableFacts, columns: readonly MappedColumn[]): void {
    const { money, occurredAt, occurredAtZone } = this.wanted;
    for (const column of new Set(money.map((one) => one.column))) this.checkType("money-type", column, from, to, columns, MONEY_KINDS, "is no exact number", "sum a numeric or integer column");
    if (occurredAt === null) return;
    this.checkType("occurred-at-type", occurredAt, from, to, columns, DATE_KINDS, "is neither a date nor a time", "name a date or timestamp column in `occurredAt`");
    const zoneless = [from, to].some((table) => table.columns.find((facts) => facts.name === occurredAt)?.common.kind === "timestamp");
    if (zoneless && occurredAtZone === null) this.fault("occurred-at-zone", "configuration", `"${occurredAt}" has no time zone of its own`, "say with `occurredAtZone` which zone its clock times are in");
  }

  private checkType(check: string, name: string, from: TableFacts, to: TableFacts, columns: readonly MappedColumn[], allowed: ReadonlySet<CommonKind>, what: string, mend: string): void {
    const onTarget = to.columns.find((facts) => facts.name === name);
    if (onTarget === undefined) return; // said already
    const mapped = columns.find((column) => column.target === name);
    const origin = mapped === undefined ? name : mapped.from;
    if (mapped === undefined && !from.columns.some((facts) => facts.name === name)) this.fault(check, "source", `"${name}" is not on the source`, mend);
    for (const facts of [onTarget, ...from.columns.filter((column) => column.name === origin)]) {
      if (!allowed.has(facts.common.kind)) {
        this.fault(check, facts === onTarget ? "target" : "source", `"${facts.name}" is ${facts.type}, which ${what}`, mend);
      }
    }
  }

  private checkWhere(from: TableFacts): void {
    const { where } = this.wanted;
    if (where === null) return;
    const named = from.columns.filter((column) => whereColumns(where).includes(column.name));
    for (const column of named) {
      if (column.generated !== null) this.fault("generated-column", "source", `\`where\` names "${column.name}", which is generated on the source: the log does not carry it`, "name the columns that it is generated from");
    }
    const types = new Map(named.map((column) => [column.name, whereTypeOf(column)]));
    try {
      compileWhere(where, (column) => types.get(column) ?? "text");
    } catch (error) {
      if (!isDualrunError(error)) throw error;
      if (whereColumns(where).every((column) => types.has(column))) this.fault("where-type", "configuration", `\`where\`: ${error.message}`, "correct the literal in `where`");
    }
  }

  private checkRule(name: string, rule: ColumnRule, onSource: ReadonlySet<string>, onTarget: ReadonlySet<string>): void {
    const known = rule.kind === "drop" ? onSource : onTarget;
    if (!known.has(name)) this.fault("unknown-column", "configuration", `\`columns\` names "${name}", which the ${rule.kind === "drop" ? "source" : "target"} table has not`, "correct `columns`");
    if (rule.kind === "take" && rule.from !== null && !onSource.has(rule.from)) {
      this.fault("unknown-column", "configuration", `column "${name}" comes from "${rule.from}", which the source table has not`, "correct `from`");
    }
  }

  private columns(from: TableFacts, to: TableFacts): MappedColumn[] {
    const used = new Set<string>();
    const mapped = to.columns.flatMap((column): MappedColumn[] => {
      const rule = this.wanted.columns.get(column.name);
      if (column.generated !== null) return this.generated(column, from, rule, used);
      if (rule?.kind === "constant") {
        if (rule.value === null && column.notNull) this.unfilled(column);
        return [{ target: column.name, from: null, map: null, constant: rule.value }];
      }
      const origin = from.columns.find((facts) => facts.name === (rule?.kind === "take" ? rule.from ?? column.name : column.name));
      if (origin === undefined || this.isDropped(origin.name)) {
        this.unfilled(column);
        return [];
      }
      used.add(origin.name);
      return this.taken(column, origin, rule);
    });
    for (const column of from.columns) this.checkUnused(column, used);
    if (mapped.length === 0) this.fault("no-columns", "configuration", `no column of ${tableKey(to.table)} is filled`, "correct `columns`, or make the target table's columns");
    return mapped;
  }

  private isDropped(column: string): boolean {
    return this.wanted.columns.get(column)?.kind === "drop";
  }

  private generated(column: ColumnFacts, from: TableFacts, rule: ColumnRule | undefined, used: Set<string>): MappedColumn[] {
    const same = from.columns.find((facts) => facts.name === column.name);
    if (same !== undefined) used.add(same.name);
    if (rule !== undefined && rule.kind !== "drop") this.fault("generated-column", "target", `column "${column.name}" is generated on the target and cannot be written`, `remove the rule, or ALTER TABLE ${this.targetTable()} ALTER COLUMN ${this.writing.ident(column.name)} DROP EXPRESSION;`);
    else if (same !== undefined && same.generated === null && rule === undefined) this.fault("generated-column", "target", `column "${column.name}" is generated on the target and plain on the source`, `ALTER TABLE ${this.targetTable()} ALTER COLUMN ${this.writing.ident(column.name)} DROP EXPRESSION; or \`${column.name}: { drop: true }\` in \`columns\``);
    return [];
  }

  private taken(column: ColumnFacts, origin: ColumnFacts, rule: ColumnRule | undefined): MappedColumn[] {
    const map = rule?.kind === "take" ? rule.map : null;
    if (origin.generated !== null) {
      this.fault("generated-column", "source", `column "${origin.name}" is generated on the source: the log does not carry it`, `make "${column.name}" generated on the target too, or drop it in \`columns\``);
      return [];
    }
    if (map !== null && !isMappable(origin)) {
      this.fault("map-type", "configuration", `\`map\` of "${column.name}" needs text or an enumeration, the source has ${origin.type}`, "remove `map`");
    }
    if (map !== null) this.checkMap(column.name, origin, map);
    return [{ target: column.name, from: origin.name, map, constant: null }];
  }

  private checkMap(column: string, origin: ColumnFacts, map: ReadonlyMap<string, string>): void {
    const width = origin.common.kind === "text" && origin.common.padded ? origin.common.characters : null;
    const short = width === null ? [] : [...map.keys()].filter((value) => Array.from(value).length !== width || value.endsWith(" "));
    if (short.length > 0) {
      this.fault("map-type", "configuration", `\`map\` of "${column}": ${origin.type} pads with blanks, so that only values of ${width} characters can be mapped`, `ALTER TABLE ${table(this.wanted.source)} ALTER COLUMN ${ident(origin.name)} TYPE varchar(${width});`);
    }
    const missing = (origin.enumLabels ?? []).filter((label) => !map.has(label));
    if (missing.length > 0) {
      this.findings.push({ severity: "warning", check: "map-incomplete", side: "configuration", subject: this.wanted.name, what: `\`map\` of "${column}" does not know ${missing.join(", ")}: such a value halts the mirror`, mend: "extend `map`" });
    }
  }

  private unfilled(column: ColumnFacts): void {
    const rule = this.wanted.columns.get(column.name);
    if (rule?.kind !== "constant" && (column.hasDefault || column.identity !== null || !column.notNull)) {
      this.findings.push({ severity: "warning", check: "unfilled-column", side: "target", subject: this.wanted.name, what: `column "${column.name}" of the target is not filled by the mirror`, mend: "give it a `from` or a `default` in `columns`, if it should be" });
      return;
    }
    this.fault("unfilled-column", "target", `column "${column.name}" of the target is NOT NULL and nothing fills it`, `add a rule in \`columns\`, or ALTER TABLE ${this.targetTable()} ALTER COLUMN ${this.writing.ident(column.name)} DROP NOT NULL;`);
  }

  private checkUnused(column: ColumnFacts, used: ReadonlySet<string>): void {
    if (used.has(column.name) || this.isDropped(column.name)) return;
    if (column.generated !== null) {
      this.findings.push({ severity: "warning", check: "generated-column", side: "source", subject: this.wanted.name, what: `column "${column.name}" is generated on the source and does not exist on the target`, mend: `add it there as a generated column, or \`${column.name}: { drop: true }\` in \`columns\`` });
      return;
    }
    this.fault("missing-column", "target", `column "${column.name}" of the source has no column on the target`, this.addColumn(column));
  }

  private addColumn(column: ColumnFacts): string {
    const type = this.writing.typeOf(column);
    const statement = type === null ? "" : `ALTER TABLE ${this.targetTable()} ADD COLUMN ${this.writing.ident(column.name)} ${type}; or `;
    return `${statement}\`${column.name}: { drop: true }\` in \`columns\``;
  }

  // ------------------------------------------------------------ key

  /** In target column names; empty: a multiset; null: there is no usable identity. */
  private key(from: TableFacts, to: TableFacts, columns: readonly MappedColumn[]): readonly string[] | null {
    const full = from.replicaIdentity.kind === "full";
    if (this.wanted.where !== null && !full) this.fault("filter-identity", "source", "a filtered class needs full before images", `ALTER TABLE ${table(from.table)} REPLICA IDENTITY FULL;`);
    const chosen = identity(from);
    if (chosen === null) {
      this.fault("no-identity", "source", `updates and deletes of ${tableKey(from.table)} cannot be told apart: it has no usable replica identity`, mendIdentity(from));
      return null;
    }
    const key: string[] = [];
    for (const name of chosen) {
      const column = columns.find((mapped) => mapped.from === name && mapped.map === null) ?? columns.find((mapped) => mapped.from === name);
      if (column === undefined) this.fault("key-column", "configuration", `key column "${name}" is not copied`, "copy it, or choose another replica identity");
      else if (column.map !== null) this.fault("key-column", "configuration", `key column "${name}" has a \`map\``, "remove `map`: a key must arrive as it is");
      else key.push(column.target);
    }
    if (key.length > 0 && !to.uniqueKeys.some((unique) => isUsable(unique) && sameColumns(unique.columns, key))) {
      this.fault("target-key", "target", `${tableKey(to.table)} has no unique index on (${key.join(", ")})`, `CREATE UNIQUE INDEX ON ${this.targetTable()} (${key.map((name) => this.writing.ident(name)).join(", ")});`);
    }
    return key;
  }
}

/** Text, an enumeration, or a type that is nothing but text. */
function isMappable({ common, baseTypeName }: ColumnFacts): boolean {
  return common.kind === "text" || common.kind === "label" || ["citext", "name", "char"].includes(baseTypeName);
}

/** The source's columns by which its log names a row; null when it names none. */
function identity(from: TableFacts): readonly string[] | null {
  const { kind, index } = from.replicaIdentity;
  const primary = from.uniqueKeys.find((key) => key.primary && isUsable(key));
  if (kind === "default") return primary?.columns ?? null;
  if (kind === "index") return from.uniqueKeys.find((key) => key.name === index)?.columns ?? null;
  if (kind === "nothing") return null;
  return (primary ?? from.uniqueKeys.find((key) => isUsable(key) && key.allNotNull))?.columns ?? [];
}

function mendIdentity(from: TableFacts): string {
  const unique = from.uniqueKeys.find((key) => isUsable(key) && key.allNotNull);
  const index = unique === undefined ? "" : `ALTER TABLE ${table(from.table)} REPLICA IDENTITY USING INDEX ${ident(unique.name)}; or `;
  return `${index}ALTER TABLE ${table(from.table)} REPLICA IDENTITY FULL; or add a primary key`;
}

function isUsable(key: UniqueKeyFacts): boolean {
  return !key.deferrable && !key.partial && key.valid;
}

function sameColumns(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((column) => b.includes(column));
}
