/** Comparisons, classes and breaks as pages. They work without scripts; forms are ordinary forms. */
import { BREAK_CATEGORIES, type BreakDocument, type ClassComparison, type ComparisonDocument, type DayComparison, type DiffDocument, type MoneyComparison, type ProofState, type Verdict } from "../core/index.ts";
import { count, duration, moment } from "./format.ts";
import { fact, stillPage, tableCard, type PageOptions, type Tone } from "./frame.ts";
import { html, type Html, type Value } from "./html.ts";

const TONES: Readonly<Record<Verdict, Tone>> = { in_sync: "good", in_flight: "warn", confirmed_out_of_sync: "bad", not_comparable: "idle" };
const DAYS_SHOWN = 31;

export function verdictPill(verdict: Verdict): Html {
  return html`<strong class="pill ${TONES[verdict]}">${verdict.replaceAll("_", " ")}</strong>`;
}

const figure = (text: string | null): string => (text === null ? "–" : BigInt(text).toLocaleString("en"));
const time = (iso: string | null): Value => (iso === null ? "–" : html`<time datetime="${iso}">${moment(iso)}</time>`);
const isNonZero = (text: string): boolean => /[1-9]/.test(text);

// ------------------------------------------------------------ comparisons

export function comparisonsPage(migration: string, state: ProofState, list: readonly ComparisonDocument[], mayAct: boolean, options: PageOptions): string {
  const rows = list.map((one) => html`<tr><th scope="row"><a href="/comparisons/${one.id}">${one.id}</a> <span class="kind">${one.kind}${one.full && ", full"}</span></th>
<td>${time(one.startedAt)}</td><td>${one.finishedAt === null ? html`<strong class="pill busy">running</strong>` : verdictPill(one.verdict)}</td><td class="r">${one.seconds.toFixed(1)} s</td><td class="r">${one.holdMs === null ? "–" : `${one.holdMs.toFixed(0)} ms`}</td><td><code>${one.position ?? "–"}</code></td></tr>`);
  return stillPage("Comparisons", migration, "comparisons", options, html`
<section class="card line"><h2>Proof</h2><p>${state.runningSince !== null ? html`comparing since ${time(state.runningSince)}` : html`next comparison ${time(state.nextAt)}`}</p>
${mayAct && html`<form method="post" action="/comparisons"><button>Compare now</button> <label class="small"><input type="checkbox" name="full" value="true"> every value of every row</label></form>`}</section>
${latestTable(state)}
${tableCard("history", "History", [["Comparison", "l"], ["Begun", "l"], ["Verdict", "l"], ["Took", "r"], ["Applier held", "r"], ["Position", "l"]], rows, "Nothing was compared yet.")}`);
}

const SPARK = { width: 96, height: 20 };

/** How the number of records went over the last comparisons; it breaks where the class was not looked at. The figures stand beside it. */
function sparkline(values: readonly (number | null)[]): Html {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return html`<span class="muted">–</span>`;
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const x = (i: number): string => ((i * SPARK.width) / (values.length - 1)).toFixed(1);
  const y = (value: number): string => (SPARK.height - 2 - (most === least ? 0.5 : (value - least) / (most - least)) * (SPARK.height - 4)).toFixed(1);
  const path = values.map((value, i) => (value === null ? "" : `${i === 0 || values[i - 1] === null ? "M" : "L"}${x(i)},${y(value)}`)).join("");
  const first = known[0]!, last = known.at(-1)!;
  return html`<svg class="spark" viewBox="0 0 ${SPARK.width} ${SPARK.height}" width="${SPARK.width}" height="${SPARK.height}" role="img" aria-label="${count(first)} to ${count(last)} records in ${known.length} comparisons"><path class="line" d="${path}"/></svg>`;
}

function latestTable({ classes, trends }: ProofState): Html {
  return tableCard("latest", "Latest result of each class", [...CLASS_HEAD, ["Records lately", "l"]], classes.map((result) => classRow(result, html`<td>${sparkline(trends.get(result.class) ?? [])}</td>`)), "Nothing was compared yet.");
}

const CLASS_HEAD: readonly (readonly [string, "l" | "r"])[] = [["Class", "l"], ["Verdict", "l"], ["Source", "r"], ["Target", "r"], ["Difference", "r"], ["Money that differs", "l"], ["Proven since", "l"]];

function classRow(result: ClassComparison, more: Html | null = null): Html {
  const money = result.money.filter(({ difference }) => isNonZero(difference)).map(({ column, difference, currency }) => `${column} ${difference} ${currency ?? ""}`);
  return html`<tr><th scope="row"><a href="/classes/${encodeURIComponent(result.class)}"><bdi>${result.class}</bdi></a></th><td>${verdictPill(result.verdict)}${result.note !== null && html`<span class="tables">${result.note}</span>`}</td>
<td class="r">${figure(result.sourceRows)}</td><td class="r">${figure(result.targetRows)}</td><td class="r${result.difference !== null && isNonZero(result.difference) ? " bad" : ""}">${figure(result.difference)}</td>
<td class="${money.length > 0 ? "bad" : "muted"}">${money.length === 0 ? "none" : money.join("; ")}</td><td>${time(result.provenSince)}</td>${more}</tr>`;
}

export function comparisonPage(migration: string, document: ComparisonDocument, options: PageOptions): string {
  return stillPage(`Comparison ${document.id}`, migration, "comparisons", options, html`
<section class="card"><h2>Comparison ${document.id}</h2><p>${document.finishedAt === null ? html`<strong class="pill busy">running</strong>` : verdictPill(document.verdict)}</p>
<dl class="facts">${fact("Begun", time(document.startedAt))}${fact("Cut", time(document.cutAt))}${fact("Position", html`<code>${document.position ?? "–"}</code>`)}${fact("Kind", `${document.kind}${document.full ? ", full" : ""}`)}${fact("Took", `${document.seconds.toFixed(1)} s`)}${fact("Cut by", document.cutBy ?? "–")}${fact("Applier held", document.holdMs === null ? "–" : `${document.holdMs.toFixed(0)} ms`)}${fact("Until the mirror came to it", document.waitMs == null ? "–" : `${document.waitMs.toFixed(0)} ms`)}</dl></section>
${tableCard("classes", "Classes", CLASS_HEAD, document.classes.map((result) => classRow(result)), "It has no result.")}
${document.classes.filter(({ rows }) => rows.length > 0).map((result, i) => differenceTable(result, i))}`);
}

function differenceTable({ class: name, rows, differences }: ClassComparison, i: number): Html {
  const total = differences.missing + differences.extra + differences.mismatched;
  return tableCard(`rows-${i}`, html`<bdi>${name}</bdi>: ${count(total)} rows differ${!differences.complete && ", and more"}`, [["Row", "l"], ["Kind", "l"], ["Columns", "l"], ["Category", "l"]],
    rows.slice(0, 200).map((row) => html`<tr><th scope="row"><code>${row.keyHash}</code></th><td>${row.kind}${row.times > 1 && ` ×${row.times}`}</td><td>${row.columns.join(", ")}</td><td>${row.category}</td></tr>`), "");
}

// ------------------------------------------------------------ one class

export function classPage(migration: string, result: ClassComparison, history: readonly ComparisonDocument[], diff: DiffDocument | null, mayAct: boolean, options: PageOptions): string {
  return stillPage(result.class, migration, "comparisons", options, html`
<section class="card"><h2>Class <bdi>${result.class}</bdi></h2><p>${verdictPill(result.verdict)}${result.note}</p>
<dl class="facts">${fact("Records on the source", figure(result.sourceRows))}${fact("Records on the target", figure(result.targetRows))}${fact("Difference", figure(result.difference), result.difference !== null && isNonZero(result.difference) ? "bad" : "")}
${fact("Compared at", time(result.at))}${fact("Every value proven since", time(result.provenSince))}${fact("Rows compared by value", figure(result.hashedRows))}</dl>
${mayAct && html`<p><a href="/classes/${encodeURIComponent(result.class)}?rows=1">Show the rows that differ now</a> (sensitive values are masked)</p>`}</section>
${diff !== null && diffCard(diff)}
${moneyTable(result.money)}
${daysTable(result.days)}
${tableCard("history", "History", [["Comparison", "l"], ["At", "l"], ["Verdict", "l"], ["Source", "r"], ["Target", "r"]],
    history.flatMap((one) => one.classes.map((cls) => html`<tr><th scope="row"><a href="/comparisons/${one.id}">${one.id}</a></th><td>${time(cls.at)}</td><td>${verdictPill(cls.verdict)}</td><td class="r">${figure(cls.sourceRows)}</td><td class="r">${figure(cls.targetRows)}</td></tr>`)), "None.")}`);
}

function moneyTable(money: readonly MoneyComparison[]): Html {
  const special = ({ nulls, nan, infinite, negativeInfinite }: MoneyComparison["sourceSpecial"]): string => [["NULL", nulls], ["NaN", nan], ["∞", infinite], ["−∞", negativeInfinite]].filter(([, n]) => n !== "0").map(([name, n]) => `${name} ${n}`).join(", ") || "none";
  return money.length === 0 ? html`` : tableCard("money", "Money", [["Column", "l"], ["Currency", "l"], ["Source", "r"], ["Target", "r"], ["Difference", "r"], ["Smallest to largest", "r"], ["Not summed", "l"]], money.map((one) => html`<tr><th scope="row"><bdi>${one.column}</bdi></th>
<td>${one.currency ?? html`<em>no currency</em>`}${!one.iso && one.currency !== null && html`<span class="tables">not ISO 4217</span>`}</td><td class="r">${one.source}</td><td class="r">${one.target}</td><td class="r${isNonZero(one.difference) ? " bad" : ""}">${one.difference}</td><td class="r">${one.sourceMin ?? "–"} … ${one.sourceMax ?? "–"}</td><td>${special(one.sourceSpecial)}</td></tr>`), "");
}

function daysTable(days: readonly DayComparison[]): Html {
  const shown = [...days].filter(({ day }) => day !== "").toReversed().slice(0, DAYS_SHOWN);
  const money = (one: DayComparison): Value => one.money.filter(({ source, target }) => source !== target).map(({ column, currency, source, target }) => html`<span class="tables bad">${column} ${currency}: ${source} → ${target}</span>`);
  return days.length === 0 ? html`` : tableCard("days", "By business date", [["Day", "l"], ["Source", "r"], ["Target", "r"], ["Money that differs", "l"]],
    shown.map((one) => html`<tr><th scope="row">${one.day}</th><td class="r">${figure(one.sourceRows)}</td><td class="r${one.sourceRows === one.targetRows ? "" : " bad"}">${figure(one.targetRows)}</td><td>${money(one)}</td></tr>`), "");
}

function diffCard(diff: DiffDocument): Html {
  return tableCard("diff", html`${!diff.complete && "at least "}${count(diff.total)} rows differ at <code>${diff.position}</code>`, [["Row", "l"], ["Kind", "l"], ["Column", "l"], ["Source", "l"], ["Target", "l"]],
    diff.rows.flatMap((row) => row.columns.map(({ name, source, target }, i) => html`<tr><th scope="row">${i === 0 && (Object.entries(row.key).map(([column, value]) => `${column} ${value}`).join(", ") || row.keyHash)}</th><td>${i === 0 && row.kind}</td><td>${name}</td>
<td>${row.kind === "extra" ? "–" : shown(source)}</td><td>${row.kind === "missing" ? "–" : shown(target)}</td></tr>`)), "No row differs now.");
}

const shown = (value: string | null): Value => (value === null ? html`<em>NULL</em>` : html`<code>${value.length > 200 ? `${value.slice(0, 200)}…` : value}</code>`);

// ------------------------------------------------------------ breaks

export function breaksPage(migration: string, breaks: readonly BreakDocument[], mayAct: boolean, options: PageOptions): string {
  const open = breaks.filter(({ resolvedAt }) => resolvedAt === null);
  const settled = breaks.filter(({ resolvedAt }) => resolvedAt !== null);
  const age = (iso: string): string => duration((Date.now() - Date.parse(iso)) / 1000);
  const head: readonly (readonly [string, "l" | "r"])[] = [["Break", "l"], ["Class", "l"], ["Category", "l"], ["Rows", "r"], ["Age", "l"], ["Owner", "l"], ["", "l"]];
  return stillPage("Breaks", migration, "breaks", options, html`
${tableCard("open", `${count(open.length)} open`, head, open.map((one) => html`<tr><th scope="row">${one.id}</th><td><a href="/classes/${encodeURIComponent(one.class)}"><bdi>${one.class}</bdi></a></td><td>${one.category}</td><td class="r">${count(one.rows)}</td>
<td>${age(one.openedAt)}<span class="tables">${one.cleanSince !== null && html`not seen since ${time(one.cleanSince)}`}</span></td><td><bdi>${one.owner ?? "–"}</bdi>${mayAct && ownerForm(one)}</td><td>${mayAct && resolveForm(one)}</td></tr>`), `None. A confirmed difference opens one (${BREAK_CATEGORIES.join(", ")}); it stays until somebody has settled it.`)}
${tableCard("settled", "Settled", [["Break", "l"], ["Class", "l"], ["Category", "l"], ["Rows", "r"], ["By", "l"], ["Note", "l"]], settled.slice(0, 200).map((one) => html`<tr><th scope="row">${one.id}</th><td><bdi>${one.class}</bdi></td><td>${one.category}</td><td class="r">${count(one.rows)}</td><td>${one.resolution} <bdi>${one.resolvedBy}</bdi><span class="tables">${time(one.resolvedAt)}</span></td><td>${one.note}</td></tr>`), "None.")}`);
}

function ownerForm({ id, owner }: BreakDocument): Html {
  return html`<form method="post" action="/breaks/${id}/owner" class="inline"><label class="small" for="owner-${id}">Who takes care of it</label> <input id="owner-${id}" name="owner" required maxlength="200" value="${owner ?? ""}"> <button class="quiet">Give</button></form>`;
}

function resolveForm({ id }: BreakDocument): Html {
  return html`<form method="post" action="/breaks/${id}/resolve" class="inline"><label class="small" for="note-${id}">Why it is settled</label> <input id="note-${id}" name="note" required maxlength="2000"> <button class="quiet">Settle</button></form>`;
}
