import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { errorReference } from "../../src/reference.ts";

test("ERRORS.md is what the code says", async () => {
  expect(await readFile(new URL("../../ERRORS.md", import.meta.url), "utf8")).toBe(errorReference());
});
