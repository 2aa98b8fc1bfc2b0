import type { Engine } from "../../src/core/index.ts";
import { isTransient } from "./connection.ts";
import { connectPostgresSource } from "./source.ts";
import { connectPostgresTarget } from "./target.ts";

export const postgres: Engine = { name: "postgres", connectSource: connectPostgresSource, connectTarget: connectPostgresTarget, isTransient };
