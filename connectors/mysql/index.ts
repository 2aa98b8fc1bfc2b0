import type { Engine } from "../../src/core/index.ts";
import { DualrunError } from "../../src/core/index.ts";
import { typeSamples } from "./common-types.ts";
import { isTransient } from "./connection.ts";
import { connectMysqlSource } from "./source.ts";

const engine = (name: "mysql" | "mariadb"): Engine => ({
  name, connectSource: connectMysqlSource, isTransient, typeSamples: typeSamples(name),
  connectTarget: () => Promise.reject(new DualrunError("DR1005", `engine "${name}" is not available as a target yet`, { where: "configuration" })),
});

export const mysql = engine("mysql");
export const mariadb = engine("mariadb");
