import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { request as httpRequest, type IncomingHttpHeaders } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { DualrunError, type ClassProgress, type DaemonControl, type FinanceControl, type ProofControl, type StatusDocument } from "../../src/core/index.ts";
import { newToken, openTokens, parseTokens, startHttp, type HttpOptions, type HttpServer, type Role } from "../../src/http/index.ts";
import { createLogger, createMetrics } from "../../src/telemetry/index.ts";

// ---------------------------------------------------------------- a daemon made by hand

const HOSTILE = `<script>alert("x")</script>'"&\`\${1}`;

function classNamed(name: string): ClassProgress {
  return { name, source: `public.${name}`, target: `public.${name}`, kind: "record", snapshotRows: 5, snapshotRowsExpected: 10, chunksDone: 1, chunks: 2, inserts: 1, updates: 2, deletes: 3, truncates: 1, conflicts: 0 };
}

const calm: StatusDocument = {
  version: "0.0.1", migration: "billing", phase: "dual-run", state: "streaming", startedAt: "2026-01-01T00:00:00.000Z", halt: null, format: "binary", epoch: "3",
  position: "0/10", head: "0/20", lagSeconds: 0.25, lagBytes: 16, lastEventAt: "2026-01-01T00:00:01.500Z", lastCommitAt: null,
  slot: { state: "ok", retainedBytes: 4096, detail: "reserved" }, journal: null, changesPerSecond: 12.5, transactionsPerSecond: 3, changesApplied: 100, transactionsApplied: 10,
  bytesRead: 1000, bufferBytes: 7, restarts: 0, snapshot: null, classes: [classNamed("invoices"), classNamed("ünï/cödé 100%")], newTables: [], warnings: [],
};

const snapshot = { position: "0/8", openedAt: "2026-01-01T00:00:00.000Z", ageSeconds: 75, holds: "xmin 740", rows: 5, expectedRows: 10, bytes: 2048, expectedBytes: 4096, refused: 0, rowsPerSecond: 3, etaSeconds: 95, done: false } as const;

const nothingProven: ProofControl = {
  state: () => ({ runningSince: null, nextAt: null, classes: [], openBreaks: [], trends: new Map() }),
  compare: () => Promise.reject(new DualrunError("DR2001", "there is no mirror")),
  begin: () => Promise.reject(new DualrunError("DR2001", "there is no mirror")), diff: () => Promise.reject(new DualrunError("DR2001", "there is no mirror")), repair: () => Promise.reject(new DualrunError("DR2001", "there is no mirror")),
  selfTest: () => Promise.reject(new DualrunError("DR2001", "there is no mirror")),
  comparisons: async () => [], comparison: async () => null, breaks: async () => [], resolveBreak: async () => null, assignBreak: async () => null,
};

const nothingReported: FinanceControl = {
  reports: async () => [], report: async () => null, prepare: () => Promise.reject(new DualrunError("DR7101", "nothing was compared")),
  signOff: () => Promise.reject(new DualrunError("DR7101", "there is no report")), importBank: async () => ({ lines: 0, dates: [] }), cleanStreak: async () => 0,
};

class HandMadeDaemon implements DaemonControl {
  document: StatusDocument = calm;
  calls: string[][] = [];
  fault: unknown = null;
  isReady = { ok: true, why: "" };

  status(): StatusDocument {
    if (this.fault !== null && !(this.fault instanceof DualrunError)) throw this.fault;
    return this.document;
  }

  private async called(...call: string[]): Promise<void> {
    if (this.fault !== null) throw this.fault;
    this.calls.push(call);
  }

  pause(by: string): Promise<void> {
    return this.called("pause", by);
  }

  resume(by: string): Promise<void> {
    return this.called("resume", by);
  }

  acceptSchema(note: string, by: string): Promise<void> {
    return this.called("accept", note, by);
  }

  resnapshot(className: string, by: string): Promise<void> {
    return this.called("resnapshot", className, by);
  }

  readonly proof = nothingProven;

  readonly finance = nothingReported;

  verifyAudit = async () => ({ intact: true, entries: 1, head: "00", at: null, fault: null });

  readonly audit = async () => [{ id: "1", at: "2026-01-01T00:00:00.000Z", who: "ann", what: "pause", note: null }];
}

const daemon = new HandMadeDaemon();
let log = "";

function start(options: Partial<HttpOptions> = {}): Promise<HttpServer> {
  const logger = createLogger({ level: "debug", pretty: false, destination: { write: (line) => void (log += line) } });
  const metrics = createMetrics({ version: "0.0.1", migration: "billing", classes: ["invoices"] });
  return startHttp({ listen: "127.0.0.1:0", control: daemon, metrics, logger, version: "0.0.1", ready: () => daemon.isReady, ...options });
}

beforeEach(() => {
  daemon.document = calm;
  daemon.calls = [];
  daemon.fault = null;
  daemon.isReady = { ok: true, why: "" };
  log = "";
});

// ---------------------------------------------------------------- clients

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly json: Record<string, unknown>;
}

interface Ask {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
}

/** Sends exactly this, without the manners of fetch. */
function ask(server: HttpServer, path: string, { method = "GET", headers = {}, body }: Ask = {}): Promise<Answer> {
  const { hostname, port } = new URL(server.address);
  return new Promise((resolve, reject) => {
    let answered = false;
    const sent = httpRequest({ host: hostname.replace(/[[\]]/g, ""), port, path, method, headers, agent: false }, (response) => {
      answered = true;
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        const isJson = /json/.test(response.headers["content-type"] ?? "") && text !== "";
        resolve({ status: response.statusCode!, headers: response.headers, text, json: isJson ? (JSON.parse(text) as Record<string, unknown>) : {} });
      });
    });
    sent.on("error", (error) => {
      if (!answered) reject(error);
    });
    sent.end(body);
  });
}

const post = (server: HttpServer, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> =>
  ask(server, path, { method: "POST", headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });

function expectProblem(answer: Answer, status: number, code: string): void {
  expect({ status: answer.status, code: answer.json["code"] }, answer.text).toEqual({ status, code });
  expect(answer.headers["content-type"]).toMatch(/^application\/problem\+json/);
  expect(answer.json).toMatchObject({ status, title: expect.stringMatching(/./), detail: expect.stringMatching(/./), next: expect.stringMatching(/./) });
  expectSafe(answer);
}

function expectSafe({ headers }: Answer): void {
  expect(headers["content-security-policy"]).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self'/);
  expect(headers["content-security-policy"]).not.toContain("unsafe");
  expect(headers).toMatchObject({ "x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer" });
  expect(headers["access-control-allow-origin"]).toBeUndefined();
}

/** What a socket answers to these bytes. */
function raw(server: HttpServer, bytes: string): Promise<string> {
  const { port } = new URL(server.address);
  return new Promise((resolve, reject) => {
    let text = "";
    const socket = connect(Number(port), "127.0.0.1", () => socket.write(bytes));
    socket.setTimeout(2000, () => socket.destroy());
    socket.on("data", (chunk) => (text += chunk.toString()));
    socket.on("close", () => resolve(text));
    socket.on("error", reject);
  });
}

/** Reads server-sent events until there are enough. */
async function events(server: HttpServer, path: string, enough: number, headers: Record<string, string> = {}): Promise<{ name: string; data: Record<string, unknown> }[]> {
  const stop = new AbortController();
  const response = await fetch(server.address + path, { headers, signal: stop.signal });
  expect(response.headers.get("content-type")).toMatch(/^text\/event-stream/);
  let text = "";
  const found = (): { name: string; data: Record<string, unknown> }[] =>
    [...text.matchAll(/event: (\w+)\ndata: (.*)\n\n/g)].map((match) => ({ name: match[1]!, data: JSON.parse(match[2]!) as Record<string, unknown> }));
  for await (const chunk of response.body!) {
    text += Buffer.from(chunk as Uint8Array).toString();
    if (found().length >= enough) break;
  }
  stop.abort();
  return found();
}

// ---------------------------------------------------------------- without tokens, on loopback

describe("on loopback without tokens", () => {
  let server: HttpServer;
  beforeAll(async () => {
    server = await start();
  });
  afterAll(() => server.close());

  it("answers probes", async () => {
    expect((await ask(server, "/healthz")).json).toEqual({ ok: true });
    expect((await ask(server, "/readyz")).status).toBe(200);
    daemon.isReady = { ok: false, why: "the first copy is running" };
    const answer = await ask(server, "/readyz");
    expectProblem(answer, 503, "not-ready");
    expect(answer.json["detail"]).toBe("the first copy is running");
  });

  it("exposes metrics of this moment", async () => {
    const answer = await ask(server, "/metrics");
    expect(answer.headers["content-type"]).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(answer.text).toContain("\ndualrun_lag_seconds 0.25\n");
    expectSafe(answer);
  });

  it("answers status, classes and audit trail", async () => {
    expect((await ask(server, "/api/v1/status")).json).toEqual(calm);
    expect((await ask(server, "/api/v1/classes")).json).toEqual({ classes: calm.classes });
    expect((await ask(server, "/api/v1/audit")).json).toEqual({ entries: await daemon.audit() });
    expectSafe(await ask(server, "/api/v1/status"));
  });

  it("acts", async () => {
    for (const path of ["/api/v1/pause", "/api/v1/resume"]) expect((await post(server, path)).json).toEqual(calm);
    expect((await post(server, "/api/v1/pause", {})).status).toBe(200);
    expect((await post(server, "/api/v1/schema/accept", { note: " column added on both sides " })).status).toBe(200);
    expect((await post(server, `/api/v1/classes/${encodeURIComponent("ünï/cödé 100%")}/resnapshot`)).status).toBe(200);
    expect(daemon.calls).toEqual([["pause", "local"], ["resume", "local"], ["pause", "local"], ["accept", "column added on both sides", "local"], ["resnapshot", "ünï/cödé 100%", "local"]]);
  });

  it("refuses bodies that are not what is asked for", async () => {
    for (const body of [{}, { note: "" }, { note: "   " }, { note: 7 }, { note: "x".repeat(2001) }, { note: "n", extra: 1 }, [], "note", null]) {
      const answer = await post(server, "/api/v1/schema/accept", body);
      expectProblem(answer, 400, "bad-request");
    }
    expect((await post(server, "/api/v1/schema/accept", { note: "" })).json["detail"]).toBe("note: a note is needed: what was done about the change");
    expectProblem(await post(server, "/api/v1/schema/accept"), 400, "bad-request");
    expectProblem(await post(server, "/api/v1/pause", { force: true }), 400, "bad-request");
    const broken = { method: "POST", headers: { "content-type": "application/json" } };
    for (const body of ["{", "", '{"note":"a","note"', '{"__proto__":{"x":1}}', "\xff\xfe"]) expectProblem(await ask(server, "/api/v1/schema/accept", { ...broken, body }), 400, "bad-request");
    expect(daemon.calls).toEqual([]);
  });

  it("refuses other content types with 415", async () => {
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "nonsense", "application/json-patch+json"]) {
      expectProblem(await ask(server, "/api/v1/pause", { method: "POST", headers: { "content-type": type }, body: "note=x" }), 415, "unsupported-media-type");
    }
    expect(daemon.calls).toEqual([]);
  });

  it("refuses large bodies with 413, declared or chunked", async () => {
    const body = Buffer.alloc(10 << 20, "x");
    const headers = { "content-type": "application/json" };
    expectProblem(await ask(server, "/api/v1/schema/accept", { method: "POST", headers: { ...headers, "content-length": String(body.length) }, body }), 413, "too-large");
    expectProblem(await ask(server, "/api/v1/schema/accept", { method: "POST", headers: { ...headers, "transfer-encoding": "chunked" }, body: JSON.stringify({ note: "x".repeat(70_000) }) }), 413, "too-large");
    expect((await ask(server, "/healthz")).status).toBe(200);
  });

  it("says 404 for what is not there, whatever the path tries", async () => {
    for (const path of ["/nothing", "/api/v1", "/api/v2/status", "/assets/", "/assets/../server.ts", "/assets/..%2f..%2fserver.ts", "/assets/%2e%2e/server.ts", "//etc/passwd", "/%00", "/assets/page.css%00.js", "/API/v1/status", "/api/v1/status/", "/login", "/.env", "/api/v1/../../healthz"]) {
      expectProblem(await ask(server, path), 404, "not-found");
    }
    expectProblem(await post(server, "/api/v1/classes/unknown/resnapshot"), 404, "not-found");
    expectProblem(await post(server, "/api/v1/classes/__proto__/resnapshot"), 404, "not-found");
    expectProblem(await post(server, `/api/v1/classes/${"x".repeat(500)}/resnapshot`), 400, "bad-request");
    expectProblem(await post(server, `/api/v1/classes/${"x".repeat(5000)}/resnapshot`), 414, "too-long");
    for (const path of ["/%zz", "/%ff%fe", "/api/v1/classes/%c0%ae/resnapshot"]) expectProblem(await ask(server, path), 400, "bad-request");
    expect(daemon.calls).toEqual([]);
  });

  it("says 405 with Allow", async () => {
    for (const [method, path, allow] of [
      ["POST", "/api/v1/status", "GET, HEAD"], ["DELETE", "/api/v1/pause", "POST"], ["GET", "/api/v1/pause", "POST"], ["PUT", "/", "GET, HEAD"], ["OPTIONS", "/api/v1/status", "GET, HEAD"],
      ["PATCH", "/api/v1/classes/invoices/resnapshot", "POST"], ["HEAD", "/api/v1/events", "GET"], ["POST", "/metrics", "GET, HEAD"], ["TRACE", "/healthz", "GET, HEAD"],
    ] as const) {
      const answer = await ask(server, path, { method, headers: { "content-type": "text/plain" }, ...(method === "POST" || method === "PUT" ? { body: "x" } : {}) });
      expect({ path, status: answer.status, allow: answer.headers.allow }).toEqual({ path, status: 405, allow });
      if (method !== "HEAD") expectProblem(answer, 405, "method-not-allowed");
    }
  });

  it("answers HEAD like GET without a body", async () => {
    for (const path of ["/", "/healthz", "/metrics", "/api/v1/status", "/openapi.json", "/assets/page.css"]) {
      const head = await ask(server, path, { method: "HEAD" });
      expect({ path, status: head.status, text: head.text }).toEqual({ path, status: 200, text: "" });
      expect(head.headers["content-type"]).toBe((await ask(server, path)).headers["content-type"]);
      expectSafe(head);
    }
  });

  it("refuses what another site's page sends", async () => {
    const own = new URL(server.address).host;
    for (const headers of [
      { origin: "https://evil.example" }, { origin: "null" }, { origin: `https://${own}.evil.example` }, { origin: `http://evil.example/${own}` }, { origin: "" },
      { origin: `http://localhost:1` }, { "sec-fetch-site": "cross-site" }, { "sec-fetch-site": "same-site" }, { origin: `http://${own}`, "sec-fetch-site": "cross-site" },
    ] as Record<string, string>[]) {
      expectProblem(await post(server, "/api/v1/pause", undefined, headers), 403, "cross-site");
    }
    expect(daemon.calls).toEqual([]);
    expect((await post(server, "/api/v1/pause", undefined, { origin: `http://${own}` })).status).toBe(200);
    expect((await post(server, "/api/v1/pause", undefined, { origin: `http://${own}`, "sec-fetch-site": "same-origin" })).status).toBe(200);
  });

  it("answers to loopback names only", async () => {
    for (const host of ["evil.example", "evil.example:7070", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "localhost:evil", "127.0.0.1@evil.example", "0.0.0.0"]) {
      for (const path of ["/api/v1/status", "/", "/metrics", "/nothing"]) expectProblem(await ask(server, path, { headers: { host } }), 421, "wrong-host");
    }
    for (const host of ["localhost", "LOCALHOST:9", "127.0.0.1", "127.9.9.9:80", "[::1]:7070"]) expect((await ask(server, "/healthz", { headers: { host } })).status).toBe(200);
  });

  it("answers broken requests with a problem too", async () => {
    expect(await raw(server, "NONSENSE\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 [\s\S]*application\/problem\+json[\s\S]*"code":"bad-request"/);
    expect(await raw(server, `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(40_000)}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 431 [\s\S]*"code":"headers-too-large"/);
    expect(await raw(server, "POST /api/v1/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
    expect(await raw(server, "GET /healthz HTTP/1.1\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
    expect(await raw(server, "GET /healthz HTTP/1.0\r\n\r\n")).toMatch(/^HTTP\/1\.[01] 200 /);
    expect(daemon.calls).toEqual([]);
  });

  it("turns the daemon's faults into problems with their code", async () => {
    daemon.fault = new DualrunError("DR5001", "column \"note\" was added", { where: "public.invoices", details: ["one"] });
    const answer = await post(server, "/api/v1/resume");
    expectProblem(answer, 409, "DR5001");
    expect(answer.json).toMatchObject({ type: "urn:dualrun:error:DR5001", detail: "column \"note\" was added", where: "public.invoices", details: ["one"] });
    daemon.fault = new DualrunError("DR2001", "no answer");
    expectProblem(await post(server, "/api/v1/resume"), 503, "DR2001");
  });

  it("tells nothing of what nobody expected, but logs it", async () => {
    daemon.fault = new Error("secret internals at postgres://ann:SECRET@db/x");
    for (const path of ["/api/v1/status", "/", "/metrics"]) {
      const answer = await ask(server, path);
      expectProblem(answer, 500, "DR9001");
      expect(answer.text).not.toMatch(/internals|SECRET/);
    }
    expect(log).toContain("secret internals");
    expect(log).not.toContain("SECRET");
    daemon.fault = null;
    expect((await ask(server, "/api/v1/status")).status).toBe(200);
  });

  it("logs requests without their query", async () => {
    await ask(server, "/nothing?token=SECRET");
    expect(log).toContain('"path":"/nothing"');
    expect(log).not.toContain("SECRET");
  });

  it("streams the status each second", async () => {
    const seen = await events(server, "/api/v1/events", 2);
    expect(seen).toEqual([{ name: "status", data: calm }, { name: "status", data: calm }]);
    expectProblem(await ask(server, "/api/v1/events?view=other"), 400, "bad-request");
  });

  it("sends the page's regions at first, then what has changed", async () => {
    const seen = events(server, "/api/v1/events?view=page", 4);
    await new Promise((resolve) => setTimeout(resolve, 300));
    daemon.document = { ...calm, slot: { ...calm.slot, detail: HOSTILE } };
    const [first, second] = (await seen).filter(({ name }) => name === "page").map(({ data }) => data as { layout: string; title: string; regions: Record<string, string> });
    expect(Object.keys(first!.regions)).toEqual(expect.arrayContaining(["state", "halt", "lag", "rates", "snapshot", "slot", "stream", "class-0", "class-1"]));
    expect(Object.keys(second!.regions)).toContain("slot");
    expect(Object.keys(second!.regions)).not.toContain("class-0");
    expect(second!.regions["slot"]).not.toContain("<script");
    expect((await ask(server, "/")).text).toContain(`data-layout="${first!.layout}"`);
  });

  it("limits how many follow, and lets them go at the end", async () => {
    const own = await start();
    const stop = new AbortController();
    const followers = await Promise.all(Array.from({ length: 100 }, () => fetch(`${own.address}/api/v1/events`, { signal: stop.signal })));
    expectProblem(await ask(own, "/api/v1/events"), 503, "too-many-streams");
    const ends = followers.map((response) => response.text().catch(() => "cut"));
    await own.close();
    expect(await Promise.all(ends)).toHaveLength(100);
  });
});

// ---------------------------------------------------------------- the page

describe("status page", () => {
  let server: HttpServer;
  beforeAll(async () => {
    server = await start();
  });
  afterAll(() => server.close());

  const pageText = async (document: Partial<StatusDocument>): Promise<string> => {
    daemon.document = { ...calm, ...document };
    const answer = await ask(server, "/");
    expect(answer.status).toBe(200);
    expect(answer.headers["content-type"]).toBe("text/html; charset=utf-8");
    expectSafe(answer);
    return answer.text;
  };

  it("shows the figures without a script, and refreshes only then", async () => {
    const text = await pageText({ snapshot });
    expect(text.replace(/<[^>]*>/g, "")).toMatch(/250 ms[\s\S]*behind/);
    for (const part of ["billing", "streaming", 'aria-current="step">dual-run', "50.0 %", "about 1 m 35 s left", "1 m 15 s", "xmin 740", "4.0 KiB of log retained", "invoices", 'href="/metrics"', 'href="/openapi.json"']) expect(text).toContain(part);
    expect(text.match(/http-equiv="refresh"/g)).toHaveLength(1);
    expect(text).toContain('<noscript><meta http-equiv="refresh" content="5"></noscript>');
  });

  it("has no inline script or style, and every asset is there", async () => {
    const text = await pageText({ snapshot });
    expect(text).not.toMatch(/<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:/i);
    const assets = [...text.matchAll(/(?:src|href)="(\/assets\/[^"]+)"/g)].map((match) => match[1]!);
    expect(new Set(assets).size).toBe(3);
    for (const path of assets) {
      const answer = await ask(server, path);
      expect(answer.status).toBe(200);
      expectSafe(answer);
      expect((await ask(server, path, { headers: { "if-none-match": answer.headers.etag! } })).status).toBe(304);
    }
  });

  it("escapes everything that comes from outside", async () => {
    const text = await pageText({
      migration: HOSTILE, version: HOSTILE, position: HOSTILE, head: HOSTILE, epoch: HOSTILE, lastCommitAt: HOSTILE, startedAt: HOSTILE, warnings: [HOSTILE], newTables: [HOSTILE],
      classes: [{ ...classNamed(HOSTILE), kind: HOSTILE, target: HOSTILE }], slot: { state: "lost", retainedBytes: null, detail: HOSTILE },
      snapshot: { ...snapshot, position: HOSTILE, holds: HOSTILE },
      state: "halted", halt: { code: "DR5002", title: HOSTILE, what: HOSTILE, where: HOSTILE, details: [HOSTILE], next: HOSTILE, at: HOSTILE },
    });
    expect(text.match(/<script/g)).toHaveLength(1);
    expect(text).not.toContain('alert("x")');
    expect(text).toContain("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&#39;&quot;&amp;");
  });

  it("shows a halt with code, what, details and the next step", async () => {
    const text = await pageText({ state: "halted", halt: { code: "DR5001", title: "The schema has changed", what: "column was added", where: "public.t", details: ["line 1", "line 2"], next: "Then `dualrun schema accept`.", at: "2026-01-01T10:00:00.000Z" } });
    for (const part of ["<code>DR5001</code>", "column was added", "<li>line 2</li>", "<code>dualrun schema accept</code>", "2026-01-01 10:00:00 UTC", "public.t", "The source keeps its log meanwhile"]) expect(text).toContain(part);
    expect(await pageText({ state: "halted", slot: { state: "lost", retainedBytes: null, detail: "" } })).not.toContain("keeps its log");
  });

  it("shows every state and phase, and what was not measured as such", async () => {
    for (const state of ["starting", "snapshotting", "streaming", "paused", "retrying", "halted", "fenced", "stopped"] as const) {
      expect(await pageText({ state, lagSeconds: null, lagBytes: null, classes: [], slot: { state: "unknown", retainedBytes: null, detail: "" } })).toContain(`not measured while ${state}`);
    }
    for (const phase of ["planned", "closed", "rolled-back", "aborted"] as const) expect(await pageText({ phase })).toMatch(new RegExp(`aria-current="step">${phase}<`));
    expect(await pageText({ snapshot: { ...snapshot, etaSeconds: null, expectedRows: 0, rows: 0, expectedBytes: 0 } })).toContain("time left not known yet");
    expect(await pageText({ snapshot: { ...snapshot, done: true, refused: 3 } })).toContain("3 refused");
  });
});

// ---------------------------------------------------------------- OpenAPI

describe("/openapi.json", () => {
  type Schema = Record<string, unknown>;
  interface Operation {
    readonly responses: Record<string, { readonly description: string; readonly content?: Record<string, { readonly schema: Schema }> }>;
    readonly parameters?: readonly { readonly name: string; readonly in: string; readonly required?: boolean }[];
  }
  interface Document {
    readonly openapi: string;
    readonly paths: Record<string, Record<string, Operation>>;
    readonly components: { readonly schemas: Record<string, Schema> };
  }

  let server: HttpServer;
  let document: Document;
  beforeAll(async () => {
    server = await start();
    document = (await ask(server, "/openapi.json")).json as unknown as Document;
  });
  afterAll(() => server.close());

  const resolved = (schema: unknown): unknown => {
    if (Array.isArray(schema)) return schema.map(resolved);
    if (schema === null || typeof schema !== "object") return schema;
    const { $ref } = schema as { readonly $ref?: string };
    if ($ref === undefined) return Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, resolved(value)]));
    const name = $ref.replace("#/components/schemas/", "");
    expect(Object.keys(document.components.schemas)).toContain(name);
    return resolved(document.components.schemas[name]);
  };

  it("lists each route and no other", () => {
    const listed = Object.entries(document.paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`)).toSorted();
    expect(listed).toEqual([
      "GET /", "GET /api/v1/audit", "GET /api/v1/audit/verification", "GET /api/v1/breaks", "GET /api/v1/classes", "GET /api/v1/classes/{name}/diff", "GET /api/v1/comparisons",
      "GET /api/v1/comparisons/{id}", "GET /api/v1/events", "GET /api/v1/reports", "GET /api/v1/reports/{date}", "GET /api/v1/status", "GET /healthz", "GET /metrics", "GET /openapi.json", "GET /readyz",
      "POST /api/v1/bank", "POST /api/v1/breaks/{id}/owner", "POST /api/v1/breaks/{id}/resolve", "POST /api/v1/classes/{name}/resnapshot", "POST /api/v1/comparisons", "POST /api/v1/pause", "POST /api/v1/repairs", "POST /api/v1/reports/{date}", "POST /api/v1/reports/{date}/sign-off", "POST /api/v1/resume",
      "POST /api/v1/schema/accept", "POST /api/v1/selftest",
    ]);
  });

  it("has the form of OpenAPI 3.1", () => {
    const media = z.record(z.string().regex(/^[a-z]+\/[a-z+.-]+$/), z.strictObject({ schema: z.looseObject({}) }));
    const operation = z.strictObject({
      summary: z.string().min(1), tags: z.array(z.string()).min(1), security: z.array(z.record(z.string(), z.array(z.string()))).optional(),
      parameters: z.array(z.strictObject({ name: z.string(), in: z.enum(["path", "query"]), required: z.boolean(), description: z.string().optional(), schema: z.looseObject({}) })).optional(),
      requestBody: z.strictObject({ required: z.boolean().optional(), content: media }).optional(),
      responses: z.record(z.string().regex(/^(\d{3}|[45]XX)$/), z.strictObject({ description: z.string(), content: media.optional() })),
    });
    const whole = z.strictObject({
      openapi: z.literal("3.1.0"), info: z.looseObject({ title: z.string(), version: z.literal("0.0.1") }), servers: z.array(z.strictObject({ url: z.string() })),
      tags: z.array(z.strictObject({ name: z.string(), description: z.string() })), security: z.array(z.strictObject({ token: z.array(z.never()) })),
      paths: z.record(z.string().startsWith("/"), z.partialRecord(z.enum(["get", "post"]), operation)),
      components: z.strictObject({ schemas: z.record(z.string().regex(/^[A-Za-z]+$/), z.looseObject({})), securitySchemes: z.strictObject({ token: z.looseObject({ type: z.literal("http"), scheme: z.literal("bearer") }) }) }),
    });
    expect(whole.safeParse(document).error).toBeUndefined();
    for (const [path, methods] of Object.entries(document.paths)) {
      for (const { parameters = [] } of Object.values(methods)) {
        const declared = parameters.filter((each) => each.in === "path").map(({ name }) => `{${name}}`);
        expect(declared).toEqual(path.match(/\{\w+\}/g) ?? []);
      }
    }
  });

  it("describes what is really answered", async () => {
    daemon.document = { ...calm, snapshot, halt: { code: "DR5001", title: "t", what: "w", where: null, details: [], next: "n", at: calm.startedAt } };
    const check = async (path: string, method: string, status: string, sent: string): Promise<void> => {
      const answer = await ask(server, sent, { method });
      const content = document.paths[path]![method.toLowerCase()]!.responses[status]!.content!;
      const schema = content[answer.headers["content-type"]!.split(";")[0]!]!.schema;
      const problems = z.fromJSONSchema(resolved(schema) as Parameters<typeof z.fromJSONSchema>[0]).safeParse(answer.json).error;
      expect(problems, path).toBeUndefined();
    };
    for (const path of ["/healthz", "/api/v1/status", "/api/v1/classes", "/api/v1/audit", "/openapi.json"]) await check(path, "GET", "200", path);
    await check("/api/v1/pause", "POST", "200", "/api/v1/pause");
    await check("/api/v1/schema/accept", "POST", "4XX", "/api/v1/schema/accept");
    daemon.isReady = { ok: false, why: "not yet" };
    await check("/readyz", "GET", "5XX", "/readyz");
  });
});

// ---------------------------------------------------------------- tokens

describe("with tokens", () => {
  const people = { viewer: newToken(), operator: newToken(), admin: newToken(), finance: newToken(), gone: newToken() };
  const entry = (name: string, role: Role, { sha256 }: { sha256: string }, expires = "2999-01-01"): string => `- { name: ${name}, role: ${role}, sha256: ${sha256}, expires: ${expires} }`;
  const file = [
    entry("vera", "viewer", people.viewer), entry("otto", "operator", people.operator), entry("ada", "admin", people.admin),
    entry("fin", "finance-approver", people.finance), entry("gone", "admin", people.gone, "2020-01-01T00:00:00Z"),
  ].join("\n");
  const bearer = ({ token }: { token: string }): Record<string, string> => ({ authorization: `Bearer ${token}` });
  const form = { "content-type": "application/x-www-form-urlencoded" };
  let directory: string;
  let path: string;
  let server: HttpServer;

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "dualrun-http-"));
    path = join(directory, "tokens.yaml");
  });
  beforeEach(async () => {
    writeFileSync(path, file);
    server = await start({ listen: "0.0.0.0:0", tokens: path });
  });
  afterEach(() => server.close());
  afterAll(() => rmSync(directory, { recursive: true }));

  it("leaves probes and metrics open, and nothing else", async () => {
    for (const open of ["/healthz", "/readyz", "/metrics", "/assets/page.css"]) expect((await ask(server, open)).status).toBe(200);
    for (const closed of ["/api/v1/status", "/api/v1/classes", "/api/v1/audit", "/api/v1/events", "/openapi.json"]) {
      const answer = await ask(server, closed);
      expectProblem(answer, 401, "unauthorized");
      expect(answer.headers["www-authenticate"]).toBe('Bearer realm="dualrun"');
    }
    for (const closed of ["/api/v1/pause", "/api/v1/resume", "/api/v1/schema/accept", "/api/v1/classes/invoices/resnapshot"]) expectProblem(await post(server, closed), 401, "unauthorized");
    expect(daemon.calls).toEqual([]);
  });

  it("knows who may read and who may act", async () => {
    for (const who of [people.viewer, people.operator, people.admin, people.finance]) expect((await ask(server, "/api/v1/status", { headers: bearer(who) })).status).toBe(200);
    for (const who of [people.viewer, people.finance]) expectProblem(await post(server, "/api/v1/pause", undefined, bearer(who)), 403, "forbidden");
    for (const who of [people.operator, people.admin]) expect((await post(server, "/api/v1/pause", undefined, bearer(who))).status).toBe(200);
    expect(daemon.calls).toEqual([["pause", "otto"], ["pause", "ada"]]);
  });

  it("refuses wrong, expired and misshapen tokens, and never logs them", async () => {
    const { token } = people.admin;
    for (const authorization of ["Bearer wrong", `Bearer ${token}x`, `Bearer ${token.slice(0, -1)}`, `Bearer ${people.admin.sha256}`, `Basic ${token}`, token, "Bearer", "Bearer  ", `Bearer ${token} ${token}`, `Bearer ${"x".repeat(5000)}`]) {
      expectProblem(await ask(server, "/api/v1/status", { headers: { authorization } }), 401, "unauthorized");
    }
    const expired = await ask(server, "/api/v1/status", { headers: bearer(people.gone) });
    expectProblem(expired, 401, "unauthorized");
    expect(expired.json["detail"]).toContain("expired");
    await ask(server, "/api/v1/status", { headers: bearer(people.admin) });
    for (const each of Object.values(people)) expect(log).not.toContain(each.token);
  });

  it("follows the file: a token that is taken out is out at once, a broken file lets nobody in", async () => {
    expect((await ask(server, "/api/v1/status", { headers: bearer(people.viewer) })).status).toBe(200);
    writeFileSync(path, entry("otto", "operator", people.operator));
    expectProblem(await ask(server, "/api/v1/status", { headers: bearer(people.viewer) }), 401, "unauthorized");
    writeFileSync(path, "- { name: x }");
    expectProblem(await ask(server, "/api/v1/status", { headers: bearer(people.operator) }), 500, "DR1001");
    writeFileSync(path, file);
    expect((await ask(server, "/api/v1/status", { headers: bearer(people.viewer) })).status).toBe(200);
  });

  it("asks for a token on the page and takes it into a cookie that scripts and other sites do not get", async () => {
    const asked = await ask(server, "/");
    expect(asked.status).toBe(401);
    expect(asked.text).toContain('<form method="post" action="/login">');
    expect(asked.text).not.toContain("invoices");
    expectSafe(asked);
    const refused = await ask(server, "/login", { method: "POST", headers: form, body: "token=%3Cscript%3E" });
    expect(refused.status).toBe(401);
    expect(refused.text).toContain("The token is not known.");
    expect((await ask(server, "/login", { method: "POST", headers: form, body: `token=${people.gone.token}` })).text).toContain("expired");
    const entered = await ask(server, "/login", { method: "POST", headers: form, body: `token=${people.viewer.token}` });
    expect({ status: entered.status, location: entered.headers.location }).toEqual({ status: 303, location: "/" });
    const cookie = entered.headers["set-cookie"]![0]!;
    expect(cookie).toMatch(/^dualrun-billing=[\w-]+; Path=\/; HttpOnly; SameSite=Strict; Expires=/);
    const own = { cookie: `other=1; ${cookie.split(";")[0]!}` };
    const page = await ask(server, "/", { headers: own });
    expect(page.status).toBe(200);
    expect(page.text).toContain("<bdi>vera</bdi>");
    expect((await ask(server, "/api/v1/status", { headers: own })).status).toBe(200);
    expect((await events(server, "/api/v1/events", 1, own))[0]!.name).toBe("status");
    expectProblem(await post(server, "/api/v1/pause", undefined, own), 403, "forbidden");
    expect((await ask(server, "/logout", { method: "POST", headers: { ...form, ...own } })).headers["set-cookie"]![0]).toMatch(/^dualrun-billing=; .*1970/);
    expect((await ask(server, "/", { headers: { cookie: "dualrun-billing=nonsense" } })).text).toContain("The token is not known.");
  });

  it("refuses forged sign-ins, other content types and large forms", async () => {
    const body = `token=${people.viewer.token}`;
    expectProblem(await ask(server, "/login", { method: "POST", headers: { ...form, origin: "https://evil.example" }, body }), 403, "cross-site");
    expectProblem(await ask(server, "/login", { method: "POST", headers: { "content-type": "application/json" }, body: "{}" }), 415, "unsupported-media-type");
    expectProblem(await ask(server, "/login", { method: "POST", headers: form, body: `token=${"x".repeat(5000)}` }), 413, "too-large");
    for (const odd of ["", "token=", "token=a&token=b", "__proto__=x"]) expect((await ask(server, "/login", { method: "POST", headers: form, body: odd })).status).toBe(401);
    const secure = await ask(server, "/login", { method: "POST", headers: { ...form, origin: "https://mirror.example", host: "mirror.example" }, body });
    expect(secure.headers["set-cookie"]![0]).toMatch(/; Secure$/);
  });

  it("reports every fault of a token file at once", () => {
    const fault = (text: string): DualrunError => {
      try {
        parseTokens(text, "tokens.yaml");
      } catch (error) {
        return error as DualrunError;
      }
      throw new Error(`accepted: ${text}`);
    };
    const many = fault(`- { name: a, role: king, sha256: 12, expires: soon, extra: 1 }\n- { role: viewer }`);
    expect(many.code).toBe("DR1001");
    expect(many.details.length).toBeGreaterThanOrEqual(6);
    for (const text of ["", "[]", "a: 1", "- [", `${entry("a", "viewer", people.viewer)}\n${entry("a", "viewer", people.admin)}`, `${entry("a", "viewer", people.viewer)}\n${entry("b", "admin", people.viewer)}`]) expect(fault(text).code).toBe("DR1001");
    expect(() => openTokens(join(directory, "missing.yaml"))).toThrow(expect.objectContaining({ code: "DR1002" }));
  });
});

// ---------------------------------------------------------------- starting

describe("startHttp", () => {
  const faultOf = (options: Partial<HttpOptions>): Promise<unknown> => start(options).then(() => null, (error: unknown) => error);

  it("refuses to be open to anybody", async () => {
    for (const listen of ["0.0.0.0:0", "[::]:0", "db.example:7070", "10.0.0.1:7070"]) {
      expect(await faultOf({ listen })).toMatchObject({ code: "DR1001", where: "http.listen", next: expect.stringContaining("http.tokens") });
    }
  });

  it("says what is wrong with an address", async () => {
    const server = await start();
    expect(await faultOf({ listen: new URL(server.address).host })).toMatchObject({ code: "DR1001", message: expect.stringContaining("in use") });
    await server.close();
    for (const listen of ["", "localhost", ":7070", "localhost:70700", "a b:1", "::1:7070"]) expect(await faultOf({ listen })).toMatchObject({ code: "DR1001", where: "http.listen" });
    expect(await faultOf({ tokens: "/nowhere/tokens.yaml" })).toMatchObject({ code: "DR1002" });
  });

  it("listens on every kind of loopback, and frees the port", async () => {
    for (const listen of ["localhost:0", "[::1]:0", "127.0.0.1:0"]) {
      const server = await start({ listen });
      expect((await ask(server, "/healthz")).status).toBe(200);
      await server.close();
      await expect(ask(server, "/healthz")).rejects.toThrow("ECONNREFUSED");
    }
  });
});
