/** Places in the logs of MySQL and MariaDB: sets of the transactions that came before. */
import type { Position, Positions, Relation } from "../../src/core/index.ts";

/** What has been come past. Changed in place by `add`. */
export interface LogSet {
  add(gtid: string): void;
  contains(other: LogSet): boolean;
  clone(): LogSet;
  /** The same set always gives the same text. */
  toString(): string;
}

/** Reads a position of either engine: MySQL's have colons, MariaDB's only hyphens. */
export function parseLogSet(text: string, flavour: "mysql" | "mariadb"): LogSet {
  return flavour === "mysql" ? MysqlGtidSet.parse(text) : MariadbGtidList.parse(text);
}

export function gtidPositions(flavour: "mysql" | "mariadb"): Positions {
  return {
    relate: (a: Position, b: Position): Relation => {
      if (a === b) return "equal";
      const [left, right] = [parseLogSet(a, flavour), parseLogSet(b, flavour)];
      const [within, around] = [right.contains(left), left.contains(right)];
      return within && around ? "equal" : within ? "before" : around ? "after" : "concurrent";
    },
    distance: () => null,
  };
}

type Interval = [first: number, last: number];

/** `uuid:1-5:7:tag:1-3,…`: numbers of transactions by the server, and tag, that gave them. */
class MysqlGtidSet implements LogSet {
  /** By `uuid` or `uuid:tag`; intervals ascending, never touching. */
  private readonly sources: Map<string, Interval[]>;

  private constructor(sources: Map<string, Interval[]>) {
    this.sources = sources;
  }

  static parse(text: string): MysqlGtidSet {
    const set = new MysqlGtidSet(new Map());
    for (const part of text.split(",").map((one) => one.trim()).filter(Boolean)) {
      const [uuid = "", ...rest] = part.toLowerCase().split(":").map((one) => one.trim());
      let source = uuid;
      for (const piece of rest) {
        if (/^\d+(-\d+)?$/.test(piece)) {
          const [first, last = first] = piece.split("-").map(Number);
          set.insert(source, first!, last!);
        } else source = `${uuid}:${piece}`;
      }
    }
    return set;
  }

  add(gtid: string): void {
    const end = gtid.lastIndexOf(":");
    const number = Number(gtid.slice(end + 1));
    this.insert(gtid.slice(0, end).toLowerCase(), number, number);
  }

  private insert(source: string, first: number, last: number): void {
    const intervals = this.sources.get(source);
    if (intervals === undefined) {
      this.sources.set(source, [[first, last]]);
      return;
    }
    const tail = intervals.at(-1)!;
    if (first === tail[1] + 1) {
      tail[1] = last;
      return;
    }
    intervals.push([first, last]);
    intervals.sort((a, b) => a[0] - b[0]);
    this.sources.set(source, merged(intervals));
  }

  contains(other: LogSet): boolean {
    for (const [source, intervals] of (other as MysqlGtidSet).sources) {
      const mine = this.sources.get(source) ?? [];
      if (!intervals.every(([first, last]) => mine.some((one) => one[0] <= first && last <= one[1]))) return false;
    }
    return true;
  }

  clone(): MysqlGtidSet {
    return new MysqlGtidSet(new Map([...this.sources].map(([source, intervals]) => [source, intervals.map(([first, last]): Interval => [first, last])])));
  }

  toString(): string {
    const parts = [...this.sources].map(([source, intervals]) => `${source}:${intervals.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(":")}`);
    return parts.length < 2 ? parts.join() : parts.toSorted().join(",");
  }
}

function merged(intervals: readonly Interval[]): Interval[] {
  const out: Interval[] = [];
  for (const [first, last] of intervals) {
    const tail = out.at(-1);
    if (tail !== undefined && first <= tail[1] + 1) tail[1] = Math.max(tail[1], last);
    else out.push([first, last]);
  }
  return out;
}

/** `domain-server-sequence,…`: the last transaction of each domain. */
class MariadbGtidList implements LogSet {
  private readonly domains: Map<number, { server: number; sequence: bigint }>;

  private constructor(domains: Map<number, { server: number; sequence: bigint }>) {
    this.domains = domains;
  }

  static parse(text: string): MariadbGtidList {
    const list = new MariadbGtidList(new Map());
    for (const part of text.split(",").map((one) => one.trim()).filter(Boolean)) list.add(part);
    return list;
  }

  add(gtid: string): void {
    const [domain = "", server = "", sequence = ""] = gtid.split("-");
    this.domains.set(Number(domain), { server: Number(server), sequence: BigInt(sequence) });
  }

  contains(other: LogSet): boolean {
    return [...(other as MariadbGtidList).domains].every(([domain, { sequence }]) => (this.domains.get(domain)?.sequence ?? -1n) >= sequence);
  }

  clone(): MariadbGtidList {
    return new MariadbGtidList(new Map([...this.domains].map(([domain, last]) => [domain, { ...last }])));
  }

  toString(): string {
    return [...this.domains].toSorted(([a], [b]) => a - b).map(([domain, { server, sequence }]) => `${domain}-${server}-${sequence}`).join(",");
  }
}
