/** Daily reports as pages: a list, and one that prints well. */
import { STREAK_TARGET_DAYS, type ClassReport, type MoneyLine, type Pair, type Report, type ReportHead } from "../core/index.ts";
import { readFileSync } from "node:fs";
import { count, moment } from "./format.ts";
import { fact, stillPage, tableCard, type PageOptions } from "./frame.ts";
import { html, type Html } from "./html.ts";
import { verdictPill } from "./proof-pages.ts";

export function reportsPage(migration: string, heads: readonly ReportHead[], streak: number, mayPrepare: boolean, options: PageOptions): string {
  const state = (head: ReportHead): Html => html`${head.clean ? html`<strong class="pill good">clean</strong>` : html`<strong class="pill bad">not clean</strong>`}${head.late && html`<strong class="pill warn">late</strong>`}${head.provisional && html`<strong class="pill idle">provisional</strong>`}`;
  return stillPage("Reports", migration, "reports", options, html`
<section class="card line"><h2>Clean days in a row</h2><p class="figure">${count(streak)}<span class="unit"> of ${STREAK_TARGET_DAYS}</span></p>
${mayPrepare && html`<form method="post" action="/reports" class="inline"><label for="date">Business date</label> <input id="date" name="date" type="date" required> <button>Prepare report</button></form>`}</section>
${tableCard("reports", "Daily reconciliation", [["Business date", "l"], ["Version", "r"], ["State", "l"], ["Prepared", "l"], ["Signed by", "l"], ["", "l"]], heads.map((head) => html`<tr><th scope="row"><a href="/reports/${head.date}">${head.date}</a></th><td class="r">${head.version}</td><td>${state(head)}</td>
<td><time datetime="${head.createdAt}">${moment(head.createdAt)}</time></td><td>${head.signedBy ?? html`<span class="muted">not signed</span>`}</td><td>${["pdf", "csv", "json"].map((format) => html`<a href="/api/v1/reports/${head.date}?format=${format}">${format.toUpperCase()}</a> `)}</td></tr>`), "None yet. The report of a day is prepared at the daily cut-off, or here.")}`);
}

/** With `options` a page of the console; with null a document that stands alone. */
export function reportPage(report: Report, options: (PageOptions & { readonly maySign: boolean }) | null): string {
  const { document } = report;
  const content = html`${headCard(report)}
${document.classes.map(classCard)}
${tableCard("breaks", "Open breaks", [["Break", "l"], ["Class", "l"], ["Category", "l"], ["Rows", "r"], ["Open since", "l"], ["Owner", "l"]], document.breaks.map((one) => html`<tr><th scope="row">${one.id}</th><td>${one.class}</td><td>${one.category}</td><td class="r">${count(one.rows)}</td><td>${moment(one.openedAt)}</td><td>${one.owner}</td></tr>`), "None.")}
${options?.maySign === true && report.signOff === null && !document.provisional && signCard(report)}
<p class="small muted hashes">SHA-256 <code>${report.hash}</code><br>report before <code>${document.previousHash ?? "none"}</code><br>audit trail <code>${document.auditHead ?? "none"}</code></p>`;
  if (options !== null) return stillPage(`Report ${document.date}`, document.migration, "reports", options, content);
  return html`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Daily reconciliation ${document.date}, ${document.migration}</title><style>${STYLE}</style></head><body><main>${content}</main></body></html>`.toString();
}

/** The console's style, without which the document could not be kept. It holds nothing that HTML would read. */
const STYLE = readFileSync(new URL("./assets/page.css", import.meta.url), "utf8").replaceAll(/[<>&]/g, (character) => (character === ">" ? ">" : ""));

function headCard({ document, signOff }: Report): Html {
  return html`<section class="card"><h2>Daily reconciliation</h2><p class="figure">${document.date}</p>
<p>${document.clean ? html`<strong class="pill good">clean</strong>` : html`<strong class="pill bad">not clean</strong>`}${document.late && html`<strong class="pill warn">late: compared more than a day after the cut-off</strong>`}${document.provisional && html`<strong class="pill warn">provisional: the day was not over</strong>`}
${signOff === null ? html`<strong class="pill idle">not signed</strong>` : html`<strong class="pill good">signed by ${signOff.approver}</strong>`}</p>
<dl class="facts">${fact("Version", String(document.version))}${fact("Cut", moment(document.comparison.at))}${fact("Comparison", html`<a href="/comparisons/${document.comparison.id}">${document.comparison.id}</a>${document.comparison.full && ", full"}`)}
${fact("Position of the source", html`<code>${document.comparison.sourcePosition}</code>`)}${fact("Position of the target", html`<code>${document.comparison.targetPosition}</code>`)}${fact("Cut-off", html`${moment(document.cutOff)} (${document.zone}, zone data ${document.zoneData})`)}
${fact("Clean days in a row before", String(document.cleanStreak))}${fact("Lag", document.lagSeconds === null ? "not measured" : `${document.lagSeconds.toFixed(1)} s`)}${fact("Prepared by", html`<bdi>${document.preparer}</bdi>, ${moment(document.createdAt)}`)}
${signOff !== null && fact("Approved by", html`<bdi>${signOff.approver}</bdi>${signOff.onBehalfOf !== null && html` for <bdi>${signOff.onBehalfOf}</bdi>`}, ${moment(signOff.at)}: ${signOff.note}`)}${fact("Configuration", html`<code>${document.configuration.slice(0, 16)}</code>, dualrun ${document.program}`)}</dl></section>`;
}

function classCard(cls: ClassReport, i: number): Html {
  const row = (name: Html | string, { source, target }: Pair, difference: string, strong = false): Html => html`<tr><th scope="row">${strong ? name : html`<span class="muted">${name}</span>`}</th><td class="r">${source}</td><td class="r">${target}</td><td class="r${/[1-9]/.test(difference) ? " bad" : ""}">${difference}</td></tr>`;
  const money = (one: MoneyLine): Html[] => [
    row(html`${one.column} ${one.currency ?? "without currency"}: opening`, one.opening, ""), row("movements", one.movements, ""),
    ...(/[1-9]/.test(one.backdated.source + one.backdated.target) ? [row("backdated movements", one.backdated, "")] : []),
    row(html`${one.column} ${one.currency ?? "without currency"}: closing`, one.closing, one.difference, true),
    ...(one.bank === null ? [] : [row(`bank, tolerance ${one.bank.tolerance}${one.bank.within ? "" : " exceeded"}`, { source: "", target: one.bank.total }, one.bank.difference)]),
  ];
  return html`${tableCard(`class-${i}`, html`<bdi>${cls.class}</bdi> ${verdictPill(cls.verdict)}`, [["", "l"], ["Source", "r"], ["Target", "r"], ["Difference", "r"]], [
    row("records", cls.records, cls.difference, true), ...(cls.dated === null ? [] : [row("dated on the day", cls.dated, "")]), ...(cls.undated === null ? [] : [row("without a date", cls.undated, "")]), ...cls.money.flatMap(money),
    ...cls.excluded.map(({ reason, rows }) => html`<tr><th scope="row" colspan="4">excluded: ${rows} ${reason}</th></tr>`),
  ], "")}`;
}

function signCard({ document, hash }: Report): Html {
  return html`<section class="card sign"><h2>Sign-off</h2><form method="post" action="/reports/${document.date}/sign-off"><input type="hidden" name="hash" value="${hash}">
<label for="note">Note</label> <input id="note" name="note" required maxlength="2000"> <label for="for">On behalf of (only when standing in)</label> <input id="for" name="onBehalfOf" maxlength="200"> <button>Approve this report</button></form></section>`;
}
