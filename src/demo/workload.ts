/**
 * A live billing system: a seeded random mix of the transactions that a mirror has to survive, paced by the clock.
 * Every committed transaction leaves at least one row in the audit log.
 */
import { setTimeout as sleep } from "node:timers/promises";

import pg from "pg";

export const WORKLOAD_KINDS = [
  "invoice",
  "payment",
  "refund",
  "creditNote",
  "stateUpdate",
  "deleteDraft",
  "keyChange",
  "keySwap",
  "profileUpdate",
  "rolledBack",
  "savepoint",
  "large",
] as const;

export type WorkloadKind = (typeof WORKLOAD_KINDS)[number];

export interface WorkloadOptions {
  /** The rate is approached and never exceeded; default 200. */
  readonly transactionsPerSecond?: number;
  /** The same seed gives the same choices per client; how the clients interleave is up to the server. Default 1. */
  readonly seed?: number;
  /** Connections that work at the same time; default 4. */
  readonly clients?: number;
  /** How often each kind is chosen, relative to the others; overrides the defaults kind by kind. */
  readonly mix?: Partial<Record<WorkloadKind, number>>;
  /** Rows of a large transaction; default 20,000. */
  readonly largeRows?: number;
}

export interface WorkloadTotals {
  readonly committed: number;
  readonly rolledBack: number;
  /** Deadlocks and serialization failures, each of which was tried again. */
  readonly retried: number;
  /** Rows written by committed transactions, without those that foreign keys cascaded to. */
  readonly rows: number;
  readonly seconds: number;
  /** Finished transactions of each kind; one that found nothing to work on is in none. */
  readonly kinds: Readonly<Record<WorkloadKind, number>>;
}

export interface Workload {
  totals(): WorkloadTotals;
  /** Lets the running transactions end, and disconnects. Rejects with the error that stopped the workload before, if one did. */
  stop(): Promise<WorkloadTotals>;
  /** Settles when the workload has ended, whether by `stop` or by an error. */
  readonly ended: Promise<WorkloadTotals>;
}

const DEFAULT_MIX: Readonly<Record<WorkloadKind, number>> = {
  invoice: 2800,
  payment: 2800,
  refund: 400,
  creditNote: 500,
  stateUpdate: 1500,
  deleteDraft: 500,
  keyChange: 300,
  keySwap: 150,
  profileUpdate: 500,
  rolledBack: 250,
  savepoint: 300,
  large: 2,
};

/** Starts writing to a seeded demo schema until `stop` is called or an error other than a deadlock or serialization failure occurs. */
export async function startWorkload(url: string, options: WorkloadOptions = {}): Promise<Workload> {
  const counts = new Counts();
  const pace = new Pace(options.transactionsPerSecond ?? 200);
  const mix = { ...DEFAULT_MIX, ...options.mix };
  const clients = await connectAll(url, options.clients ?? 4);
  const workers = clients.map((client, index) => {
    const random = new Random((options.seed ?? 1) * 7919 + index);
    return work({ client, random, counts, largeRows: options.largeRows ?? 20_000 }, mix, pace);
  });
  const ended = finish(clients, workers, pace, counts);
  ended.catch(() => undefined); // stop() rejects with it
  return {
    ended,
    totals: () => counts.totals(),
    stop: () => {
      pace.stop();
      return ended;
    },
  };
}

async function connectAll(url: string, count: number): Promise<pg.Client[]> {
  const clients = Array.from({ length: count }, () => new pg.Client({ connectionString: url, application_name: "dualrun-demo-workload" }));
  // A lost connection makes the next query reject; without a listener it would end the process.
  for (const client of clients) client.on("error", () => {});
  const connected = await Promise.allSettled(clients.map((client) => client.connect()));
  const failure = connected.find((result) => result.status === "rejected");
  if (failure === undefined) return clients;
  await Promise.allSettled(clients.map((client) => client.end()));
  throw failure.reason;
}

/** One failing worker ends them all. */
async function finish(clients: readonly pg.Client[], workers: readonly Promise<void>[], pace: Pace, counts: Counts): Promise<WorkloadTotals> {
  try {
    await Promise.all(workers);
    return counts.totals();
  } finally {
    pace.stop();
    await Promise.allSettled(workers);
    counts.end();
    await Promise.allSettled(clients.map((client) => client.end()));
  }
}

// ---- pace and counts ---------------------------------------------------------------------------------------------

/** How far behind the clock the workload may be and still catch up. */
const CATCH_UP_MS = 50;

/** Hands out moments at the given rate; what was missed because the server was slow stays missed. */
class Pace {
  readonly #interval: number;
  readonly #stopping = new AbortController();
  #next = performance.now();

  constructor(perSecond: number) {
    if (!(perSecond > 0)) throw new RangeError(`transactionsPerSecond is ${perSecond}; it has to be positive`);
    this.#interval = 1000 / perSecond;
  }

  stop(): void {
    this.#stopping.abort();
  }

  /** Resolves at the next free moment to true, or to false once stopped. */
  async turn(): Promise<boolean> {
    this.#next = Math.max(this.#next + this.#interval, performance.now() - CATCH_UP_MS);
    const wait = this.#next - performance.now();
    if (wait > 0) await sleep(wait, undefined, { signal: this.#stopping.signal }).catch(unlessAborted);
    return !this.#stopping.signal.aborted;
  }
}

function unlessAborted(error: unknown): void {
  if (!(error instanceof Error) || error.name !== "AbortError") throw error;
}

class Counts {
  readonly #kinds = Object.fromEntries(WORKLOAD_KINDS.map((kind) => [kind, 0])) as Record<WorkloadKind, number>;
  readonly #startedAt = performance.now();
  #endedAt: number | null = null;
  #retried = 0;
  #rows = 0;

  done(kind: WorkloadKind, rows: number): void {
    this.#kinds[kind] += 1;
    if (kind !== "rolledBack") this.#rows += rows;
  }

  retry(): void {
    this.#retried += 1;
  }

  end(): void {
    this.#endedAt ??= performance.now();
  }

  totals(): WorkloadTotals {
    const finished = Object.values(this.#kinds).reduce((sum, count) => sum + count, 0);
    return {
      committed: finished - this.#kinds.rolledBack,
      rolledBack: this.#kinds.rolledBack,
      retried: this.#retried,
      rows: this.#rows,
      seconds: ((this.#endedAt ?? performance.now()) - this.#startedAt) / 1000,
      kinds: { ...this.#kinds },
    };
  }
}

/** mulberry32: small, seeded, good enough to choose by. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** From 1 to `highest`. */
  upTo(highest: number): number {
    return 1 + Math.floor(this.next() * highest);
  }

  oneOf<T>(choices: readonly T[]): T {
    return choices[Math.floor(this.next() * choices.length)] as T;
  }

  weighted(weights: Readonly<Record<WorkloadKind, number>>): WorkloadKind {
    let left = this.next() * WORKLOAD_KINDS.reduce((sum, kind) => sum + weights[kind], 0);
    return WORKLOAD_KINDS.find((kind) => (left -= weights[kind]) < 0) ?? "invoice";
  }
}

// ---- transactions ------------------------------------------------------------------------------------------------

interface Worker {
  readonly client: pg.Client;
  readonly random: Random;
  readonly counts: Counts;
  readonly largeRows: number;
}

async function work(worker: Worker, mix: Readonly<Record<WorkloadKind, number>>, pace: Pace): Promise<void> {
  while (await pace.turn()) {
    const kind = worker.random.weighted(mix);
    while (!(await attempt(worker, kind))) {
      worker.counts.retry();
      if (!(await pace.turn())) return;
    }
  }
}

const RETRIABLE: ReadonlySet<string> = new Set(["40P01", "40001"]);

/** False if the transaction has to be tried again. */
async function attempt(worker: Worker, kind: WorkloadKind): Promise<boolean> {
  const { client, counts } = worker;
  try {
    await client.query("begin");
    const rows = await transactions[kind](worker);
    await client.query(rows === 0 || kind === "rolledBack" ? "rollback" : "commit");
    if (rows > 0) counts.done(kind, rows);
    return true;
  } catch (error) {
    if (!RETRIABLE.has((error as pg.DatabaseError).code ?? "")) throw error;
    await client.query("rollback");
    return false;
  }
}

/** Each resolves to the number of rows it wrote, 0 if it found nothing to work on. */
const transactions: Record<WorkloadKind, (worker: Worker) => Promise<number>> = {
  invoice: async (worker) => (await newInvoice(worker)).rows,
  payment,
  refund,
  creditNote,
  stateUpdate,
  deleteDraft,
  keyChange,
  keySwap,
  profileUpdate,
  rolledBack: async (worker) => (await newInvoice(worker)).rows,
  savepoint,
  large,
};

interface Invoice {
  readonly number: string;
  readonly customer_id: string;
  readonly currency: string;
  readonly total: string;
  readonly state: string;
}

async function newInvoice(worker: Worker): Promise<{ number: string; rows: number }> {
  const { client, random } = worker;
  const draft = random.next() < 0.25;
  const lines = Array.from({ length: random.upTo(6) }, () => ({ quantity: random.upTo(40) / 4, cents: 500 + random.upTo(90_000) }));
  const customer = await pickCustomer(worker);
  const number = await one(
    client.query<{ number: string }>(
      `with lines as (
         select line_no, quantity::numeric, case when $2 = 'JPY' then cents::numeric else cents::numeric / 100 end as price
           from unnest($3::text[], $4::text[]) with ordinality as given(quantity, cents, line_no)
       ), head as (
         insert into billing.invoices (number, customer_id, state, currency, total, issued_at, due_on, notes, updated_at)
         select 'INV-' || to_char(nextval('billing.invoice_number'), 'FM00000000'), $1, $5::billing.invoice_state, $2, sum(round(quantity * price, 2)),
                now(), current_date + 20, $6, now() from lines
         returning number
       ), body as (
         insert into billing.invoice_lines (invoice_number, line_no, description, quantity, unit_price, currency)
         select number, line_no, 'Usage', quantity, price, $2 from head, lines
       )
       select number from head`,
      [customer.id, customer.currency, lines.map((line) => String(line.quantity)), lines.map((line) => String(line.cents)), draft ? "draft" : "open", random.next() < 0.1 ? "Ｎet 20 — „dringend“ 🧾\n\t\\N" : null],
    ),
  );
  if (!draft) await owe(worker, customer.id, number.number, "total");
  return { number: number.number, rows: 1 + lines.length + (draft ? 0 : 1) + (await audit(worker, "invoice.created", number.number)) };
}

/** Adds an invoice's total to its customer's balance; a few customers are everybody's favourite. */
async function owe({ client }: Worker, customer: string, invoice: string, expression: "total" | "-total"): Promise<void> {
  await client.query(`update billing.customers set balance = balance + (select ${expression} from billing.invoices where number = $2) where id = $1`, [customer, invoice]);
}

async function payment(worker: Worker): Promise<number> {
  const { client, random } = worker;
  const invoice = await pickInvoice(worker, "state in ('open', 'overdue')");
  if (invoice === undefined) return 0;
  await client.query("insert into billing.payments (received_on, invoice_number, amount, currency, method, received_at) values ((now() at time zone 'UTC')::date, $1, $2, $3, $4, now())", [
    invoice.number,
    invoice.total,
    invoice.currency,
    random.oneOf(["card", "transfer", "direct debit"]),
  ]);
  await client.query("update billing.invoices set state = 'paid' where number = $1", [invoice.number]);
  await owe(worker, invoice.customer_id, invoice.number, "-total");
  await client.query("update billing.counters set value = value + 1 where name = 'payments'");
  return 4 + (await audit(worker, "payment.received", invoice.number));
}

async function refund(worker: Worker): Promise<number> {
  const { client, random } = worker;
  const written = await client.query<{ payment_id: string }>(
    `insert into billing.refunds (payment_received_on, payment_id, amount, currency, reason, refunded_at)
     select received_on, id, case when currency = 'JPY' then round(amount / 10) else round(amount / 10, 2) end, currency, $2, now()
       from billing.payments where invoice_number >= $1 order by invoice_number limit 1
     returning payment_id`,
    [await randomNumber(worker), random.oneOf(["goodwill", "duplicate", null])],
  );
  const paid = written.rows[0];
  return paid === undefined ? 0 : 1 + (await audit(worker, "payment.refunded", paid.payment_id));
}

async function creditNote(worker: Worker): Promise<number> {
  const { client } = worker;
  const invoice = await pickInvoice(worker, "state in ('open', 'overdue', 'paid')");
  if (invoice === undefined) return 0;
  // The customer's row is the lock under which the next sequence number is taken.
  await client.query("update billing.customers set balance = balance - round($2::numeric / 10) where id = $1", [invoice.customer_id, invoice.total]);
  await client.query(
    `insert into billing.credit_notes (customer_id, sequence, invoice_number, amount, currency, reason, issued_at)
     select $1, coalesce(max(sequence), 0) + 1, $2, round($3::numeric / 10), $4, '{"code": "SLA", "note": "späte Lieferung"}', now()
       from billing.credit_notes where customer_id = $1`,
    [invoice.customer_id, invoice.number, invoice.total, invoice.currency],
  );
  return 2 + (await audit(worker, "credit_note.issued", invoice.number));
}

async function stateUpdate(worker: Worker): Promise<number> {
  const { client } = worker;
  const invoice = await pickInvoice(worker, "state in ('draft', 'open', 'overdue')");
  if (invoice === undefined) return 0;
  const next = invoice.state === "draft" ? "open" : "overdue";
  await client.query("update billing.invoices set state = $2::billing.invoice_state, reminders = reminders + 1 where number = $1", [invoice.number, next]);
  if (next === "open") await owe(worker, invoice.customer_id, invoice.number, "total");
  return (next === "open" ? 2 : 1) + (await audit(worker, `invoice.${next}`, invoice.number));
}

async function deleteDraft(worker: Worker): Promise<number> {
  const { client } = worker;
  const invoice = await pickInvoice(worker, "state = 'draft'");
  if (invoice === undefined) return 0;
  const lines = await client.query("delete from billing.invoice_lines where invoice_number = $1", [invoice.number]);
  await client.query("delete from billing.invoices where number = $1", [invoice.number]);
  return 1 + (lines.rowCount ?? 0) + (await audit(worker, "invoice.discarded", invoice.number));
}

/** A new number for an invoice: its lines, payments and credit notes follow by ON UPDATE CASCADE. */
async function keyChange(worker: Worker): Promise<number> {
  const { client } = worker;
  const invoice = await pickInvoice(worker, "true");
  if (invoice === undefined) return 0;
  await client.query("update billing.invoices set number = 'INV-' || to_char(nextval('billing.invoice_number'), 'FM00000000') where number = $1", [invoice.number]);
  return 1 + (await audit(worker, "invoice.renumbered", invoice.number));
}

async function keySwap(worker: Worker): Promise<number> {
  const first = await pickInvoice(worker, "true");
  const second = await pickInvoice(worker, "true");
  if (first === undefined || second === undefined || first.number === second.number) return 0;
  const steps = [
    [first.number, `TMP-${first.number}`],
    [second.number, first.number],
    [`TMP-${first.number}`, second.number],
  ];
  for (const step of steps) await worker.client.query("update billing.invoices set number = $2 where number = $1", step);
  return 3 + (await audit(worker, "invoice.swapped", `${first.number} ${second.number}`));
}

/** Leaves the large document alone, which the log then does not carry; now and then it is written anew. */
async function profileUpdate(worker: Worker): Promise<number> {
  const { client, random } = worker;
  const customer = await pickCustomer(worker);
  const rewritten = random.next() < 0.1;
  await client.query(
    `update billing.customers set email = $2${rewritten ? ", profile = jsonb_build_object('tier', 'gold', 'history', (select string_agg(md5($2 || n), ' ') from generate_series(1, 200) n))" : ""} where id = $1`,
    [customer.id, `customer.${customer.id}.${random.upTo(1_000_000)}@example.com`],
  );
  return 1 + (await audit(worker, "customer.updated", customer.id));
}

async function savepoint(worker: Worker): Promise<number> {
  const { client } = worker;
  const invoice = await newInvoice(worker);
  await client.query("savepoint attempt");
  await client.query("insert into billing.invoice_lines (invoice_number, line_no, description, quantity, unit_price, currency) select number, 1000, 'Never seen', 1, 1, currency from billing.invoices where number = $1", [invoice.number]);
  await client.query("update billing.customers set balance = balance + 1000000 where id = (select customer_id from billing.invoices where number = $1)", [invoice.number]);
  await client.query("rollback to savepoint attempt");
  return invoice.rows + (await audit(worker, "invoice.confirmed", invoice.number));
}

/** Alternately a dunning run over many invoices and an import of many audit entries, each in one transaction. */
async function large(worker: Worker): Promise<number> {
  const { client, random, largeRows } = worker;
  const dunning = random.next() < 0.5;
  const written = dunning
    ? await client.query(
        `update billing.invoices set reminders = (reminders + 1) % 30000
          where number in (select number from billing.invoices where number >= $1 order by number limit $2 for update skip locked)`,
        [await randomNumber(worker), largeRows],
      )
    : await client.query(
        `insert into billing.audit_log (actor, action, subject, detail)
         select 'meter', 'usage.imported', 'reading ' || i, jsonb_build_object('kwh', round(i * 0.37, 3)::text) from generate_series(1, $1::integer) i`,
        [largeRows],
      );
  await client.query("update billing.counters set value = value + 1 where name = 'large runs'");
  return (written.rowCount ?? 0) + 1 + (await audit(worker, dunning ? "dunning.run" : "usage.import", String(written.rowCount)));
}

// ---- picking -----------------------------------------------------------------------------------------------------

type InvoiceCondition = "true" | "state = 'draft'" | "state in ('open', 'overdue')" | "state in ('open', 'overdue', 'paid')" | "state in ('draft', 'open', 'overdue')";

/** Locks an invoice that nobody else has locked: the first at or after a random number. */
async function pickInvoice(worker: Worker, condition: InvoiceCondition): Promise<Invoice | undefined> {
  const { rows } = await worker.client.query<Invoice>(
    `select number, customer_id, currency, total, state from billing.invoices
      where number >= $1 and ${condition} order by number limit 1 for update skip locked`,
    [await randomNumber(worker)],
  );
  return rows[0];
}

/** Spread over what has been issued so far. */
async function randomNumber({ client, random }: Worker): Promise<string> {
  const share = random.next();
  const { number } = await one(client.query<{ number: string }>("select 'INV-' || to_char(ceil(last_value * $1::float8), 'FM00000000') as number from billing.invoice_number", [share]));
  return number;
}

/** A fifth of the time one of ten hot customers, otherwise any. */
async function pickCustomer({ client, random }: Worker): Promise<{ id: string; currency: string }> {
  const hot = random.next() < 0.2;
  const place = random.next();
  return one(
    client.query<{ id: string; currency: string }>(
      `select id, currency from billing.customers
        where id >= ($1::float8 * ${hot ? "10" : "(select max(id) from billing.customers)"})::bigint order by id limit 1`,
      [place],
    ),
  );
}

async function audit({ client, random }: Worker, action: string, subject: string): Promise<number> {
  await client.query("insert into billing.audit_log (actor, action, subject, detail) values ($1, $2, $3, jsonb_build_object('request', $4::integer))", [
    random.oneOf(["web", "batch", "ops@example.com"]),
    action,
    subject,
    random.upTo(1_000_000_000),
  ]);
  return 1;
}

async function one<Row extends pg.QueryResultRow>(result: Promise<pg.QueryResult<Row>>): Promise<Row> {
  const row = (await result).rows[0];
  if (row === undefined) throw new Error("the demo schema is empty: seed it first");
  return row;
}
