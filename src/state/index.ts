export * from "./memory.ts";
export * from "./schema.ts";
export * from "./comparisons.ts";
export * from "./reports.ts";
