import { Writable } from "node:stream";
import type { DestinationStream } from "pino";
import { build } from "pino-pretty";

/** A stream that takes JSON lines and writes readable ones. */
export function pretty(out: DestinationStream): DestinationStream {
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      out.write(chunk.toString());
      done();
    },
  });
  return build({ destination: sink, colorize: process.stdout.isTTY === true && process.env["NO_COLOR"] === undefined, translateTime: "SYS:HH:MM:ss.l", ignore: "pid,hostname", singleLine: true });
}
