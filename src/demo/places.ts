/** Where servers of our own live: whom they run as, directories, ports. */
import { randomInt } from "node:crypto";
import { access, chmod, mkdtemp, readdir, realpath, stat } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** The only address that servers of our own listen on. */
export const HOST = "127.0.0.1";

const NOBODY: Owner = { uid: 65534, gid: 65534 };

/** Whom a server runs as: a Unix user and group. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Null when the server can run as we do. */
export function serverOwner(wanted: Owner | undefined): Owner | null {
  return process.getuid?.() === 0 ? (wanted ?? NOBODY) : null;
}

/** A temporary directory that other users can pass through (to what is theirs in it) when we are root, and nobody else otherwise. */
export async function privateDirectory(prefix: string): Promise<string> {
  const root = process.getuid?.() === 0;
  const directory = await mkdtemp(join(root && !(await everyoneReaches(tmpdir())) ? "/tmp" : tmpdir(), prefix));
  if (root) await chmod(directory, 0o711);
  return directory;
}

/** Whether users without rights of their own can pass through to `path`. */
export async function everyoneReaches(path: string): Promise<boolean> {
  const real = await realpath(path);
  const passable = ((await stat(real)).mode & 0o001) !== 0;
  return passable && (real === dirname(real) || everyoneReaches(dirname(real)));
}

/** Lets everyone read what is in `directory`, and run what can be run. */
export async function makeReadable(directory: string): Promise<void> {
  await chmod(directory, 0o755);
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await makeReadable(path);
    else if (entry.isFile()) await chmod(path, ((await stat(path)).mode & 0o100) === 0 ? 0o644 : 0o755);
  }
}

/** Below the ephemeral range, so that no outgoing connection takes it while the server is down. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    if (await portIsFree(port)) return port;
  }
}

/** Whether a server can listen on a loopback port. */
export function portIsFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen({ host: HOST, port, exclusive: true }, () => probe.close(() => resolve(true)));
  });
}

/** Whether we may access `path`; `mode` as in `fs.constants`. */
export function allowed(path: string, mode: number): Promise<boolean> {
  return access(path, mode).then(() => true, () => false);
}

/** For `.catch`: null for the given error codes, any other error is thrown. */
export function ignoring(...codes: readonly string[]): (error: unknown) => null {
  return (error) => {
    if (codes.includes((error as NodeJS.ErrnoException).code ?? "")) return null;
    throw error;
  };
}

/** For `.catch`: null for what is not there. */
export const missing = ignoring("ENOENT", "ENOTDIR");
