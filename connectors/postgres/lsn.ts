/** PostgreSQL log positions. */
import type { Position, Positions, Relation } from "../../src/core/index.ts";

export function formatLsn(high: number, low: number): Position {
  return `${high.toString(16).toUpperCase()}/${low.toString(16).toUpperCase()}` as Position;
}

export function lsnToBigInt(lsn: string): bigint {
  const slash = lsn.indexOf("/");
  return (BigInt(`0x${lsn.slice(0, slash)}`) << 32n) | BigInt(`0x${lsn.slice(slash + 1)}`);
}

export const lsnPositions: Positions = {
  relate(a: Position, b: Position): Relation {
    const left = lsnToBigInt(a);
    const right = lsnToBigInt(b);
    return left < right ? "before" : left > right ? "after" : "equal";
  },
  distance(from: Position, to: Position): number {
    return Number(lsnToBigInt(to) - lsnToBigInt(from));
  },
};
