/** What every engine's change stream is made of: growing entries, and the queue between the socket and the pipeline. */
import { ENTRY_WORDS, type ChangeBlock } from "./ports.ts";

/** The entries of a block while it is being decoded. */
export class EntryWords {
  words: Int32Array;
  count = 0;

  constructor(capacity: number) {
    this.words = new Int32Array(capacity * ENTRY_WORDS);
  }

  add(kind: number, table: number, next: number, previous: number): void {
    const at = this.count * ENTRY_WORDS;
    if (at === this.words.length) {
      const grown = new Int32Array(this.words.length * 2);
      grown.set(this.words);
      this.words = grown;
    }
    this.words[at] = kind;
    this.words[at + 1] = table;
    this.words[at + 2] = next;
    this.words[at + 3] = previous;
    this.count += 1;
  }
}

/** Blocks that wait for the pipeline. Above `most` bytes nothing more should be read, until half of it is gone. */
export class BlockQueue {
  private readonly waiting: { readonly block: ChangeBlock; readonly bytes: number }[] = [];
  private readonly most: number;
  private readonly onRoom: () => void;
  private bytes = 0;
  private ended = false;
  private wake: () => void = () => undefined;

  constructor(most: number, onRoom: () => void) {
    this.most = most;
    this.onRoom = onRoom;
  }

  get isFull(): boolean {
    return this.bytes > this.most;
  }

  push(block: ChangeBlock, bytes: number): void {
    this.waiting.push({ block, bytes });
    this.bytes += bytes;
    this.wake();
  }

  /** What waits is still handed out. */
  end(): void {
    this.ended = true;
    this.wake();
  }

  async *blocks(): AsyncGenerator<ChangeBlock, void, undefined> {
    for (;;) {
      const next = this.waiting.shift();
      if (next !== undefined) {
        this.bytes -= next.bytes;
        if (this.bytes <= this.most / 2) this.onRoom();
        yield next.block;
      } else if (this.ended) return;
      else await new Promise<void>((resolve) => (this.wake = resolve));
    }
  }
}
