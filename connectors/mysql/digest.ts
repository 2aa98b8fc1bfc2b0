import type { Connection } from "mariadb";
import type { CutReader, ReadLimits, Side } from "../../src/core/index.ts";
export class MysqlCutReader {
  constructor(side: Side, c: Connection, limits: ReadLimits) { void side; void c; void limits; }
}
export interface MysqlCutReader extends CutReader {}
