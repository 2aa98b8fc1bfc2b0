/** dashboards/RUNBOOK.md as a page: where alerts and panels lead. */
import { readFileSync } from "node:fs";
import { lexer, type Token, type Tokens } from "marked";
import { stillPage, withCode, type PageOptions } from "./frame.ts";
import { html, type Html } from "./html.ts";

const RUNBOOK = new URL("../../dashboards/RUNBOOK.md", import.meta.url);

export function runbookPage(migration: string, options: PageOptions): string {
  return stillPage("Runbook", migration, null, options, html`<section class="card prose">${lexer(readFileSync(RUNBOOK, "utf8")).map(block)}</section>`);
}

function block(token: Token): Html {
  switch (token.type) {
    case "heading": return heading(token as Tokens.Heading);
    case "paragraph": return html`<p>${withCode(token.raw.trim())}</p>`;
    case "list": return list(token as Tokens.List);
    case "code": return html`<pre><code>${(token as Tokens.Code).text}</code></pre>`;
    default: return html``;
  }
}

/** Sections are named as their alerts, in lower case. */
function heading({ depth, text }: Tokens.Heading): Html {
  return depth === 1 ? html`<h2>${text}</h2>` : html`<h3 id="${text.toLowerCase()}">${text}</h3>`;
}

function list({ ordered, items }: Tokens.List): Html {
  const lines = items.map((item) => html`<li>${withCode(item.text)}</li>`);
  return ordered ? html`<ol>${lines}</ol>` : html`<ul>${lines}</ul>`;
}
