import { createToken } from "../http/index.ts";
import { print, printJson } from "./shared.ts";

export interface TokenOptions {
  readonly role: string;
  readonly name: string;
  readonly days: string;
  readonly json?: boolean;
}

/** A new token, shown once, and the entry for the token file, which holds its hash only. */
export async function createTokenCommand(options: TokenOptions): Promise<void> {
  const { token, entry } = createToken(options.name, options.role, Number(options.days));
  if (options.json === true) printJson({ token, entry });
  else print(`# add this to the file of http.tokens:\n- name: ${JSON.stringify(entry.name)}\n  role: ${entry.role}\n  sha256: ${entry.sha256}\n  expires: ${entry.expires}\n\n# and keep this, it is not shown again (DUALRUN_TOKEN for commands, Authorization: Bearer for the API):\n${token}`);
}
