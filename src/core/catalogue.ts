/** What an engine's catalogue says: facts, no judgement. */
import type { CommonFit, CommonType } from "./common-types.ts";
import type { TableName } from "./names.ts";

export interface ColumnFacts {
  readonly name: string;
  /** As the engine prints it, with modifiers: `numeric(14,2)`, `character varying(20)[]`. */
  readonly type: string;
  /** The type's own name without modifiers: `numeric`, `_varchar`, `order_state`. */
  readonly typeName: string;
  /** What the type is: a base type of the engine, or user-defined. For a domain, `baseTypeName` says what is under it. */
  readonly typeKind: "base" | "enum" | "domain" | "composite" | "range" | "multirange" | "array" | "other";
  readonly typeSchema: string;
  readonly baseTypeName: string;
  readonly notNull: boolean;
  readonly generated: "stored" | "virtual" | null;
  readonly identity: "always" | "by default" | null;
  readonly hasDefault: boolean;
  readonly collation: string | null;
  readonly enumLabels: readonly string[] | null;
  /** The same in words that all engines share. */
  readonly common: CommonType;
}

export interface UniqueKeyFacts {
  readonly name: string;
  readonly columns: readonly string[];
  readonly primary: boolean;
  /** The constraint can be checked at commit, so equal keys can stand side by side within a transaction. */
  readonly deferrable: boolean;
  /** Has a predicate or an expression: it does not identify every row. */
  readonly partial: boolean;
  readonly valid: boolean;
  readonly allNotNull: boolean;
}

export interface TableFacts {
  readonly table: TableName;
  readonly kind: "table" | "partitioned" | "partition" | "view" | "foreign" | "other";
  readonly persistence: "permanent" | "unlogged" | "temporary";
  readonly columns: readonly ColumnFacts[];
  readonly uniqueKeys: readonly UniqueKeyFacts[];
  readonly exclusionConstraints: readonly string[];
  readonly replicaIdentity: { readonly kind: "default" | "full" | "index" | "nothing"; readonly index: string | null };
  readonly rowSecurity: { readonly enabled: boolean; readonly forced: boolean };
  /** Names of enabled user triggers with the mode in which they fire: `O` origin, `A` always, `R` replica. */
  readonly triggers: readonly { readonly name: string; readonly mode: "O" | "A" | "R" | "D" }[];
  readonly foreignKeys: readonly { readonly name: string; readonly references: TableName; readonly onDelete: string; readonly deferrable: boolean }[];
  readonly estimatedRows: number;
  readonly bytes: number;
  readonly privileges: readonly ("select" | "insert" | "update" | "delete" | "truncate" | "maintain")[];
  readonly owner: string;
}

export interface ServerFacts {
  readonly engine: "postgres" | "mysql" | "mariadb";
  readonly version: string;
  /** PostgreSQL: 180004; MySQL: 90700. */
  readonly versionNumber: number;
  readonly database: string;
  readonly encoding: string;
  readonly collation: string;
  readonly timeZone: string;
  /** Settings by name, as text. */
  readonly settings: Readonly<Record<string, string>>;
  /** System identifier (PostgreSQL), server UUID (MySQL). */
  readonly identity: string;
  readonly role: {
    readonly name: string;
    readonly superuser: boolean;
    readonly replication: boolean;
    readonly bypassRls: boolean;
    readonly createInDatabase: boolean;
    /** May set session_replication_role. */
    readonly canDisableTriggers: boolean;
    /** May call the replication origin functions. */
    readonly canUseOrigins: boolean;
  };
  readonly slots: { readonly used: number; readonly max: number };
  readonly senders: { readonly used: number; readonly max: number };
  readonly largeObjects: number;
  readonly inRecovery: boolean;
}

export interface Catalogue {
  readonly server: ServerFacts;
  readonly tables: readonly TableFacts[];
}

export function findTable(catalogue: Catalogue, table: TableName): TableFacts | undefined {
  return catalogue.tables.find((t) => t.table.schema === table.schema && t.table.name === table.name);
}

/** One thing that preflight has to say. `mend` is a statement to run, or an instruction where no statement exists. */
export interface Finding {
  readonly severity: "error" | "warning";
  /** Stable kebab-case name: `wal-level`, `missing-column`. */
  readonly check: string;
  readonly side: "source" | "target" | "both" | "configuration";
  /** The class, table or setting; null for the server as a whole. */
  readonly subject: string | null;
  readonly what: string;
  readonly mend: string;
}

/** How an engine's statements are written where they are shown to be run. */
export interface Dialect {
  /** A name, quoted. */
  ident(name: string): string;
  /** The type of a column that takes every such value of another engine; null: there is none. */
  typeFor(common: CommonType): string | null;
}

/** What an engine says of its types without being asked for a catalogue. */
export interface EngineTypes {
  /** A column of each type that can be mirrored, some with several modifiers; they stand in no table. */
  readonly typeSamples: readonly ColumnFacts[];
  /** What holds between two columns of this engine; absent: what holds between engines. */
  readonly fitWithin?: (from: ColumnFacts, to: ColumnFacts) => CommonFit;
}
