/** The status, each second, to everybody who follows it; and its recent past, for the page's curves. */
import type { ServerResponse } from "node:http";
import type { DaemonControl, StatusDocument } from "../core/index.ts";
import type { Logger } from "../telemetry/index.ts";
import { SECURITY_HEADERS } from "./guard.ts";
import { layoutOf, pageTitle, statusRegions, type Regions, type Sample } from "./pages.ts";
import { HttpError } from "./problem.ts";
import { isExpired, type Principal } from "./tokens.ts";

const TICK_MS = 1_000;
const KEPT_SAMPLES = 120;
const MOST_CLIENTS = 100;
/** A client that has not taken this much is dropped; it will come back. */
const MOST_UNSENT_BYTES = 4 << 20;

interface Client {
  readonly response: ServerResponse;
  readonly principal: Principal | null;
  /** What a page has been sent; null for a client that is no page. */
  regions: Regions | null;
}

interface PageEvent {
  readonly title: string;
  /** Changes when regions come or go: the page must be loaded anew. */
  readonly layout: string;
  /** Inner HTML by region. */
  readonly regions: Regions;
}

export class LiveStatus {
  private readonly control: DaemonControl;
  private readonly logger: Logger;
  private readonly clients = new Set<Client>();
  private readonly samples: Sample[] = [];
  private readonly timer: NodeJS.Timeout;

  constructor(control: DaemonControl, logger: Logger) {
    this.control = control;
    this.logger = logger;
    this.timer = setInterval(() => this.tick(), TICK_MS).unref();
  }

  get history(): readonly Sample[] {
    return this.samples;
  }

  /** Takes over a response for as long as the client stays. */
  follow(response: ServerResponse, principal: Principal | null, page: boolean): void {
    if (this.clients.size >= MOST_CLIENTS) throw new HttpError("too-many-streams", `${MOST_CLIENTS} clients follow the status already.`, { headers: { "retry-after": "10" } });
    const status = this.control.status();
    const client: Client = { response, principal, regions: page ? {} : null };
    response.writeHead(200, { ...SECURITY_HEADERS, "content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no" });
    response.on("close", () => this.clients.delete(client));
    response.on("error", (error) => this.logger.debug({ err: error }, "a client that followed the status has gone"));
    response.write("retry: 2000\n\n");
    this.clients.add(client);
    this.send(client, status, page ? statusRegions(status, this.control.proof.state(), this.samples) : {});
  }

  close(): void {
    clearInterval(this.timer);
    for (const { response } of this.clients) response.end();
    this.clients.clear();
  }

  private tick(): void {
    try {
      const status = this.control.status();
      this.samples.push({ changesPerSecond: status.changesPerSecond, lagSeconds: status.lagSeconds });
      if (this.samples.length > KEPT_SAMPLES) this.samples.shift();
      this.publish(status);
    } catch (error) {
      this.logger.error({ err: error }, "the status could not be published");
    }
  }

  private publish(status: StatusDocument): void {
    const regions = [...this.clients].some((client) => client.regions !== null) ? statusRegions(status, this.control.proof.state(), this.samples) : {};
    for (const client of this.clients) {
      if (client.principal !== null && isExpired(client.principal)) client.response.end();
      else if (client.response.writableLength > MOST_UNSENT_BYTES) client.response.destroy();
      else this.send(client, status, regions);
    }
  }

  private send(client: Client, status: StatusDocument, regions: Regions): void {
    client.response.write(`event: status\ndata: ${JSON.stringify(status)}\n\n`);
    const sent = client.regions;
    if (sent === null) return;
    const changed = Object.fromEntries(Object.entries(regions).filter(([name, content]) => sent[name] !== content));
    const event: PageEvent = { title: pageTitle(status), layout: layoutOf(status), regions: changed };
    client.response.write(`event: page\ndata: ${JSON.stringify(event)}\n\n`);
    client.regions = regions;
  }
}
