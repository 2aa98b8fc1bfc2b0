/**
 * A live billing system: a seeded random mix of the transactions that a mirror has to survive, paced by the clock.
 * Every committed transaction leaves at least one row in the audit log.
 */
import pg from "pg";

import { runWorkload, type Worker, type Workload, type WorkloadKind, type WorkloadOptions } from "./workload-loop.ts";

export { WORKLOAD_KINDS, type Workload, type WorkloadKind, type WorkloadOptions, type WorkloadTotals } from "./workload-loop.ts";

type PostgresWorker = Worker<pg.Client>;

const RETRIABLE: ReadonlySet<string> = new Set(["40P01", "40001"]);

/** Starts writing to a seeded demo schema until `stop` is called or an error other than a deadlock or serialization failure occurs. */
export function startWorkload(url: string, options: WorkloadOptions = {}): Promise<Workload> {
  const dialect = {
    connect,
    disconnect: (client: pg.Client) => client.end().catch(() => undefined),
    run: (client: pg.Client, statement: string) => client.query(statement),
    isRetriable: (error: unknown) => RETRIABLE.has((error as pg.DatabaseError).code ?? ""),
    transactions,
  };
  return runWorkload(dialect, url, options);
}

async function connect(connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString, application_name: "dualrun-demo-workload" });
  // A lost connection makes the next query reject; without a listener it would end the process.
  client.on("error", () => {});
  await client.connect();
  return client;
}

// ---- transactions ------------------------------------------------------------------------------------------------

const transactions: Record<WorkloadKind, (worker: PostgresWorker) => Promise<number>> = {
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

async function newInvoice(worker: PostgresWorker): Promise<{ number: string; rows: number }> {
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
async function owe({ client }: PostgresWorker, customer: string, invoice: string, expression: "total" | "-total"): Promise<void> {
  await client.query(`update billing.customers set balance = balance + (select ${expression} from billing.invoices where number = $2) where id = $1`, [customer, invoice]);
}

async function payment(worker: PostgresWorker): Promise<number> {
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

async function refund(worker: PostgresWorker): Promise<number> {
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

async function creditNote(worker: PostgresWorker): Promise<number> {
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

async function stateUpdate(worker: PostgresWorker): Promise<number> {
  const { client } = worker;
  const invoice = await pickInvoice(worker, "state in ('draft', 'open', 'overdue')");
  if (invoice === undefined) return 0;
  const next = invoice.state === "draft" ? "open" : "overdue";
  await client.query("update billing.invoices set state = $2::billing.invoice_state, reminders = reminders + 1 where number = $1", [invoice.number, next]);
  if (next === "open") await owe(worker, invoice.customer_id, invoice.number, "total");
  return (next === "open" ? 2 : 1) + (await audit(worker, `invoice.${next}`, invoice.number));
}

async function deleteDraft(worker: PostgresWorker): Promise<number> {
  const { client } = worker;
  const invoice = await pickInvoice(worker, "state = 'draft'");
  if (invoice === undefined) return 0;
  const lines = await client.query("delete from billing.invoice_lines where invoice_number = $1", [invoice.number]);
  await client.query("delete from billing.invoices where number = $1", [invoice.number]);
  return 1 + (lines.rowCount ?? 0) + (await audit(worker, "invoice.discarded", invoice.number));
}

/** A new number for an invoice: its lines, payments and credit notes follow by ON UPDATE CASCADE. */
async function keyChange(worker: PostgresWorker): Promise<number> {
  const { client } = worker;
  const invoice = await pickInvoice(worker, "true");
  if (invoice === undefined) return 0;
  await client.query("update billing.invoices set number = 'INV-' || to_char(nextval('billing.invoice_number'), 'FM00000000') where number = $1", [invoice.number]);
  return 1 + (await audit(worker, "invoice.renumbered", invoice.number));
}

async function keySwap(worker: PostgresWorker): Promise<number> {
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
async function profileUpdate(worker: PostgresWorker): Promise<number> {
  const { client, random } = worker;
  const customer = await pickCustomer(worker);
  const rewritten = random.next() < 0.1;
  await client.query(
    `update billing.customers set email = $2${rewritten ? ", profile = jsonb_build_object('tier', 'gold', 'history', (select string_agg(md5($2 || n), ' ') from generate_series(1, 200) n))" : ""} where id = $1`,
    [customer.id, `customer.${customer.id}.${random.upTo(1_000_000)}@example.com`],
  );
  return 1 + (await audit(worker, "customer.updated", customer.id));
}

async function savepoint(worker: PostgresWorker): Promise<number> {
  const { client } = worker;
  const invoice = await newInvoice(worker);
  await client.query("savepoint attempt");
  await client.query("insert into billing.invoice_lines (invoice_number, line_no, description, quantity, unit_price, currency) select number, 1000, 'Never seen', 1, 1, currency from billing.invoices where number = $1", [invoice.number]);
  await client.query("update billing.customers set balance = balance + 1000000 where id = (select customer_id from billing.invoices where number = $1)", [invoice.number]);
  await client.query("rollback to savepoint attempt");
  return invoice.rows + (await audit(worker, "invoice.confirmed", invoice.number));
}

/** Alternately a dunning run over many invoices and an import of many audit entries, each in one transaction. */
async function large(worker: PostgresWorker): Promise<number> {
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
async function pickInvoice(worker: PostgresWorker, condition: InvoiceCondition): Promise<Invoice | undefined> {
  const { rows } = await worker.client.query<Invoice>(
    `select number, customer_id, currency, total, state from billing.invoices
      where number >= $1 and ${condition} order by number limit 1 for update skip locked`,
    [await randomNumber(worker)],
  );
  return rows[0];
}

/** Spread over what has been issued so far. */
async function randomNumber({ client, random }: PostgresWorker): Promise<string> {
  const share = random.next();
  const { number } = await one(client.query<{ number: string }>("select 'INV-' || to_char(ceil(last_value * $1::float8), 'FM00000000') as number from billing.invoice_number", [share]));
  return number;
}

/** A fifth of the time one of ten hot customers, otherwise any. */
async function pickCustomer({ client, random }: PostgresWorker): Promise<{ id: string; currency: string }> {
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

async function audit({ client, random }: PostgresWorker, action: string, subject: string): Promise<number> {
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
