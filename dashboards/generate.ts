/** Writes the boards as JSON beside this file. */
import { writeFileSync } from "node:fs";
import { BOARDS } from "./boards.ts";

for (const [name, built] of Object.entries(BOARDS)) writeFileSync(new URL(`./${name}.json`, import.meta.url), `${JSON.stringify(built, null, 2)}\n`);
