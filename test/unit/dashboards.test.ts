/** What stands in dashboards/ is what the code says, and names nothing that does not exist. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { BOARDS } from "../../dashboards/boards.ts";
import { METRICS } from "../../src/telemetry/index.ts";
import { program } from "../support/programs.ts";
import { orSkip } from "../support/servers.ts";
import { alertRules, metricsIn, panelsOf } from "../support/dashboards.ts";

const folder = new URL("../../dashboards/", import.meta.url);
const text = (name: string): string => readFileSync(new URL(name, folder), "utf8");
const KNOWN = new Set(METRICS.flatMap(({ name, type }) => (type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name])));

test("the boards are generated from the code", () => {
  for (const [name, built] of Object.entries(BOARDS)) expect(text(`${name}.json`), `run npm run generate (${name})`).toBe(`${JSON.stringify(built, null, 2)}\n`);
});

describe("boards", () => {
  test("every panel says what it means, has a unit or a figure of its own, and names metrics that exist", () => {
    const panels = Object.values(BOARDS).flatMap(panelsOf);
    expect(panels.length).toBeGreaterThan(40);
    for (const { title, description, expressions } of panels) {
      expect([title, description.length > 20, expressions.length > 0]).toEqual([title, true, true]);
      for (const expression of expressions) for (const metric of metricsIn(expression)) expect([title, metric, KNOWN.has(metric)]).toEqual([title, metric, true]);
    }
  });

  test("links lead to sections of the runbook", () => {
    const sections = new Set([...text("RUNBOOK.md").matchAll(/^## (\w+)$/gm)].map((match) => match[1]!.toLowerCase()));
    for (const [, section] of Object.values(BOARDS).map((built) => JSON.stringify(built)).join().matchAll(/\/runbook#(\w+)/g)) expect(sections.has(section!), section).toBe(true);
  });
});

describe("alerts", () => {
  const rules = alertRules();

  test("each has a severity, a summary, a description, a section of the runbook, and metrics that exist", () => {
    const sections = [...text("RUNBOOK.md").matchAll(/^## (\w+)$/gm)].map((match) => match[1]!);
    expect(rules.map(({ alert }) => alert).toSorted()).toEqual(sections.toSorted());
    for (const { alert, expr, labels, annotations } of rules) {
      expect(["page", "ticket"]).toContain(labels.severity);
      expect([annotations.summary.length > 5, annotations.description.length > 20, annotations.runbook_url]).toEqual([true, true, `${alert === "DualrunAbsent" ? "RUNBOOK.md" : "http://{{ $labels.instance }}/runbook"}#${alert.toLowerCase()}`]);
      for (const metric of metricsIn(expr)) expect([alert, metric, KNOWN.has(metric)]).toEqual([alert, metric, true]);
    }
  });

  test("each has a case in which it fires and one in which it stays quiet", () => {
    const { tests } = parse(text("alerts.test.yaml")) as { tests: readonly { name: string }[] };
    expect(tests.map(({ name }) => name)).toEqual(rules.flatMap(({ alert }) => [`${alert} fires`, `${alert} stays quiet`]));
  });

  test("promtool agrees", async (context) => {
    const promtool = await orSkip(context, program("promtool"));
    const run = promisify(execFile);
    const { stdout } = await run(promtool, ["test", "rules", "alerts.test.yaml"], { cwd: fileURLToPath(folder) });
    expect(stdout).toContain("SUCCESS");
    await expect(run(promtool, ["check", "rules", "alerts.yaml"], { cwd: fileURLToPath(folder) })).resolves.toMatchObject({ stdout: expect.stringContaining(`${rules.length} rules found`) });
  });
});
