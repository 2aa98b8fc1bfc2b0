/** What holds between settings, and what cannot be run yet. Works on the unchecked document, so that all faults come at once. */
import { isDualrunError, parseWhere } from "../core/index.ts";
import { foundText, valueAt, type Fault, type Path } from "./faults.ts";
import { parseTable, sizeToBytes } from "./values.ts";

/** Faults that no single section can see. */
export function ruleFaults(document: unknown): Fault[] {
  return [...selectionFaults(document), ...classFaults(document), ...safetyFaults(document), ...unavailable(document), ...prototypeKeys(document, [])];
}

function invalid(path: Path, found: string, allowed: string): Fault {
  return { code: "DR1001", path, found, allowed };
}

function selectionFaults(document: unknown): Fault[] {
  const has = (name: string): boolean => valueAt(document, [name]) !== undefined;
  if (has("classes") && has("include")) return [invalid(["include"], "include beside classes", "either classes or include")];
  if (!has("classes") && !has("include")) return [invalid(["classes"], "neither classes nor include", 'classes: […] or include: ["public.*"]')];
  if (has("classes") && has("exclude")) return [invalid(["exclude"], "exclude beside classes", "exclude only together with include")];
  return [];
}

/** The name of a class of an unchecked document, or null where it has none. */
function classNameOf(entry: unknown): string | null {
  const name = valueAt(entry, ["name"]);
  if (typeof name === "string") return name;
  const source = valueAt(entry, ["source"]);
  return typeof source === "string" ? (parseTable(source)?.name ?? null) : null;
}

function classFaults(document: unknown): Fault[] {
  const classes = valueAt(document, ["classes"]);
  if (!Array.isArray(classes)) return [];
  const seen = new Map<string, number>();
  return classes.flatMap((entry, i) => {
    const name = classNameOf(entry);
    const earlier = name === null ? undefined : seen.get(name);
    if (name !== null && earlier === undefined) seen.set(name, i);
    const twice = earlier === undefined ? [] : [invalid(["classes", i, "name"], `${JSON.stringify(name)}, which classes[${earlier}] has already`, "a name of its own")];
    return [...twice, ...whereFaults(entry, i), ...moneyFaults(entry, i), ...columnFaults(entry, i)];
  });
}

function whereFaults(entry: unknown, i: number): Fault[] {
  const where = valueAt(entry, ["where"]);
  if (typeof where !== "string") return [];
  try {
    parseWhere(where);
    return [];
  } catch (error) {
    if (!isDualrunError(error)) throw error;
    const [, found, allowed] = /^(.*?); allowed: (.*)$/s.exec(error.message) ?? [null, error.message, "the grammar of where"];
    return [invalid(["classes", i, "where"], found!.replace(/^column (\d+): found /, "at column $1 "), allowed!)];
  }
}

function moneyFaults(entry: unknown, i: number): Fault[] {
  const money = valueAt(entry, ["money"]);
  const missing = valueAt(entry, ["kind"]) === "money" && (money === undefined || (Array.isArray(money) && money.length === 0));
  return missing ? [invalid(["classes", i, "money"], foundText(money), "at least one money column, as the kind is money")] : [];
}

function columnFaults(entry: unknown, i: number): Fault[] {
  const columns = valueAt(entry, ["columns"]);
  if (typeof columns !== "object" || columns === null) return [];
  return Object.entries(columns).flatMap(([column, rule]) => {
    const keys = typeof rule === "object" && rule !== null ? Object.keys(rule) : [];
    const path = ["classes", i, "columns", column];
    if (keys.includes("drop") && keys.length > 1) return [invalid(path, "drop beside other rules", "drop alone, or from and map, or default alone")];
    if (keys.includes("default") && keys.length > 1) return [invalid(path, "default beside other rules", "default alone: it is a constant for every row")];
    return keys.length === 0 && rule !== null && typeof rule === "object" ? [invalid(path, "no rule", "from, map, default or drop")] : [];
  });
}

function safetyFaults(document: unknown): Fault[] {
  const bytes = (name: string, fallback: string): number => sizeToBytes(String(valueAt(document, ["safety", name]) ?? fallback));
  if (!(bytes("slotRetainedBytesWarn", "10GiB") > bytes("slotRetainedBytesMax", "50GiB"))) return [];
  return [invalid(["safety", "slotRetainedBytesWarn"], "more than slotRetainedBytesMax", "at most safety.slotRetainedBytesMax")];
}

/** Settings without which a run would be wrong, and which cannot be honoured yet. */
function unavailable(document: unknown): Fault[] {
  const refused = (path: Path, values: readonly string[], allowed: string): Fault[] => {
    const value = valueAt(document, path);
    return values.includes(String(value)) ? [{ code: "DR1005", path, found: `${foundText(value)}, which is not available yet`, allowed }] : [];
  };
  return [
    ...refused(["target", "engine"], ["mysql", "mariadb"], "postgres"),
    ...refused(["journal", "kind"], ["kafka"], "none, sqlite"),
    ...refused(["apply", "mode"], ["manual"], "mirror"),
  ];
}

/** `__proto__` would be dropped silently on its way through objects. */
function prototypeKeys(value: unknown, path: Path): Fault[] {
  if (typeof value !== "object" || value === null) return [];
  const own = Object.hasOwn(value, "__proto__") ? [invalid([...path, "__proto__"], "the key __proto__", "another name")] : [];
  return [...own, ...Object.keys(value).filter((key) => key !== "__proto__").flatMap((key) => prototypeKeys((value as Record<string, unknown>)[key], [...path, key]))];
}
