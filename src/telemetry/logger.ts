/** Logs as JSON lines, or readable ones on a terminal. No secret and no row value leaves through here. */
import { pino, type DestinationStream, type LogFn, type Logger as PinoLogger, type LoggerOptions as PinoOptions } from "pino";
import { pretty as prettyStream } from "./pretty.ts";
import { asFacts, safeMessage } from "./error-facts.ts";

export type Logger = PinoLogger;

export interface LoggerOptions {
  readonly level: "trace" | "debug" | "info" | "warn" | "error" | "silent";
  /** Lines for people; default: when standard output is a terminal. */
  readonly pretty?: boolean | undefined;
  /** Default: standard output. */
  readonly destination?: DestinationStream;
}

const CENSORED = "[redacted]";
const SECRET_KEYS = ["url", "password", "pass", "secret", "token", "authorization", "cookie", "connectionString"];
const DEPTH = 4;

/** Paths of secret fields at any of the first levels: `url`, `*.url`, `*.*.url`, … */
function secretPaths(): string[] {
  return Array.from({ length: DEPTH }, (_, depth) => SECRET_KEYS.map((key) => "*.".repeat(depth) + key)).flat();
}

/** A piece of a JSON string, escapes included, up to white space or the string's end. */
const SOLID = String.raw`(?:[^\s"\\]|\\["\\/bfu])`;
const CREDENTIALS = new RegExp(String.raw`\b([a-z][a-z0-9+.-]*://)([^\s"\\@:/]*):${SOLID}*@`, "gi");
const ASSIGNED = new RegExp(String.raw`\b((?:ssl)?password\s*=\s*)(?:'[^'"]*'|(?:(?!&)${SOLID})+)`, "gi");
const BEARER = /\b(bearer\s+)[\w.~+/=-]+/gi;

/** Takes credentials out of a text: addresses with a password, `password=…`, bearer tokens. Valid JSON stays valid JSON. */
export function scrub(text: string): string {
  return text.replace(CREDENTIALS, `$1$2:${CENSORED}@`).replace(ASSIGNED, `$1${CENSORED}`).replace(BEARER, `$1${CENSORED}`);
}

export function createLogger({ level, pretty = process.stdout.isTTY, destination }: LoggerOptions): Logger {
  const options: PinoOptions = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: secretPaths(), censor: CENSORED },
    serializers: { err: asFacts, error: asFacts },
    hooks: {
      streamWrite: scrub,
      logMethod(given, method) {
        method.apply(this, withMessage(given));
      },
    },
  };
  const out = destination ?? pino.destination(1);
  return pino(options, pretty ? prettyStream(out) : out);
}

/** Without a message of its own a line takes the error's; pino would take it as it is. */
function withMessage(given: Parameters<LogFn>): Parameters<LogFn> {
  const [first, message] = given as [unknown, unknown];
  const error = first instanceof Error ? first : (first as { err?: unknown } | null | undefined)?.err;
  return message === undefined && error instanceof Error ? [first, safeMessage(error)] : given;
}
