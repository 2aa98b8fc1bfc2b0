/** Generates config/dualrun.schema.json from the validator: `node src/config/emit.ts`. */
import { writeFileSync } from "node:fs";
import { z } from "zod";
import { configSchema } from "./schema.ts";

/** The JSON Schema of a configuration, as the text of the checked-in file. */
export function configJsonSchema(): string {
  const schema = z.toJSONSchema(configSchema, { io: "input", target: "draft-7" });
  const selected = { oneOf: [{ required: ["classes"], not: { required: ["exclude"] } }, { required: ["include"] }] };
  return `${JSON.stringify({ ...schema, title: "dualrun", ...selected }, null, 2)}\n`;
}

if (import.meta.main) writeFileSync(new URL("../../config/dualrun.schema.json", import.meta.url), configJsonSchema());
