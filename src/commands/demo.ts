import { DualrunError } from "../core/index.ts";
import { runDemo } from "../demo/index.ts";

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** The whole thing on two servers of its own. */
export async function demo(options: { readonly from: string; readonly to: string; readonly for?: string; readonly port: string; readonly rate: string; readonly drift?: boolean; readonly json?: boolean }): Promise<void> {
  process.exitCode = await runDemo({
    from: options.from,
    to: options.to,
    forMs: options.for === undefined ? null : milliseconds(options.for),
    port: whole(options.port, "--port"),
    rate: whole(options.rate, "--rate"),
    json: options.json === true,
    drift: options.drift === true,
  });
}

function milliseconds(text: string): number {
  const match = /^(\d+)(ms|s|m|h)$/.exec(text);
  if (match === null) throw new DualrunError("DR1004", `--for takes a duration like 60s, not "${text}"`);
  return Number(match[1]) * UNITS[match[2]!]!;
}

function whole(text: string, option: string): number {
  if (!/^\d{1,5}$/.test(text)) throw new DualrunError("DR1004", `${option} takes a whole number, not "${text}"`);
  return Number(text);
}
