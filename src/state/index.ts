export * from "./memory.ts";
export * from "./schema.ts";
