export * from "./words.ts";
export * from "./errors.ts";
export * from "./tuple.ts";
export * from "./catalogue.ts";
export * from "./ports.ts";
export * from "./where.ts";
export * from "./status.ts";
