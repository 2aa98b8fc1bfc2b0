import type { Engine } from "../../src/core/index.ts";
import { connectPostgresSource } from "./source.ts";
import { connectPostgresTarget } from "./target.ts";

export const postgres: Engine = { name: "postgres", connectSource: connectPostgresSource, connectTarget: connectPostgresTarget };

export { isTransient } from "./connection.ts";
