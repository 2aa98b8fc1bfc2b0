/**
 * CopyData frames straight from the socket.
 *
 * The driver makes an object and a copy of every message; a row stream has millions of them.
 * While a tap is attached, frames of type CopyData go to it as they lie in the received chunk,
 * and every other message goes to the driver unchanged.
 */
import type { Socket } from "node:net";
import type pg from "pg";

const COPY_DATA = 0x64;
const HEADER = 5;

/** The driver's parts that are used here and that its types do not show. */
export interface DriverConnection {
  readonly stream: Socket;
  sendCopyFromChunk(chunk: Buffer): void;
  endCopyFrom(): void;
  sendCopyFail(message: string): void;
  query(text: string): void;
  removeAllListeners(): void;
}

export function driverConnection(client: pg.Client): DriverConnection {
  return (client as unknown as { connection: DriverConnection }).connection;
}

type DataListener = (chunk: Buffer) => void;

/** Puts `onData` between socket and driver. Only while the connection is idle, when the driver holds no partial message. */
function interpose(socket: Socket, make: (driver: DataListener) => DataListener): () => void {
  const [driver, ...others] = socket.listeners("data") as DataListener[];
  if (driver === undefined || others.length > 0) throw new Error("the driver's data listener was not found");
  const own = make(driver);
  socket.removeListener("data", driver);
  socket.on("data", own);
  return () => {
    socket.removeListener("data", own);
    socket.on("data", driver);
  };
}

/** Receives whole CopyData frames: those that start in [from, to) of `chunk`, back to back, headers included. */
export type FramesListener = (chunk: Buffer, from: number, to: number) => void;

/** Delivers whole frames; a frame that spans chunks is put together first. */
export function tapWholeFrames(socket: Socket, listener: FramesListener): () => void {
  return interpose(socket, (driver) => {
    let parts: Buffer[] = [];
    let held = 0;
    let wanted = 0;
    return (chunk) => {
      if (held > 0) {
        parts.push(chunk);
        held += chunk.length;
        if (held < wanted) return;
        chunk = Buffer.concat(parts, held);
        parts = [];
        held = 0;
      }
      const rest = deliver(chunk, listener, driver);
      if (rest === chunk.length) return;
      parts = [rest === 0 ? chunk : chunk.subarray(rest)];
      held = chunk.length - rest;
      wanted = held < HEADER ? HEADER : 1 + chunk.readInt32BE(rest + 1);
    };
  });
}

/** Returns the offset of the first frame that is not complete. */
function deliver(chunk: Buffer, listener: FramesListener, driver: DataListener): number {
  let from = 0;
  let at = 0;
  while (at + HEADER <= chunk.length) {
    const end = at + 1 + chunk.readInt32BE(at + 1);
    if (end > chunk.length) break;
    if (chunk[at] !== COPY_DATA) {
      if (from < at) listener(chunk, from, at);
      driver(chunk.subarray(at, end));
      from = end;
    }
    at = end;
  }
  if (from < at) listener(chunk, from, at);
  return at;
}

/** Receives CopyData bytes as they come, frames not put together; `rows` frames started in them. */
export type BytesListener = (bytes: Buffer, rows: number) => void;

/** Delivers bytes without looking at more than the frame headers: a copy from one socket to another. */
export function tapBytes(socket: Socket, listener: BytesListener): () => void {
  return interpose(socket, (driver) => {
    let left = 0; // bytes of the current frame that are still to come
    let ours = true; // whom the current frame belongs to
    let header = Buffer.alloc(0);
    return (received) => {
      const chunk = header.length > 0 ? Buffer.concat([header, received]) : received;
      header = Buffer.alloc(0);
      let from = 0;
      let rows = 0;
      const handOver = (to: number): void => {
        if (from < to) {
          if (ours) listener(chunk.subarray(from, to), rows);
          else driver(chunk.subarray(from, to));
        }
        from = to;
        rows = 0;
      };
      let at = Math.min(left, chunk.length);
      left -= at;
      while (at < chunk.length) {
        const isOurs = chunk[at] === COPY_DATA;
        if (isOurs !== ours) handOver(at);
        if (at + HEADER > chunk.length) {
          handOver(at);
          header = Buffer.from(chunk.subarray(at));
          return;
        }
        ours = isOurs;
        rows += 1;
        const end = at + 1 + chunk.readInt32BE(at + 1);
        left = Math.max(0, end - chunk.length);
        at = Math.min(end, chunk.length);
      }
      handOver(at);
    };
  });
}
