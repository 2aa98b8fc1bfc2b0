/** One logical moment on MySQL or MariaDB: a consistent snapshot and its place in the log. */
import type { Connection } from "mariadb";
import { NotComparable, type CutMaker, type Endpoint, type ReadLimits, type SourceCut } from "../../src/core/index.ts";
import { connect, errorNumber, type Flavour } from "./connection.ts";
import { MysqlCutReader } from "./digest.ts";
import { LOCK_TIMEOUT, beginAlone, beginLocked } from "./snapshot.ts";

/** A comparison is not worth a queue of writers: it comes again. */
const LOCK_PATIENCE_S = 1;

/** A reader that stands ready; on MySQL the mapped tables are locked against writers for the moment in which its snapshot is taken. */
export class MysqlCut implements CutMaker {
  private readonly reader: Connection;
  private readonly endpoint: Endpoint;
  private readonly application: string;
  private readonly flavour: Flavour;
  private readonly tables: readonly string[];
  private readonly limits: ReadLimits;
  private taken = false;

  private constructor(reader: Connection, endpoint: Endpoint, application: string, flavour: Flavour, tables: readonly string[], limits: ReadLimits) {
    this.reader = reader;
    this.endpoint = endpoint;
    this.application = application;
    this.flavour = flavour;
    this.tables = tables;
    this.limits = limits;
  }

  /** `tables` quoted: all that are mapped. */
  static async prepare(endpoint: Endpoint, application: string, flavour: Flavour, tables: readonly string[], limits: ReadLimits): Promise<MysqlCut> {
    const reader = await connect(endpoint, { application: `${application} compare`, readOnly: true, statementTimeout: limits.statementTimeout });
    return new MysqlCut(reader, endpoint, application, flavour, tables, limits);
  }

  async take(): Promise<SourceCut> {
    const position = this.flavour === "mariadb" ? await beginAlone(this.reader) : await this.locked();
    this.taken = true;
    return { position, by: "snapshot", reader: new MysqlCutReader("source", this.reader, this.limits) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.taken) this.reader.destroy();
  }

  private async locked(): Promise<SourceCut["position"]> {
    try {
      return await beginLocked(this.endpoint, this.application, this.flavour, [this.reader], this.tables, LOCK_PATIENCE_S);
    } catch (error) {
      if (errorNumber(error) !== LOCK_TIMEOUT) throw error;
      throw new NotComparable(`the mapped tables could not be locked for a moment within ${LOCK_PATIENCE_S} s: a transaction on the source holds them`, { cause: error });
    }
  }
}
