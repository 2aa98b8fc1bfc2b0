export * from "./agree.ts";
export * from "./classes.ts";
