export * from "./figures.ts";
export * from "./session.ts";
