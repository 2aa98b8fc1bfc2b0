/** Settings that are checked and have no effect yet. */
import type { Config } from "./config.ts";
import { tlsParameters } from "./secrets.ts";

/** What each section or setting waits for. */
const WAITING: Readonly<Record<string, string>> = {
  gates: "gates are not available yet: nothing is held back by them",
  cutover: "the cutover is not available yet",
  retention: "retention is not available yet",
  notify: "notifications are not sent yet: alert on the metrics meanwhile",
};

/** One line per setting that the operator gave and that has no effect yet. */
export function inertSections(config: Config): string[] {
  const lines = Object.entries(WAITING).filter(([path]) => config.given.has(path)).map(([path, why]) => `${named(config, path)} has no effect: ${why}`);
  return [...lines, ...ignoredParameters("source.url", config.source.url), ...ignoredParameters("target.url", config.target.url)];
}

function named(config: Config, section: string): string {
  const settings = [...config.given].filter((path) => path.startsWith(`${section}.`) && !/\.\d+$/.test(path)).map((path) => path.slice(section.length + 1));
  return settings.length === 0 ? section : `${section} (${settings.join(", ")})`;
}

function ignoredParameters(path: string, address: string): string[] {
  const side = path.replace(".url", ".tls");
  return tlsParameters(address).map((name) => `${path}: the parameter ${name} has no effect: ${side} decides`);
}
