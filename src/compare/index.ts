export * from "./compare.ts";
export * from "./days.ts";
export * from "./figures.ts";
export { keyHash } from "./locate.ts";
export * from "./verifier.ts";
