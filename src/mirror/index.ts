export * from "./figures.ts";
export * from "./session.ts";
export * from "./slot-watch.ts";
