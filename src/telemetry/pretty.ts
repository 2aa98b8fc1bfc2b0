import type { DestinationStream } from "pino";
import { prettyFactory } from "pino-pretty";

/** Takes JSON lines and writes readable ones at once, so that the last line before an exit is not lost. */
export function pretty(out: DestinationStream): DestinationStream {
  const readable = prettyFactory({
    colorize: process.stdout.isTTY === true && process.env["NO_COLOR"] === undefined,
    translateTime: "SYS:HH:MM:ss.l",
    singleLine: true,
  });
  return { write: (line) => out.write(readable(line)) };
}
