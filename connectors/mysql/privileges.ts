/** What a session may do, read from SHOW GRANTS. */

/** One line of SHOW GRANTS. `schema` null: everywhere; `table` null: the whole database. */
export interface Grant {
  readonly grantee: string;
  /** In upper case; privileges on single columns are left out. */
  readonly privileges: ReadonlySet<string>;
  /** As it stands in the grant: `_` and `%` may stand for others. */
  readonly schema: string | null;
  readonly table: string | null;
  /** MySQL's partial revoke: what is named here is not granted after all. */
  readonly revoked: boolean;
}

const LINE = /^(GRANT|REVOKE) (.+?) ON (?:TABLE )?(\*|`(?:[^`]|``)+`)\.(\*|`(?:[^`]|``)+`) (?:TO|FROM) (`(?:[^`]|``)*`(?:@`(?:[^`]|``)*`)?|PUBLIC)/s;
const EVERYTHING = "ALL PRIVILEGES";

/** From the lines of SHOW GRANTS without FOR, in a session with sql_quote_show_create; roles that are active are among them. */
export function parseGrants(lines: readonly string[]): Grant[] {
  return lines.flatMap((line) => {
    const [, verb, privileges = "", schema = "", table = "", grantee = ""] = LINE.exec(line) ?? [];
    if (verb === undefined) return [];
    return [{ grantee, privileges: privilegeSet(privileges), schema: unquoted(schema), table: unquoted(table), revoked: verb === "REVOKE" }];
  });
}

/** Whether a privilege holds everywhere, in a database, or on a table. */
export function holds(grants: readonly Grant[], privilege: string, schema?: string, table?: string): boolean {
  const everywhere = grants.some((grant) => grant.schema === null && !grant.revoked && includes(grant, privilege));
  if (schema === undefined) return everywhere;
  const taken = grants.some((grant) => grant.revoked && grant.schema !== null && literal(grant.schema) === schema && includes(grant, privilege));
  if (everywhere && !taken) return true;
  if (onDatabase(grants, privilege, schema)) return true;
  return table !== undefined && grants.some((grant) => !grant.revoked && grant.table === table && grant.schema === schema && includes(grant, privilege));
}

/** Of several grants whose database matches, only the most specific of each account or role counts. */
function onDatabase(grants: readonly Grant[], privilege: string, schema: string): boolean {
  const matching = grants.filter((grant) => !grant.revoked && grant.schema !== null && grant.table === null && matches(grant.schema, schema));
  return [...Map.groupBy(matching, ({ grantee }) => grantee).values()].some((own) => {
    const [best] = own.toSorted((a, b) => specificity(b.schema!, schema) - specificity(a.schema!, schema));
    return best !== undefined && own.some((grant) => grant.schema === best.schema && includes(grant, privilege));
  });
}

function includes({ privileges }: Grant, privilege: string): boolean {
  return privileges.has(privilege) || privileges.has(EVERYTHING);
}

function matches(pattern: string, schema: string): boolean {
  if (pattern === schema) return true;
  const source = pattern.replace(/\\([_%\\])|([_%])|([^\w\s])/g, (_, escaped?: string, wild?: string, other?: string) => (
    escaped !== undefined ? `\\x${escaped.charCodeAt(0).toString(16)}` : wild !== undefined ? (wild === "_" ? "." : ".*") : `\\u{${other!.codePointAt(0)!.toString(16)}}`));
  return new RegExp(`^${source}$`, "su").test(schema);
}

/** An exact name first, then by the length of what stands before the first wildcard. */
function specificity(pattern: string, schema: string): number {
  if (pattern === schema || literal(pattern) === schema) return Number.POSITIVE_INFINITY;
  const wild = pattern.search(/(?<!\\)[_%]/);
  return wild < 0 ? pattern.length : wild;
}

function literal(pattern: string): string {
  return pattern.replace(/\\([_%\\])/g, "$1");
}

function unquoted(name: string): string | null {
  return name === "*" ? null : name.slice(1, -1).replaceAll("``", "`");
}

/** `SELECT (`id`), DELETE` is DELETE only. */
function privilegeSet(list: string): ReadonlySet<string> {
  const names = list.replace(/\([^)]*\)/g, "()").split(",").map((name) => name.trim().toUpperCase());
  return new Set(names.filter((name) => !name.endsWith("()")));
}
