/**
 * Places in the log of MySQL and MariaDB, as text.
 *
 * - MySQL: the GTID set of everything up to there, `uuid:1-5:7,uuid:1-3:tag:1-2`, in canonical order.
 * - MariaDB: the last GTID of each domain, `domain-server-sequence`, sorted by domain.
 * - MySQL without GTIDs: `file:offset`.
 * - Empty text: before the first GTID.
 */
import type { Position, Positions, Relation } from "../../src/core/index.ts";

/** First and last number, both inclusive. */
type Interval = readonly [first: bigint, last: bigint];

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const TAG = /^[a-z_][a-z0-9_]{0,31}$/;
const INTERVAL = /^(\d+)(?:-(\d+))?$/;
const DOMAIN_GTID = /^(\d+)-(\d+)-(\d+)$/;
const FILE_PLACE = /^(.+)\.(\d+):(\d+)$/;

export type PositionKind = "empty" | "gtid-set" | "domains" | "file";

/** What a position is written in. Throws TypeError for a text that is none. */
export function kindOf(position: string): PositionKind {
  const text = position.trim();
  if (text === "") return "empty";
  const [first = ""] = text.split(",");
  if (DOMAIN_GTID.test(first.trim())) return "domains";
  if (UUID.test(first.trim().slice(0, 36).toLowerCase())) return "gtid-set";
  if (FILE_PLACE.test(text)) return "file";
  throw malformed(position);
}

/** The position in its canonical form. Throws TypeError for a text that is none. */
export function canonicalPosition(text: string): Position {
  switch (kindOf(text)) {
    case "empty": return "" as Position;
    case "gtid-set": return GtidSet.parse(text).toPosition();
    case "domains": return Domains.parse(text).toPosition();
    case "file": return text.trim() as Position;
  }
}

/** The position with one more transaction: `uuid:5`, `uuid:tag:5` or `0-1-100`. Throws TypeError when the two are of different engines. */
export function union(position: Position, gtid: string): Position {
  const set = accumulator(kindOf(gtid));
  set.addAll(position);
  set.addAll(gtid);
  return set.toPosition();
}

/** Whether a position holds a transaction, named as in {@link union}. */
export function contains(position: Position, gtid: string): boolean {
  return isWithin(gtid as Position, position);
}

/** What grows along a stream, one transaction after the other. */
export interface GrowingPosition {
  /** Adds everything that a position or a GTID stands for. */
  addAll(text: string): void;
  toPosition(): Position;
}

/** An empty one, for GTIDs of MySQL (`gtid-set`) or MariaDB (`domains`). */
export function accumulator(kind: PositionKind): GrowingPosition {
  if (kind === "gtid-set") return new GtidSet();
  if (kind === "domains") return new Domains();
  throw new TypeError(`a position of kind ${kind} does not grow by GTIDs`);
}

function relate(a: Position, b: Position): Relation {
  const [left, right] = [kindOf(a), kindOf(b)];
  if (left === "empty" && right === "empty") return "equal";
  if (left === "file" || right === "file") return left === right ? relateFiles(a, b) : "concurrent";
  if (left === "empty") return "before";
  if (right === "empty") return "after";
  if (left !== right) return "concurrent";
  return left === "gtid-set" ? relateSets(GtidSet.parse(a), GtidSet.parse(b)) : relateSets(Domains.parse(a), Domains.parse(b));
}

/** Positions of MySQL and MariaDB. What is written in different ways, or belongs to different logs, is concurrent. */
export const mysqlPositions: Positions = { relate, distance: () => null };

/** Whether everything up to one place is up to another one too. */
export function isWithin(inner: Position, outer: Position): boolean {
  const relation = relate(inner, outer);
  return relation === "before" || relation === "equal";
}

interface Subset<T> {
  isSubsetOf(other: T): boolean;
}

function relateSets<T extends Subset<T>>(a: T, b: T): Relation {
  const [within, holds] = [a.isSubsetOf(b), b.isSubsetOf(a)];
  if (within && holds) return "equal";
  return within ? "before" : holds ? "after" : "concurrent";
}

function relateFiles(a: string, b: string): Relation {
  const [left, right] = [filePlace(a), filePlace(b)];
  if (left.base !== right.base) return "concurrent";
  const difference = left.file === right.file ? left.offset - right.offset : left.file - right.file;
  return difference < 0n ? "before" : difference > 0n ? "after" : "equal";
}

function filePlace(text: string): { base: string; file: bigint; offset: bigint } {
  const [, base = "", file = "0", offset = "0"] = FILE_PLACE.exec(text.trim()) ?? [];
  return { base, file: BigInt(file), offset: BigInt(offset) };
}

function malformed(text: string): TypeError {
  return new TypeError(`not a position of MySQL or MariaDB: ${text.slice(0, 100)}`);
}

// ---------------------------------------------------------------- MySQL

/** A set of MySQL's GTIDs: numbers by `uuid` or `uuid:tag`. */
export class GtidSet implements GrowingPosition, Subset<GtidSet> {
  /** Ascending, neither overlapping nor adjacent. */
  private readonly intervals = new Map<string, Interval[]>();

  static parse(text: string): GtidSet {
    const set = new GtidSet();
    set.addAll(text);
    return set;
  }

  addAll(text: string): void {
    for (const part of text.split(",").map((one) => one.trim()).filter((one) => one !== "")) this.addPart(part, text);
  }

  /** Adds the numbers from `first` to `last` of a source, which is `uuid` or `uuid:tag` in lower case. */
  add(source: string, first: bigint, last = first): void {
    const list = this.intervals.get(source);
    const end = list?.at(-1);
    if (list === undefined) this.intervals.set(source, [[first, last]]);
    else if (end !== undefined && first === end[1] + 1n) list[list.length - 1] = [end[0], last];
    else this.intervals.set(source, merged([...list, [first, last]]));
  }

  isSubsetOf(other: GtidSet): boolean {
    return [...this.intervals].every(([source, list]) => {
      const theirs = other.intervals.get(source) ?? [];
      return list.every(([first, last]) => theirs.some((interval) => interval[0] <= first && last <= interval[1]));
    });
  }

  /** As MySQL prints it, on one line. */
  toPosition(): Position {
    const parts: string[] = [];
    let uuid = "";
    for (const source of [...this.intervals.keys()].sort()) {
      const [own = "", tag] = source.split(":");
      const numbers = this.intervals.get(source)!.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(":");
      const tagged = tag === undefined ? numbers : `${tag}:${numbers}`;
      if (own === uuid) parts.push(`${parts.pop()!}:${tagged}`);
      else parts.push(`${own}:${tagged}`);
      uuid = own;
    }
    return parts.join(",") as Position;
  }

  private addPart(part: string, whole: string): void {
    const [uuid = "", ...words] = part.toLowerCase().split(":").map((word) => word.trim());
    if (!UUID.test(uuid) || words.length === 0) throw malformed(whole);
    let source = uuid;
    for (const word of words) {
      if (TAG.test(word)) source = `${uuid}:${word}`;
      else this.add(source, ...interval(word, whole));
    }
  }
}

function interval(word: string, whole: string): Interval {
  const [, first, last = first] = INTERVAL.exec(word) ?? [];
  if (first === undefined || last === undefined || BigInt(first) < 1n || BigInt(last) < BigInt(first)) throw malformed(whole);
  return [BigInt(first), BigInt(last)];
}

function merged(intervals: readonly Interval[]): Interval[] {
  const result: Interval[] = [];
  for (const [first, last] of intervals.toSorted((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0))) {
    const end = result.at(-1);
    if (end === undefined || first > end[1] + 1n) result.push([first, last]);
    else if (last > end[1]) result[result.length - 1] = [end[0], last];
  }
  return result;
}

// ---------------------------------------------------------------- MariaDB

interface DomainGtid {
  readonly server: bigint;
  readonly sequence: bigint;
}

/** MariaDB's last GTID of each domain: it stands for all before it in that domain, as gtid_strict_mode promises. */
export class Domains implements GrowingPosition, Subset<Domains> {
  private readonly last = new Map<bigint, DomainGtid>();

  static parse(text: string): Domains {
    const domains = new Domains();
    domains.addAll(text);
    return domains;
  }

  addAll(text: string): void {
    for (const part of text.split(",").map((one) => one.trim()).filter((one) => one !== "")) {
      const [, domain, server, sequence] = DOMAIN_GTID.exec(part) ?? [];
      if (domain === undefined || server === undefined || sequence === undefined) throw malformed(text);
      this.add(BigInt(domain), BigInt(server), BigInt(sequence));
    }
  }

  add(domain: bigint, server: bigint, sequence: bigint): void {
    const known = this.last.get(domain);
    if (known === undefined || known.sequence < sequence) this.last.set(domain, { server, sequence });
  }

  isSubsetOf(other: Domains): boolean {
    return [...this.last].every(([domain, { server, sequence }]) => {
      const theirs = other.last.get(domain);
      if (theirs === undefined) return false;
      return theirs.sequence > sequence || (theirs.sequence === sequence && theirs.server === server);
    });
  }

  toPosition(): Position {
    const domains = [...this.last].toSorted(([a], [b]) => (a < b ? -1 : 1));
    return domains.map(([domain, { server, sequence }]) => `${domain}-${server}-${sequence}`).join(",") as Position;
  }
}
