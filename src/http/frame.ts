/** What every page has: head, brand, navigation, and the small parts that pages are made of. */
import { percent } from "./format.ts";
import { html, type Html, type Value } from "./html.ts";

export interface PageOptions {
  /** Address of an asset, with its version. */
  readonly asset: (name: string) => string;
  /** Who is signed in; null where no token is asked for. */
  readonly who: string | null;
}

export type Tone = "good" | "busy" | "warn" | "bad" | "idle";

export type Place = "overview" | "comparisons" | "breaks" | "reports";

const PLACES: readonly (readonly [Place, string, string])[] = [["overview", "/", "Overview"], ["comparisons", "/comparisons", "Comparisons"], ["breaks", "/breaks", "Breaks"], ["reports", "/reports", "Reports"]];

/** A whole document; `live` pages exchange their regions by script. */
export function page(title: string, options: PageOptions, live: boolean, body: Html): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<link rel="icon" href="${options.asset("icon.svg")}" type="image/svg+xml">
<link rel="stylesheet" href="${options.asset("page.css")}">
${live && html`<noscript><meta http-equiv="refresh" content="5"></noscript>
<script src="${options.asset("page.js")}" defer></script>`}
</head>
${body}
</html>
`.toString();
}

export function brand(asset: PageOptions["asset"]): Html {
  return html`<span class="brand"><img src="${asset("icon.svg")}" alt="" width="28" height="28">dualrun</span>`;
}

/** Brand, migration and the ways to the other pages. */
export function topBar(migration: string, here: Place | null, options: PageOptions): Html {
  return html`${brand(options.asset)}
<h1><span class="muted">Migration</span> <bdi>${migration}</bdi></h1>
<nav class="places" aria-label="Pages">${PLACES.map(([name, address, title]) => html`<a href="${address}"${name === here && html` aria-current="page"`}>${title}</a>`)}</nav>`;
}

/** A page that is looked at and not followed. */
export function stillPage(title: string, migration: string, here: Place | null, options: PageOptions, content: Html): string {
  return page(`${title} · ${migration} · dualrun`, options, false, html`<body>
<header>${topBar(migration, here, options)}</header>
<main>${content}</main>
<footer><nav aria-label="More"><a href="/runbook">Runbook</a><a href="/openapi.json">OpenAPI</a><a href="/metrics">Metrics</a></nav><p class="muted">${options.who !== null && html`<bdi>${options.who}</bdi>`}</p></footer>
</body>`);
}

/** A table in a card; it scrolls within the card where it is wide. `id` must be unique on the page. */
export function tableCard(id: string, title: Value, head: readonly (readonly [string, "l" | "r"])[], rows: readonly Html[], empty: string): Html {
  return html`<section class="card table" aria-labelledby="${id}">
<h2 id="${id}">${title}</h2>
${rows.length === 0
    ? html`<p class="muted">${empty}</p>`
    : html`<div class="scroll" tabindex="0" role="region" aria-labelledby="${id}"><table>
<thead><tr>${head.map(([name, side]) => html`<th scope="col"${side === "r" && html` class="r"`}>${name}</th>`)}</tr></thead>
<tbody>${rows}</tbody>
</table></div>`}
</section>`;
}

/** Text in which \`commands\` stand in backticks. */
export function withCode(text: string): Html {
  return html`${text.split("`").map((part, i) => (i % 2 === 1 ? html`<code>${part}</code>` : part))}`;
}

export function bar(label: string, value: number, whole: number): Html {
  return html`<progress aria-label="${label}" max="${Math.max(whole, value, 1)}" value="${whole === 0 ? 1 : value}">${percent(value, whole)}</progress>`;
}

export function fact(name: string, value: Value, className = ""): Html {
  return html`<div><dt>${name}</dt><dd${className !== "" && html` class="${className}"`}>${value}</dd></div>`;
}
