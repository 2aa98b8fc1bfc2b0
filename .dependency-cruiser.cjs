/** The arrows of the house: core ← connectors ← daemon; folders of src see each other only through their index.ts. */
const folders = ["compare", "config", "demo", "http", "mirror", "pipeline", "plan", "report", "snapshot", "state", "telemetry"];

module.exports = {
  forbidden: [
    { name: "no-circles", severity: "error", from: {}, to: { circular: true } },
    { name: "core-imports-nothing-of-ours", severity: "error", from: { path: "^src/core/" }, to: { path: "^(src|connectors|test|dashboards)/", pathNot: "^src/core/" } },
    { name: "connectors-import-only-core", severity: "error", from: { path: "^connectors/([^/]+)/" }, to: { path: "^(src|connectors|test)/", pathNot: ["^src/core/index\\.ts$", "^connectors/$1/"] } },
    { name: "only-the-registry-knows-engines", severity: "error", from: { path: "^(src|connectors)/", pathNot: ["^connectors/registry\\.ts$", "^connectors/[^/]+/"] }, to: { path: "^connectors/[^/]+/" } },
    { name: "registry-is-for-daemon-and-commands", severity: "error", from: { path: "^src/", pathNot: ["^src/daemon\\.ts$", "^src/commands/"] }, to: { path: "^connectors/" } },
    ...folders.map((folder) => ({
      name: `through-the-index-of-${folder}`, severity: "error",
      from: { path: "^src/", pathNot: `^src/${folder}/` }, to: { path: `^src/${folder}/`, pathNot: `^src/${folder}/index\\.ts$` },
    })),
    { name: "dashboards-stand-alone", severity: "error", from: { path: "^dashboards/" }, to: { path: "^(src|connectors|test)/" } },
    { name: "nobody-imports-dashboards", severity: "error", from: { path: "^(src|connectors)/" }, to: { path: "^dashboards/" } },
    { name: "nobody-imports-tests", severity: "error", from: { path: "^(src|connectors)/" }, to: { path: "^test/" } },
    { name: "only-commands-and-the-demo-import-the-daemon", severity: "error", from: { path: "^src/", pathNot: ["^src/commands/", "^src/demo/"] }, to: { path: "^src/daemon\\.ts$" } },
    { name: "no-unresolved", severity: "error", from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "require", "node", "default", "types"], extensions: [".ts", ".js", ".json"] },
  },
};
