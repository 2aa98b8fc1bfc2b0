export * from "./pipeline.ts";
export * from "./mapper.ts";
