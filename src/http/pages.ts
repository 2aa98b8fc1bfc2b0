/** The pages: what an operator sees. Complete without scripts; page.js only exchanges regions as they change. */
import { createHash } from "node:crypto";
import type { ClassProgress, DaemonState, HaltDocument, Phase, ProofState, SnapshotProgress, StatusDocument } from "../core/index.ts";
import { bytes, count, duration, lag, moment, percent, rate } from "./format.ts";
import { bar, brand, fact, page, topBar, withCode, type PageOptions, type Tone } from "./frame.ts";
import { html, type Html, type Value } from "./html.ts";

/** Inner HTML by the name of its place: what `data-live` names. */
export type Regions = Readonly<Record<string, string>>;

/** One second of the recent past. */
export interface Sample {
  readonly changesPerSecond: number;
  readonly lagSeconds: number | null;
}

const STATES: Readonly<Record<DaemonState, { readonly tone: Tone; readonly says: string }>> = {
  starting: { tone: "busy", says: "Connecting to both sides." },
  snapshotting: { tone: "busy", says: "What exists is being copied; what happens meanwhile is kept in the source’s log." },
  streaming: { tone: "good", says: "Every write on the source is applied to the target." },
  paused: { tone: "warn", says: "Applying is paused." },
  retrying: { tone: "warn", says: "Something is out of reach. dualrun tries again by itself." },
  halted: { tone: "bad", says: "Applying has stopped and waits for you." },
  fenced: { tone: "bad", says: "Another daemon has taken over. This one applies nothing." },
  stopped: { tone: "idle", says: "The daemon has stopped." },
};

const PATH: readonly Phase[] = ["planned", "snapshotting", "dual-run", "cutting-over", "tail", "retained", "closed"];

export function pageTitle({ state, migration, lagSeconds }: StatusDocument): string {
  const figure = state === "streaming" && lagSeconds !== null ? Object.values(lag(lagSeconds)).join(" ").trim() : state;
  return `${figure} · ${migration} · dualrun`;
}

/** Names the set of regions that a page has, and the program that made it. */
export function layoutOf({ classes, version, migration }: StatusDocument): string {
  return createHash("sha256").update(JSON.stringify([version, migration, classes.map(({ name }) => name)])).digest("hex").slice(0, 16);
}

export function loginPage(options: PageOptions, fault: string | null): string {
  return page("Sign in · dualrun", options, false, html`<body class="centred">
<main class="card login">
${brand(options.asset)}
<h1>Sign in</h1>
<p class="muted">This page shows the state of a migration. It needs a token.</p>
${fault !== null && html`<p class="fault" role="alert">${fault}</p>`}
<form method="post" action="/login">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus spellcheck="false">
<button>Sign in</button>
</form>
</main>
</body>`);
}

/** The status page with everything in its place. */
export function statusPage(status: StatusDocument, proof: ProofState, history: readonly Sample[], options: PageOptions): string {
  const regions = statusMarkup(status, proof, history);
  const live = (name: string, element: "div" | "section", className: string): Html =>
    element === "div" ? html`<div class="${className}" data-live="${name}">${regions[name]}</div>` : html`<section class="${className}" data-live="${name}">${regions[name]}</section>`;
  return page(pageTitle(status), options, true, html`<body data-layout="${layoutOf(status)}">
<header>
${topBar(status.migration, "overview", options)}
<p class="live" id="connection" role="status"><span class="dot" aria-hidden="true"></span><span id="connection-text">as of ${moment(new Date().toISOString())}</span></p>
</header>
<main>
<div data-live="state" role="status" aria-atomic="true">${regions["state"]}</div>
<div data-live="halt" role="alert">${regions["halt"]}</div>
${live("notices", "div", "stack")}
${live("snapshot", "div", "stack")}
${live("proof", "section", "card line")}
<div class="hero">
${live("lag", "section", "card")}
${live("rates", "section", "card")}
</div>
<div class="pair">
${live("slot", "section", "card")}
${live("stream", "section", "card")}
</div>
${classTable(status.classes, regions)}
</main>
${footer(status, options)}
</body>`);
}

function footer(status: StatusDocument, { who }: PageOptions): Html {
  return html`<footer>
<nav aria-label="More">
<a href="/metrics">Metrics</a>
<a href="/runbook">Runbook</a>
<a href="/api/v1/status">Status</a>
<a href="/api/v1/classes">Classes</a>
<a href="/api/v1/audit">Audit trail</a>
<a href="/openapi.json">OpenAPI</a>
<a href="/readyz">Readiness</a>
</nav>
<p class="muted">dualrun ${status.version}${who !== null && html` · <bdi>${who}</bdi>`}</p>
${who !== null && html`<form method="post" action="/logout"><button class="quiet">Sign out</button></form>`}
</footer>`;
}

// ------------------------------------------------------------ regions

/** What changes while the page is open, by place. */
export function statusRegions(status: StatusDocument, proof: ProofState, history: readonly Sample[]): Regions {
  return Object.fromEntries(Object.entries(statusMarkup(status, proof, history)).map(([name, markup]) => [name, markup.toString()]));
}

function statusMarkup(status: StatusDocument, proof: ProofState, history: readonly Sample[]): Record<string, Html> {
  return {
    proof: proofCard(proof),
    state: stateLine(status),
    halt: haltBox(status.halt, STATES[status.state].tone),
    notices: notices(status),
    lag: lagCard(status, history),
    rates: ratesCard(status, history),
    snapshot: snapshotCard(status.snapshot),
    slot: slotCard(status),
    stream: streamCard(status),
    ...Object.fromEntries(status.classes.map((cls, i) => [`class-${i}`, classCells(cls)])),
    totals: totalCells(status.classes),
  };
}

function stateLine({ state, phase, slot }: StatusDocument): Html {
  const { tone, says } = STATES[state];
  const waits = tone === "warn" || state === "halted";
  const kept = ["ok", "near-limit", "over-limit"].includes(slot.state);
  const at = PATH.indexOf(phase);
  return html`<div class="state"><p><strong class="pill ${tone}">${state}</strong> <span>${says}${waits && kept && " The source keeps its log meanwhile."}</span></p>
<ol class="phases" aria-label="Phase">${PATH.map((each, i) => html`<li${i < at && html` class="past"`}${i === at && html` aria-current="step"`}>${each}</li>`)}${at < 0 && html`<li class="aside" aria-current="step">${phase}</li>`}</ol></div>`;
}

function haltBox(halt: HaltDocument | null, tone: Tone): Html {
  if (halt === null) return html``;
  return html`<section class="card halt ${tone === "bad" ? "bad" : "warn"}">
<h2><code>${halt.code}</code> ${halt.title}</h2>
<p class="what">${halt.what}</p>
${halt.details.length > 0 && html`<ul>${halt.details.map((line) => html`<li>${line}</li>`)}</ul>`}
<p class="next"><strong>Next</strong> ${withCode(halt.next)}</p>
<p class="muted">${halt.where !== null && html`at <bdi>${halt.where}</bdi>, `}since <time datetime="${halt.at}">${moment(halt.at)}</time></p>
</section>`;
}

function notices({ warnings, newTables }: StatusDocument): Html {
  const lines: Value[] = [
    ...warnings,
    ...(newTables.length === 0 ? [] : [html`${newTables.length === 1 ? "A table" : `${count(newTables.length)} tables`} under <code>include</code> ${newTables.length === 1 ? "is" : "are"} not mirrored yet: ${newTables.slice(0, 20).join(", ")}${newTables.length > 20 && ", …"}`]),
  ];
  return lines.length === 0 ? html`` : html`<section class="card notice"><h2>Worth a look</h2><ul>${lines.map((line) => html`<li>${line}</li>`)}</ul></section>`;
}

/** What the last comparisons say, in one line. */
function proofCard({ classes, openBreaks, runningSince, nextAt }: ProofState): Html {
  const proven = classes.filter(({ verdict }) => verdict === "in_sync").length;
  const records = classes.reduce((sum, { sourceRows }) => sum + Number(sourceRows ?? 0), 0);
  const totals = classes.reduce((sum, { money }) => sum + money.length, 0);
  const bad = classes.filter(({ verdict }) => verdict === "confirmed_out_of_sync");
  const pill = classes.length === 0 ? html`<strong class="pill idle">not compared yet</strong>` : bad.length > 0 ? html`<strong class="pill bad">out of sync</strong>` : proven === classes.length ? html`<strong class="pill good">in sync</strong>` : html`<strong class="pill warn">not all proven</strong>`;
  return html`<h2>Proof</h2><p>${pill} ${classes.length > 0 && html`<a href="/comparisons"><span class="number">${proven} of ${count(classes.length)}</span> classes proven</a>: <span class="number">${count(records)}</span> records and <span class="number">${count(totals)}</span> money totals on both sides at one moment`}</p>
<p class="muted">${openBreaks.length > 0 && html`<a class="bad" href="/breaks">${count(openBreaks.length)} open breaks</a> · `}${runningSince !== null ? "comparing now" : nextAt !== null && html`next at <time datetime="${nextAt}">${moment(nextAt)}</time>`}</p>`;
}

function lagCard(status: StatusDocument, history: readonly Sample[]): Html {
  const past = history.map(({ lagSeconds }) => lagSeconds);
  const measured = past.filter((each) => each !== null);
  const { value, unit } = status.lagSeconds === null ? { value: "–", unit: "" } : lag(status.lagSeconds);
  return html`<h2>Lag</h2>
<p class="figure">${value}${unit !== "" && html`<span class="unit"> ${unit}</span>`}</p>
<p>${status.lagSeconds === null ? `not measured while ${status.state}` : "behind the source’s commits"}${status.lagBytes !== null && html`, <span class="number">${bytes(status.lagBytes)}</span> of log`}</p>
${curve(past, 0.1)}
<p class="muted small">${measured.length === 0 ? "nothing measured yet" : `at most ${Object.values(lag(Math.max(...measured))).join(" ").trim()} in the last ${duration(history.length)}`}</p>`;
}

function ratesCard(status: StatusDocument, history: readonly Sample[]): Html {
  const past = history.map(({ changesPerSecond }) => changesPerSecond);
  return html`<h2>Rate</h2>
<p class="figure">${rate(status.changesPerSecond)}<span class="unit"> changes/s</span></p>
<p>in <span class="number">${rate(status.transactionsPerSecond)}</span> transactions/s</p>
${curve(past, 1)}
<p class="muted small"><span class="number">${count(status.changesApplied)}</span> changes in <span class="number">${count(status.transactionsApplied)}</span> transactions since the start</p>`;
}

const CURVE = { width: 240, height: 48, seconds: 120 };

/** A curve of the last two minutes, newest at the right; it breaks where nothing was measured. Only decoration: the figures say the same. */
function curve(values: readonly (number | null)[], least: number): Html {
  const top = Math.max(least, ...values.map((value) => value ?? 0)) * 1.05;
  const x = (i: number): string => (CURVE.width - ((values.length - 1 - i) * CURVE.width) / (CURVE.seconds - 1)).toFixed(1);
  const y = (value: number): string => (CURVE.height - 1 - (value / top) * (CURVE.height - 2)).toFixed(1);
  const runs: number[][] = [];
  values.forEach((value, i) => {
    if (value === null) return;
    if (i === 0 || values[i - 1] === null) runs.push([]);
    runs.at(-1)!.push(i);
  });
  const line = (run: readonly number[]): string => `M${run.map((i) => `${x(i)},${y(values[i]!)}`).join("L")}`;
  const area = (run: readonly number[]): string => `${line(run)}L${x(run.at(-1)!)},${CURVE.height}L${x(run[0]!)},${CURVE.height}Z`;
  return html`<svg class="curve" viewBox="0 0 ${CURVE.width} ${CURVE.height}" preserveAspectRatio="none" aria-hidden="true"><path class="area" d="${runs.map(area).join("")}"/><path class="line" d="${runs.map(line).join("")}"/></svg>`;
}

function snapshotCard(snapshot: SnapshotProgress | null): Html {
  if (snapshot === null) return html``;
  const { rows, expectedRows, bytes: copiedBytes, refused } = snapshot;
  if (snapshot.done) {
    return html`<section class="card line"><h2>Snapshot</h2><p>complete: <span class="number">${count(rows)} rows</span>, <span class="number">${bytes(copiedBytes)}</span>${refused > 0 && html`, <strong class="bad">${count(refused)} refused</strong>`}, at <code>${snapshot.position}</code></p></section>`;
  }
  return html`<section class="card">
<div class="line"><h2>Snapshot</h2><p><strong class="number">${percent(rows, expectedRows)}</strong>, ${etaText(snapshot)}</p></div>
${bar("Snapshot", rows, expectedRows)}
<dl class="facts tight">
${fact("Rows", html`<span class="number">${count(rows)}</span> <span class="number muted">of ${count(expectedRows)}</span>`)}
${fact("Bytes", html`<span class="number">${bytes(copiedBytes)}</span> <span class="number muted">of ${bytes(snapshot.expectedBytes)}</span>`)}
${fact("Speed", `${rate(snapshot.rowsPerSecond)} rows/s`)}
${fact("Refused rows", count(refused), refused > 0 ? "bad" : "")}
${fact("Open for", duration(snapshot.ageSeconds))}
${fact("Holds on the source", snapshot.holds)}
${fact("At position", html`<code>${snapshot.position}</code>`)}
</dl>
</section>`;
}

function etaText({ etaSeconds }: SnapshotProgress): string {
  return etaSeconds === null ? "time left not known yet" : `about ${duration(etaSeconds)} left`;
}

const SLOT_TONES: Readonly<Record<StatusDocument["slot"]["state"], Tone>> = { "ok": "good", "near-limit": "warn", "over-limit": "bad", "lost": "bad", "missing": "bad", "unknown": "idle" };

function slotCard({ slot }: StatusDocument): Html {
  return html`<h2>Slot on the source</h2>
<p><strong class="pill ${SLOT_TONES[slot.state]}">${slot.state}</strong> <span class="number">${slot.retainedBytes === null ? "retained log not measured yet" : html`${bytes(slot.retainedBytes)} of log retained`}</span></p>
${slot.detail !== "" && html`<p class="muted">${slot.detail}</p>`}`;
}

function streamCard(status: StatusDocument): Html {
  return html`<h2>Stream</h2>
<dl class="facts">
${fact("Applied up to", html`<code>${status.position ?? "–"}</code>`)}
${fact("Source’s head", html`<code>${status.head ?? "–"}</code>`)}
${fact("Last commit", status.lastCommitAt === null ? "–" : html`<time datetime="${status.lastCommitAt}">${moment(status.lastCommitAt)}</time>`)}
${fact("Read", bytes(status.bytesRead))}
${fact("In memory", bytes(status.bufferBytes))}
${status.journal !== null && fact("In the journal", html`${bytes(status.journal.bytes)} of ${bytes(status.journal.maxBytes)}${status.journal.state !== "ok" && html`, ${status.journal.state}`}`)}
${fact("Interruptions", count(status.restarts))}
${fact("Epoch", status.epoch ?? "–")}
${fact("Running since", html`<time datetime="${status.startedAt}">${moment(status.startedAt)}</time>`)}
</dl>`;
}

// ------------------------------------------------------------ classes

function classTable(classes: readonly ClassProgress[], regions: Readonly<Record<string, Html>>): Html {
  return html`<section class="card table" aria-labelledby="classes">
<h2 id="classes">Classes</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="classes">
<table>
<thead><tr><th scope="col">Class</th><th scope="col">Copied</th><th scope="col" class="r">Inserts</th><th scope="col" class="r">Updates</th><th scope="col" class="r">Deletes</th><th scope="col" class="r">Conflicts</th></tr></thead>
<tbody>${classes.map((_, i) => html`<tr data-live="class-${i}">${regions[`class-${i}`]}</tr>`)}</tbody>
${classes.length > 1 && html`<tfoot><tr data-live="totals">${regions["totals"]}</tr></tfoot>`}
</table>
${classes.length === 0 && html`<p class="muted">None yet.</p>`}
</div>
</section>`;
}

function classCells(cls: ClassProgress): Html {
  return html`<th scope="row"><bdi>${cls.name}</bdi>${cls.kind !== "record" && html` <span class="kind">${cls.kind}</span>`}<span class="tables"><bdi>${cls.source}</bdi>${cls.target !== cls.source && html` → <bdi>${cls.target}</bdi>`}</span></th>
<td>${copied(cls)}</td>${operationCells(cls)}`;
}

function copied({ name, snapshotRows, snapshotRowsExpected, chunks, chunksDone }: ClassProgress): Html {
  if (chunks > 0 && chunksDone === chunks) return html`<span class="number">${count(snapshotRows)}</span> <span class="muted">rows</span>`;
  if (chunks === 0) return html`<span class="muted">–</span>`;
  return html`<span class="number">${count(snapshotRows)}</span> <span class="muted">of ${count(snapshotRowsExpected)}</span>${bar(`${name}: rows copied`, snapshotRows, snapshotRowsExpected)}`;
}

function operationCells(cls: Pick<ClassProgress, "inserts" | "updates" | "deletes" | "truncates" | "conflicts">): Html {
  return html`<td class="r">${count(cls.inserts)}</td><td class="r">${count(cls.updates)}</td><td class="r">${count(cls.deletes)}${cls.truncates > 0 && html`<span class="tables">${count(cls.truncates)} × truncated</span>`}</td><td class="r${cls.conflicts > 0 ? " warned" : ""}">${count(cls.conflicts)}</td>`;
}

function totalCells(classes: readonly ClassProgress[]): Html {
  const sum = (key: "snapshotRows" | "inserts" | "updates" | "deletes" | "truncates" | "conflicts"): number => classes.reduce((total, cls) => total + cls[key], 0);
  return html`<th scope="row">${count(classes.length)} classes</th><td><span class="number">${count(sum("snapshotRows"))}</span> <span class="muted">rows</span></td>${operationCells({ inserts: sum("inserts"), updates: sum("updates"), deletes: sum("deletes"), truncates: sum("truncates"), conflicts: sum("conflicts") })}`;
}
