/**
 * The small grammar of `where`: columns against literals, decided alike by row images here and by SQL in a connector.
 *
 *     deleted_at is null and (state in ('open', 'paid') or not total <= 0)
 *
 * A comparison with NULL is unknown, as in SQL; only what is true belongs to the class.
 */
import { DualrunError } from "./errors.ts";

export type Comparison = "=" | "<>" | "<" | "<=" | ">" | ">=";

export type Literal = { readonly kind: "text" | "number" | "boolean"; readonly text: string };

export type Predicate =
  | { readonly op: "compare"; readonly column: string; readonly comparison: Comparison; readonly literal: Literal }
  | { readonly op: "in"; readonly column: string; readonly literals: readonly Literal[] }
  | { readonly op: "isNull"; readonly column: string }
  | { readonly op: "and" | "or"; readonly left: Predicate; readonly right: Predicate }
  | { readonly op: "not"; readonly operand: Predicate };
