/** A process that fills a journal until it is killed: `node journal-writer.ts PATH FIRST COUNT`. Says on stdout what is durable. */
import { writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { openJournal } from "../../connectors/registry.ts";
import { lsnPositions } from "../../connectors/postgres/lsn.ts";
import { TABLES, at, inBlocks, insert, transaction, update, type Entry } from "./history.ts";

/** Transaction `number` of the history that every writer writes: each of another size, every seventh a large one. */
export function nth(number: number): Entry[] {
  const rows = number % 7 === 0 ? 400 : 1 + (number % 3);
  return transaction(number * 10, ...Array.from({ length: rows }, (_, i) => (i % 2 === 0 ? insert(number * 1000 + i, `note of ${number}`.repeat(1 + (i % 20))) : update(i, undefined))));
}

if (import.meta.main) {
  const [path, first, count] = process.argv.slice(2);
  const journal = (await openJournal({ kind: "sqlite", path: path!, maxBytes: 1 << 30, key: null }, "m token", lsnPositions))!;
  if (journal.durable() === null) await journal.begin(at(5));
  await journal.cutOff();
  const entries = Array.from({ length: Number(count) }, (_, i) => nth(Number(first) + i)).flat();
  const blocks = inBlocks(entries, [3, 50, 1, 7]);
  for (let from = 0; from < blocks.length; from += 10) {
    await Promise.all(blocks.slice(from, from + 10).map((block) => journal.append(block, TABLES)));
    writeSync(1, `${journal.durable()}\n`);
    await journal.trim(at(Math.max(5, parseInt(journal.durable()!.slice(2), 16) - 500)));
    await sleep(2);
  }
  await journal[Symbol.asyncDispose]();
}
