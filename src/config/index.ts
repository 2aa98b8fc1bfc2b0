export { loadConfig, parseConfig } from "./load.ts";
export { inertSections } from "./inert.ts";
export { isLoopback, parseTable, parseTablePattern, type ListenAddress, type TablePattern } from "./values.ts";
export type { ClassConfig, ColumnRule, Config, EngineName, SourceConfig, TargetConfig } from "./config.ts";
export { resolveSecret, type Surroundings } from "./secrets.ts";
