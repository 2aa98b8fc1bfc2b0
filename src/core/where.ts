/**
 * The small grammar of `where`: columns against literals, decided alike by row images here and by SQL in a connector.
 *
 *     deleted_at is null and (state in ('open', 'paid') or not total <= 0)
 *
 * A comparison with NULL is unknown, as in SQL; only what is true belongs to the class.
 */
import { DualrunError } from "./errors.ts";
import type { ColumnFacts } from "./catalogue.ts";

export type Comparison = "=" | "<>" | "<" | "<=" | ">" | ">=";

export type Literal = { readonly kind: "text" | "number" | "boolean"; readonly text: string };

export type Predicate =
  | { readonly op: "compare"; readonly column: string; readonly comparison: Comparison; readonly literal: Literal }
  | { readonly op: "in"; readonly column: string; readonly literals: readonly Literal[] }
  | { readonly op: "isNull"; readonly column: string }
  | { readonly op: "and" | "or"; readonly left: Predicate; readonly right: Predicate }
  | { readonly op: "not"; readonly operand: Predicate };

/**
 * How a column is compared. `text`: the engine's text, bytewise on UTF-8. `char`: the same without the trailing blanks
 * that blank-padded types carry in the log and lose in SQL. `number`: exact decimals. `uuid`: as text, for literals in the engine's form.
 */
export type WhereType = "text" | "char" | "number" | "boolean" | "uuid";

type TokenKind = "identifier" | "keyword" | "symbol" | "text" | "number" | "end";

interface Token {
  readonly kind: TokenKind;
  readonly text: string;
  /** Index in the source text. */
  readonly at: number;
}

const MAX_LENGTH = 8192;
const MAX_DEPTH = 64;
const KEYWORDS = new Set(["and", "or", "not", "in", "is", "null", "true", "false"]);
const COMPARISONS = new Set<string>(["=", "<>", "<", "<=", ">", ">="] satisfies Comparison[]);
const LITERAL_FORMS = "a literal ('text', a number, true or false)";
const COMPARISON_FORMS = "= <> < <= > >=, IN (…), NOT IN (…), IS NULL or IS NOT NULL";

const SPACE = /\s*/y;
const LEXEMES: readonly (readonly [RegExp, (match: RegExpExecArray) => Omit<Token, "at">])[] = [
  [/[A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*/y, (m) => word(m[0])],
  [/"((?:[^"]|"")+)"/y, (m) => ({ kind: "identifier", text: m[1]!.replaceAll('""', '"') })],
  [/'((?:[^']|'')*)'/y, (m) => ({ kind: "text", text: m[1]!.replaceAll("''", "'") })],
  [/-?\d+(?:\.\d+)?(?![\w$.])/y, (m) => ({ kind: "number", text: m[0] })],
  [/<>|<=|>=|[=<>(),]/y, (m) => ({ kind: "symbol", text: m[0] })],
];

function word(text: string): Omit<Token, "at"> {
  const folded = text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
  return { kind: KEYWORDS.has(folded) ? "keyword" : "identifier", text: folded };
}

function fault(at: number, found: string, allowed: string): DualrunError {
  return new DualrunError("DR1001", `column ${at + 1}: found ${found}; allowed: ${allowed}`, { where: `where, column ${at + 1}` });
}

function tokenize(text: string): Token[] {
  if (text.length > MAX_LENGTH) throw fault(MAX_LENGTH, "more text", `at most ${MAX_LENGTH} characters`);
  const unfit = text.isWellFormed() ? text.indexOf("\0") : 0;
  if (unfit >= 0) throw fault(unfit, "a character that no database text can hold", "Unicode text without NUL");
  const tokens: Token[] = [];
  let at = skipSpace(text, 0);
  while (at < text.length) {
    const { token, end } = lexeme(text, at);
    tokens.push(token);
    at = skipSpace(text, end);
  }
  tokens.push({ kind: "end", text: "", at });
  return tokens;
}

function skipSpace(text: string, at: number): number {
  SPACE.lastIndex = at;
  SPACE.exec(text);
  return SPACE.lastIndex;
}

function lexeme(text: string, at: number): { token: Token; end: number } {
  for (const [form, make] of LEXEMES) {
    form.lastIndex = at;
    const match = form.exec(text);
    if (match !== null) return { token: { ...make(match), at }, end: form.lastIndex };
  }
  const start = text[at]!;
  if (start === "'") throw fault(at, "a text without its closing quote", "'text', with '' for a quote within it");
  if (start === '"') throw fault(at, "a name that is empty or without its closing quote", '"name", with "" for a quote within it');
  throw fault(at, `\`${/\S{1,20}/u.exec(text.slice(at))![0]}\``, `a column name, ${LITERAL_FORMS}, ${COMPARISON_FORMS}, AND, OR, NOT or parentheses`);
}

/** Recursive descent over the tokens: or < and < not < condition. */
class Parser {
  private readonly tokens: readonly Token[];
  private next = 0;
  private depth = 0;

  constructor(tokens: readonly Token[]) {
    this.tokens = tokens;
  }

  whole(): Predicate {
    const predicate = this.disjunction();
    if (this.peek.kind !== "end") throw this.unexpected("AND, OR or the end");
    return predicate;
  }

  private get peek(): Token {
    return this.tokens[this.next]!;
  }

  private unexpected(allowed: string): DualrunError {
    const { kind, text, at } = this.peek;
    const found = kind === "end" ? "the end" : kind === "text" ? "a text" : `\`${text}\``;
    return fault(at, found, allowed);
  }

  private take(kind: TokenKind, text?: string): Token | null {
    const token = this.peek;
    if (token.kind !== kind || (text !== undefined && token.text !== text)) return null;
    this.next += 1;
    return token;
  }

  private need(kind: TokenKind, text: string): void {
    if (this.take(kind, text) === null) throw this.unexpected(kind === "keyword" ? text.toUpperCase() : text);
  }

  private disjunction(): Predicate {
    let left = this.conjunction();
    while (this.take("keyword", "or")) left = { op: "or", left, right: this.conjunction() };
    return left;
  }

  private conjunction(): Predicate {
    let left = this.negation();
    while (this.take("keyword", "and")) left = { op: "and", left, right: this.negation() };
    return left;
  }

  private negation(): Predicate {
    const { at } = this.peek;
    if (++this.depth > MAX_DEPTH) throw fault(at, "deeper nesting", `at most ${MAX_DEPTH} levels of NOT and parentheses`);
    const predicate = this.take("keyword", "not") ? ({ op: "not", operand: this.negation() } as const) : this.operand();
    this.depth -= 1;
    return predicate;
  }

  private operand(): Predicate {
    if (this.take("symbol", "(")) {
      const inner = this.disjunction();
      this.need("symbol", ")");
      return inner;
    }
    const column = this.take("identifier");
    if (column === null) throw this.unexpected("a column name, NOT or (");
    return this.condition(column.text);
  }

  private condition(column: string): Predicate {
    if (this.take("keyword", "is")) return this.nullTest(column);
    if (this.take("keyword", "in")) return { op: "in", column, literals: this.list() };
    if (this.take("keyword", "not")) {
      this.need("keyword", "in");
      return { op: "not", operand: { op: "in", column, literals: this.list() } };
    }
    if (this.peek.kind !== "symbol" || !COMPARISONS.has(this.peek.text)) throw this.unexpected(COMPARISON_FORMS);
    const comparison = this.peek.text as Comparison;
    this.next += 1;
    return { op: "compare", column, comparison, literal: this.literal() };
  }

  private nullTest(column: string): Predicate {
    const negated = this.take("keyword", "not") !== null;
    if (!this.take("keyword", "null")) throw this.unexpected(negated ? "NULL" : "NULL or NOT NULL");
    return negated ? { op: "not", operand: { op: "isNull", column } } : { op: "isNull", column };
  }

  private list(): Literal[] {
    this.need("symbol", "(");
    const literals = [this.literal()];
    while (this.take("symbol", ",")) literals.push(this.literal());
    if (!this.take("symbol", ")")) throw this.unexpected(", or )");
    return literals;
  }

  private literal(): Literal {
    const token = this.take("text") ?? this.take("number") ?? this.take("keyword", "true") ?? this.take("keyword", "false");
    if (token === null) throw this.unexpected(LITERAL_FORMS);
    return { kind: token.kind === "keyword" ? "boolean" : (token.kind as "text" | "number"), text: token.text };
  }
}

/** Parses a `where`; DR1001 says at which column what is allowed. Plain names are folded to lower case, "quoted" ones kept. */
export function parseWhere(text: string): Predicate {
  return new Parser(tokenize(text)).whole();
}

/** The columns that a predicate looks at, each once, in order of appearance. */
export function whereColumns(predicate: Predicate): string[] {
  const found = new Set<string>();
  const visit = (p: Predicate): void => {
    switch (p.op) {
      case "and": case "or": visit(p.left); visit(p.right); break;
      case "not": visit(p.operand); break;
      default: found.add(p.column);
    }
  };
  visit(predicate);
  return [...found];
}

const TYPE_OF_BASE: Readonly<Record<string, WhereType>> = {
  bool: "boolean", boolean: "boolean", uuid: "uuid", bpchar: "char",
  int2: "number", int4: "number", int8: "number", numeric: "number",
  tinyint: "number", smallint: "number", mediumint: "number", int: "number", bigint: "number", decimal: "number",
};

/** How a column is compared in a `where`, from its base type; whatever is not listed is compared as its text. */
export function whereTypeOf(column: ColumnFacts): WhereType {
  if (column.typeKind !== "base" && column.typeKind !== "domain") return "text";
  return TYPE_OF_BASE[column.baseTypeName] ?? "text";
}

/** true, false, or null for SQL's unknown. */
type Decision = (get: (column: string) => string | null) => boolean | null;

/** Negative, zero or positive, as a value stands to a literal. */
type Order = (value: string) => number;

/**
 * Compiles a predicate to a decision over a row's values (the engine's text, or null) with SQL's three-valued logic.
 * DR1001 when a literal does not fit its column's type.
 */
export function compileWhere(predicate: Predicate, columnTypeOf: (column: string) => WhereType): Decision {
  switch (predicate.op) {
    case "and": case "or":
      return combine(compileWhere(predicate.left, columnTypeOf), compileWhere(predicate.right, columnTypeOf), predicate.op === "or");
    case "not": {
      const operand = compileWhere(predicate.operand, columnTypeOf);
      return (get) => {
        const result = operand(get);
        return result === null ? null : !result;
      };
    }
    case "isNull":
      return (get) => get(predicate.column) === null;
    case "in": {
      const orders = predicate.literals.map((literal) => orderOf(predicate.column, columnTypeOf(predicate.column), literal));
      return onValue(predicate.column, (value) => orders.some((order) => order(value) === 0));
    }
    case "compare": {
      const order = orderOf(predicate.column, columnTypeOf(predicate.column), predicate.literal);
      const holds = HOLDS[predicate.comparison];
      return onValue(predicate.column, (value) => holds(order(value)));
    }
  }
}

const HOLDS: Readonly<Record<Comparison, (order: number) => boolean>> = {
  "=": (order) => order === 0,
  "<>": (order) => order !== 0,
  "<": (order) => order < 0,
  "<=": (order) => order <= 0,
  ">": (order) => order > 0,
  ">=": (order) => order >= 0,
};

function onValue(column: string, test: (value: string) => boolean): Decision {
  return (get) => {
    const value = get(column);
    return value === null ? null : test(value);
  };
}

/** AND when `dominant` is false, OR when it is true: the dominant value decides, else unknown does. */
function combine(left: Decision, right: Decision, dominant: boolean): Decision {
  return (get) => {
    const first = left(get);
    if (first === dominant) return dominant;
    const second = right(get);
    if (second === dominant) return dominant;
    return first === null || second === null ? null : !dominant;
  };
}

function orderOf(column: string, type: WhereType, literal: Literal): Order {
  const { kind, text } = literal;
  switch (type) {
    case "text": return needs(kind === "text", "'text'"), bytewise(text);
    case "char": {
      needs(kind === "text" && !text.endsWith(" "), "'text' without trailing blanks");
      const order = bytewise(text);
      return (value) => order(value.replace(/ +$/, ""));
    }
    case "uuid": return needs(kind === "text" && UUID.test(text), "'xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx' in lower case, as the engine writes it"), bytewise(text);
    case "boolean": return needs(kind === "boolean", "true or false"), (value) => Number(booleanOf(column, value)) - Number(text === "true");
    case "number": {
      needs(kind === "number", "a number");
      const right = decimalOf(column, text);
      return (value) => compareDecimals(decimalOf(column, value), right);
    }
  }

  function needs(fits: boolean, allowed: string): void {
    if (fits) return;
    const found = kind === "text" ? `'${text.replaceAll("'", "''")}'` : text;
    throw new DualrunError("DR1001", `column "${column}" is compared as ${type}: found ${found}; allowed: ${allowed}`, { where: `where, column "${column}"` });
  }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

function bytewise(literal: string): Order {
  const right = Buffer.from(literal);
  return (value) => (value === literal ? 0 : Buffer.compare(Buffer.from(value), right));
}

function booleanOf(column: string, value: string): boolean {
  if (value === "t" || value === "true" || value === "1") return true;
  if (value === "f" || value === "false" || value === "0") return false;
  throw notOfType(column, "boolean");
}

/** units × 10^-scale when `rank` is 0; otherwise -1: -Infinity, 1: Infinity, 2: NaN, which PostgreSQL sorts above all. */
interface Decimal {
  readonly rank: number;
  readonly units: bigint;
  readonly scale: number;
}

const DECIMAL = /^-?\d+(?:\.\d+)?$/;
const RANKS: Readonly<Record<string, number>> = { "-Infinity": -1, Infinity: 1, NaN: 2 };

function decimalOf(column: string, text: string): Decimal {
  if (!DECIMAL.test(text)) {
    const rank = RANKS[text];
    if (rank === undefined) throw notOfType(column, "number");
    return { rank, units: 0n, scale: 0 };
  }
  const point = text.indexOf(".");
  if (point < 0) return { rank: 0, units: BigInt(text), scale: 0 };
  return { rank: 0, units: BigInt(text.slice(0, point) + text.slice(point + 1)), scale: text.length - point - 1 };
}

function compareDecimals(a: Decimal, b: Decimal): number {
  if (a.rank !== b.rank || a.rank !== 0) return a.rank - b.rank;
  const scale = Math.max(a.scale, b.scale);
  const left = a.units * 10n ** BigInt(scale - a.scale);
  const right = b.units * 10n ** BigInt(scale - b.scale);
  return left < right ? -1 : left > right ? 1 : 0;
}

function notOfType(column: string, type: WhereType): DualrunError {
  return new DualrunError("DR5005", `column "${column}" holds a value that is no ${type}`, { where: "where" });
}
