/** The lint that holds the arrows must be seen to fail. */
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

interface Cruise {
  readonly summary: { readonly totalCruised: number; readonly violations: readonly { readonly rule: { readonly name: string }; readonly from: string }[] };
}

function cruise(directory: string): Promise<Cruise> {
  const binary = join(ROOT, "node_modules/dependency-cruiser/bin/dependency-cruiser.mjs");
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [binary, "--config", ".dependency-cruiser.cjs", "--output-type", "json", "src", "connectors"], { cwd: directory, maxBuffer: 1 << 26 }, (error, stdout) => {
      if (stdout === "") reject(error ?? new Error("no output"));
      else resolve(JSON.parse(stdout) as Cruise);
    });
  });
}

test("the tree keeps the arrows, and all of it was read", async () => {
  const files = (await Promise.all(["src", "connectors"].map((folder) => readdir(join(ROOT, folder), { recursive: true })))).flat().filter((name) => name.endsWith(".ts"));
  const { summary } = await cruise(ROOT);
  expect(summary.violations).toEqual([]);
  expect(summary.totalCruised).toBeGreaterThanOrEqual(files.length);
});

const VIOLATIONS: readonly [rule: string, file: string, imports: string][] = [
  ["core-imports-nothing-of-ours", "src/core/bad.ts", "../state/index.ts"],
  ["connectors-import-only-core", "connectors/postgres/bad.ts", "../../src/config/index.ts"],
  ["only-the-registry-knows-engines", "src/plan/bad.ts", "../../connectors/postgres/index.ts"],
  ["registry-is-for-daemon-and-commands", "src/http/bad.ts", "../../connectors/registry.ts"],
  ["through-the-index-of-pipeline", "src/mirror/bad.ts", "../pipeline/batch.ts"],
  ["only-commands-and-the-demo-import-the-daemon", "src/state/bad.ts", "../daemon.ts"],
  ["nobody-imports-tests", "src/state/worse.ts", "../../test/support/servers.ts"],
];

test("each rule reports a module that breaks it", { timeout: 60_000 }, async () => {
  const copy = await mkdtemp(join(tmpdir(), "dualrun-arrows-"));
  try {
    for (const name of ["src", "connectors", "test", "package.json", "tsconfig.json", ".dependency-cruiser.cjs"]) await cp(join(ROOT, name), join(copy, name), { recursive: true });
    await symlink(join(ROOT, "node_modules"), join(copy, "node_modules"));
    for (const [, file, imports] of VIOLATIONS) {
      await mkdir(dirname(join(copy, file)), { recursive: true });
      await writeFile(join(copy, file), `import * as other from "${imports}";\nexport const used = other;\n`);
    }
    const { summary } = await cruise(copy);
    for (const [rule, file] of VIOLATIONS) expect(summary.violations.map(({ rule: { name }, from }) => `${name} ${from}`)).toContain(`${rule} ${file}`);
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
});
