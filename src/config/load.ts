/** From a YAML file to a Config, or to one error that lists every fault. */
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { LineCounter, isMap, isNode, isScalar, isSeq, parseDocument, type Document } from "yaml";
import { DualrunError } from "../core/index.ts";
import { buildConfig, type Config } from "./config.ts";
import { allowedText, faultsOfIssue, pathText, type Fault, type Path } from "./faults.ts";
import { ruleFaults } from "./rules.ts";
import { configSchema } from "./schema.ts";
import { resolveSecrets, type Surroundings } from "./secrets.ts";

const MAX_BYTES = 4 << 20;
const MAX_DEPTH = 32;

/** Reads and checks a configuration. DR1001 with one line per fault; DR1002 unreadable; DR1003 secrets; DR1005 not available yet. */
export async function loadConfig(path: string, env: Surroundings["env"] = process.env): Promise<Config> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    const reason = code === "ENOENT" ? "does not exist" : code === "EACCES" ? "may not be read" : code === "EISDIR" ? "is a directory" : `cannot be read (${code})`;
    throw new DualrunError("DR1002", `${path} ${reason}`, { where: path, cause: error });
  }
  return parseConfig(text, { directory: dirname(path), env });
}

/** Checks a configuration's text; the same errors as `loadConfig`. */
export function parseConfig(text: string, around: Surroundings): Config {
  const yaml = readYaml(text);
  const parsed = configSchema.safeParse(yaml.value, { error: (issue) => issue.message ?? allowedText(issue) });
  const secrets = resolveSecrets(yaml.value, around);
  const faults = [
    ...(parsed.error?.issues ?? []).flatMap((issue) => faultsOfIssue(yaml.value, issue)),
    ...ruleFaults(yaml.value),
    ...secrets.faults,
  ];
  if (faults.length > 0 || !parsed.success) throw faultsError(faults, yaml.lineOf);
  const secret = (...path: Path): string => secrets.values.get(JSON.stringify(path))!;
  return buildConfig(parsed.data, secret, around.directory, givenPaths(yaml.value));
}

function faultsError(faults: readonly Fault[], lineOf: (path: Path) => number | null): DualrunError {
  const code = (["DR1001", "DR1003", "DR1005"] as const).find((candidate) => faults.some((fault) => fault.code === candidate)) ?? "DR1001";
  const lines = faults.map((fault) => ({ line: lineOf(fault.path), fault })).sort((a, b) => (a.line ?? 0) - (b.line ?? 0));
  const details = lines.map(({ line, fault }) => `${pathText(fault.path)}${line === null ? "" : ` (line ${line})`}: found ${fault.found}; allowed: ${fault.allowed}`);
  return new DualrunError(code, faults.length === 1 ? "one setting cannot be used" : `${faults.length} settings cannot be used`, { where: "configuration", details });
}

interface Yaml {
  readonly value: unknown;
  /** The line on which a path, or the nearest thing around it, stands. */
  lineOf(path: Path): number | null;
}

function readYaml(text: string): Yaml {
  if (text.length > MAX_BYTES) throw new DualrunError("DR1002", "the configuration is larger than 4 MiB", { where: "configuration" });
  const lines = new LineCounter();
  try {
    const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true });
    const problems = [...document.errors, ...document.warnings];
    if (problems.length > 0) {
      const details = problems.map((problem) => `line ${lines.linePos(problem.pos[0]).line}: ${problem.message}`);
      throw new DualrunError("DR1002", `the YAML cannot be read: ${details[0]}`, { where: "configuration", details: details.slice(1) });
    }
    const value: unknown = document.toJS({ maxAliasCount: 100 });
    refuseDepth(value, 0);
    return { value, lineOf: (path) => lineOf(document, lines, path) };
  } catch (error) {
    if (error instanceof DualrunError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new DualrunError("DR1002", `the YAML cannot be read: ${message}`, { where: "configuration", cause: error });
  }
}

/** An alias can stand within its own anchor: such a document has no end. */
function refuseDepth(value: unknown, depth: number): void {
  if (typeof value !== "object" || value === null) return;
  if (depth > MAX_DEPTH) throw new DualrunError("DR1002", `the YAML is nested deeper than ${MAX_DEPTH} levels, or refers to itself`, { where: "configuration" });
  for (const inner of Object.values(value)) refuseDepth(inner, depth + 1);
}

function lineOf(document: Document, lines: LineCounter, path: Path): number | null {
  let node: unknown = document.contents;
  let offset: number | null = null;
  for (const key of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === key);
      if (pair === undefined) break;
      offset = isNode(pair.key) && pair.key.range ? pair.key.range[0] : offset;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(key)];
      offset = isNode(node) && node.range ? node.range[0] : offset;
    } else break;
  }
  return offset === null ? null : lines.linePos(offset).line;
}

function givenPaths(document: unknown): ReadonlySet<string> {
  const sections = Object.entries(document as Record<string, unknown>);
  return new Set(sections.flatMap(([name, value]) => [name, ...(typeof value === "object" && value !== null ? Object.keys(value).map((key) => `${name}.${key}`) : [])]));
}
