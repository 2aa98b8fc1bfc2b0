/** Programs that tests use and npm does not bring: from the environment, or on PATH. */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { ServerUnavailable } from "./servers.ts";

interface Program {
  /** Variable that names the file. */
  readonly variable: string;
  readonly names: readonly string[];
  /** Debian's package. */
  readonly package: string;
}

const PROGRAMS = {
  promtool: { variable: "DUALRUN_TEST_PROMTOOL", names: ["promtool"], package: "prometheus" },
  prometheus: { variable: "DUALRUN_TEST_PROMETHEUS", names: ["prometheus"], package: "prometheus" },
  openssl: { variable: "DUALRUN_TEST_OPENSSL", names: ["openssl"], package: "openssl" },
  chromium: { variable: "DUALRUN_TEST_CHROMIUM", names: ["chromium", "chromium-browser", "google-chrome"], package: "chromium" },
} as const satisfies Record<string, Program>;

/** Where a program is. @throws ServerUnavailable */
export async function program(name: keyof typeof PROGRAMS): Promise<string> {
  const { variable, names, package: debian } = PROGRAMS[name];
  const given = process.env[variable];
  if (given !== undefined) return given;
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  const found = folders.flatMap((folder) => names.map((one) => join(folder, one))).find(isExecutable);
  if (found === undefined) throw new ServerUnavailable(`${name} is not on PATH: install Debian's package ${debian}, or name the file in ${variable}`, { isProgram: true });
  return found;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
