export * from "./copy.ts";
export * from "./meter.ts";
