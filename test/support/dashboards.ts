/** Reads boards and alert rules as their users do. */
import { readFileSync } from "node:fs";
import { parse } from "yaml";

export interface AlertRule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string; readonly runbook_url: string };
}

export function alertRules(): readonly AlertRule[] {
  const { groups } = parse(readFileSync(new URL("../../dashboards/alerts.yaml", import.meta.url), "utf8")) as { groups: readonly { rules: readonly AlertRule[] }[] };
  return groups.flatMap(({ rules }) => rules);
}

export interface PanelFacts {
  readonly title: string;
  readonly description: string;
  readonly expressions: readonly string[];
}

interface AnyPanel {
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly panels?: readonly AnyPanel[];
  readonly targets?: readonly { readonly expr: string }[];
}

export function panelsOf(board: unknown): PanelFacts[] {
  const { panels } = board as { readonly panels: readonly AnyPanel[] };
  const flat = panels.flatMap((panel): readonly AnyPanel[] => (panel.type === "row" ? panel.panels ?? [] : [panel]));
  return flat.map(({ title, description, targets }) => ({ title, description: description ?? "", expressions: (targets ?? []).map(({ expr }) => expr) }));
}

/** Our metrics that an expression names. */
export function metricsIn(expression: string): string[] {
  return [...new Set([...expression.matchAll(/\bdualrun_[a-z_]+/g)].map((match) => match[0]))];
}
