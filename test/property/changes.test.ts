/** Compaction against a model: what is left per key, applied set-wise, is what the log's own order gives. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { ClassChanges, OP, rowValues, type ClassPlan, type RecordClass } from "../../src/core/index.ts";

const SEED = Number(process.env["DUALRUN_PROPERTY_SEED"] ?? Date.now() % 1_000_000);
const RUNS = 2_000;

type Cell = string | null | undefined;

/** A tuple as the stream brings it. */
function tuple(cells: readonly Cell[]): Buffer {
  const parts: Buffer[] = [Buffer.from([0, cells.length])];
  for (const cell of cells) {
    if (cell === null) parts.push(Buffer.from("n"));
    else if (cell === undefined) parts.push(Buffer.from("u"));
    else {
      const head = Buffer.from("t\0\0\0\0");
      head.writeInt32BE(Buffer.byteLength(cell), 1);
      parts.push(head, Buffer.from(cell));
    }
  }
  return Buffer.concat(parts);
}

function planOf(key: readonly number[], width: number, fullBeforeImage: boolean): ClassPlan {
  const names = Array.from({ length: width }, (_, i) => `c${i}`);
  const cls: RecordClass = {
    name: "c", source: { schema: "s", name: "c" }, target: { schema: "s", name: "c" }, kind: "record",
    columns: names.map((name) => ({ target: name, from: name, map: null, constant: null })),
    key: key.map((i) => names[i]!), where: null, fullBeforeImage, money: [], occurredAt: null, occurredAtZone: null, sensitive: [],
  };
  return {
    cls, from: Int32Array.from(names, (_, i) => i), constants: names.map(() => null), maps: names.map(() => null), identity: true,
    keyColumns: Int32Array.from(key.length > 0 ? key : names.map((_, i) => i)), fullBeforeImage,
  };
}

class Feed {
  readonly changes: ClassChanges;

  constructor(plan: ClassPlan) {
    this.changes = new ClassChanges(plan);
  }

  add(op: number, next: readonly Cell[] | null, previous: readonly Cell[] | null): void {
    const parts = [next, previous].map((cells) => (cells === null ? Buffer.alloc(0) : tuple(cells)));
    this.changes.add(op, Buffer.concat(parts), next === null ? -1 : 0, previous === null ? -1 : parts[0]!.length);
  }

  row(offset: number): Cell[] {
    return rowValues(this.changes.rowBytes, offset).map((value) => (value == null ? value : value.toString()));
  }

  key(offset: number): Cell[] {
    return rowValues(this.changes.keyBytes, offset).map((value) => (value == null ? value : value.toString()));
  }
}

const step = fc.record({ kind: fc.constantFrom("insert", "update", "partial", "move", "movePartial", "delete"), key: fc.integer({ min: 0, max: 5 }), to: fc.integer({ min: 0, max: 5 }), value: fc.string({ maxLength: 60 }) });

/** Row: key k0, a value, k1 (so that the key is composite and not contiguous), a large column. */
const rowOf = (key: number, value: string, large: Cell): Cell[] => [`k${key}`, value, `m${key % 2}`, large];

test(`keyed classes, seed ${SEED}`, () => {
  fc.assert(fc.property(fc.array(step, { maxLength: 40 }), fc.integer({ min: 0, max: 63 }), (steps, initial) => {
    const source = new Map<string, Cell[]>();
    for (let key = 0; key < 6; key++) if ((initial >> key) & 1) source.set(`k${key}`, rowOf(key, "old", `large ${key}`));
    const target = new Map([...source].map(([key, row]) => [key, [...row]]));
    const feed = new Feed(planOf([0, 2], 4, false));
    for (const { kind, key, to, value } of steps) {
      const name = `k${key}`;
      const present = source.get(name);
      const keyTuple: Cell[] = [name, null, `m${key % 2}`, null];
      if (kind === "insert" && present === undefined) {
        const row = rowOf(key, value, value + value);
        source.set(name, row);
        feed.add(OP.insert, row, null);
      } else if (present === undefined) continue;
      else if (kind === "delete") {
        source.delete(name);
        feed.add(OP.delete, null, keyTuple);
      } else if (kind === "update" || kind === "partial") {
        const whole = rowOf(key, value, kind === "partial" ? present[3] : `new ${value}`);
        source.set(name, whole);
        feed.add(OP.update, kind === "partial" ? rowOf(key, value, undefined) : whole, null);
      } else if ((kind === "move" || kind === "movePartial") && !source.has(`k${to}`)) {
        const whole = rowOf(to, value, kind === "movePartial" ? present[3] : value);
        source.delete(name);
        source.set(`k${to}`, whole);
        feed.add(OP.update, kind === "movePartial" ? rowOf(to, value, undefined) : whole, keyTuple);
      }
    }
    const { changes } = feed;
    if (changes.ordered) return; // goes in log order: nothing is merged
    applySetwise(feed, target);
    expect(target).toEqual(source);
  }), { seed: SEED, numRuns: RUNS });
});

function applySetwise(feed: Feed, target: Map<string, Cell[]>): void {
  const { changes } = feed;
  if (changes.insertOnly) {
    for (let row = 0; row < changes.count; row++) put(target, feed.row(changes.rowAt(row)));
    return;
  }
  const { inserts, updates, partialUpdates, deletes } = changes.fates();
  for (const offset of deletes) expect(target.delete(String(feed.key(offset)[0]))).toBe(true);
  for (const row of [...updates, ...[...partialUpdates.values()].flat()]) {
    const next = feed.row(changes.rowAt(row));
    const present = target.get(String(next[0]));
    expect(present).toBeDefined();
    target.set(String(next[0]), next.map((cell, i) => (cell === undefined ? present![i] : cell)));
  }
  for (const row of inserts) put(target, feed.row(changes.rowAt(row)));
}

function put(target: Map<string, Cell[]>, row: Cell[]): void {
  expect(target.has(String(row[0]))).toBe(false);
  target.set(String(row[0]), row);
}

test(`classes without a key, seed ${SEED}`, () => {
  const change = fc.record({ kind: fc.constantFrom("insert", "update", "delete"), pick: fc.nat(), value: fc.constantFrom("a", "b", "", null) });
  fc.assert(fc.property(fc.array(change, { maxLength: 40 }), fc.array(fc.constantFrom("a", "b"), { maxLength: 6 }), (steps, initial) => {
    const source: Cell[][] = initial.map((value) => [value, "x"]);
    const target = source.map((row) => [...row]);
    const feed = new Feed(planOf([], 2, true));
    for (const { kind, pick, value } of steps) {
      const at = source.length === 0 ? -1 : pick % source.length;
      if (kind === "insert") {
        source.push([value, "x"]);
        feed.add(OP.insert, [value, "x"], null);
      } else if (at < 0) continue;
      else if (kind === "delete") feed.add(OP.delete, null, source.splice(at, 1)[0]!);
      else {
        const old = source[at]!;
        source[at] = [value, old[1]];
        feed.add(OP.update, [value, undefined], old); // the second column is UNCHANGED and comes from the before image
      }
    }
    const { changes } = feed;
    expect(changes.ordered).toBe(false);
    const fates = changes.insertOnly ? null : changes.fates();
    for (const offset of fates?.deletes ?? []) {
      const image = JSON.stringify(feed.key(offset));
      const found = target.findIndex((row) => JSON.stringify(row) === image);
      expect(found).toBeGreaterThanOrEqual(0);
      target.splice(found, 1);
    }
    for (const row of fates?.inserts ?? Array.from({ length: changes.count }, (_, i) => i)) target.push(feed.row(changes.rowAt(row)));
    const sorted = (rows: readonly Cell[][]): string[] => rows.map((row) => JSON.stringify(row)).toSorted();
    expect(sorted(target)).toEqual(sorted(source));
  }), { seed: SEED, numRuns: RUNS });
});
