export * from "./figures.ts";
export * from "./session.ts";
export * from "./slot-watch.ts";
export * from "./journaled.ts";
export * from "./journal-watch.ts";
