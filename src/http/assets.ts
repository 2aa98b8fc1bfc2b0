/** The pages' own files, read once. Only these names are served: no path comes from a request. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const TYPES = {
  "page.css": "text/css; charset=utf-8",
  "page.js": "text/javascript; charset=utf-8",
  "icon.svg": "image/svg+xml; charset=utf-8",
} as const;

export interface Asset {
  readonly name: string;
  readonly type: string;
  readonly content: Buffer;
  readonly etag: string;
  /** With its content's hash, so that a browser never shows an old one. */
  readonly address: string;
}

export function loadAssets(): ReadonlyMap<string, Asset> {
  return new Map(Object.entries(TYPES).map(([name, type]) => [name, loadAsset(name, type)]));
}

function loadAsset(name: string, type: string): Asset {
  const content = readFileSync(new URL(`./assets/${name}`, import.meta.url));
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 16);
  return { name, type, content, etag: `"${hash}"`, address: `/assets/${name}?v=${hash}` };
}
