/** The live billing system of workload.ts on MySQL and MariaDB: the same kinds of transactions, in their SQL. */
import type { Connection, SqlError, UpsertResult } from "mariadb";
import { connectDemo } from "./mysql-session.ts";
import { runWorkload, type Worker, type Workload, type WorkloadDialect, type WorkloadKind, type WorkloadOptions } from "./workload-loop.ts";

type MysqlWorker = Worker<Connection>;

/** Deadlock, lock wait timeout, and MariaDB's "record has changed since last read". */
const RETRIABLE: ReadonlySet<number> = new Set([1213, 1205, 1020]);

const transactions: WorkloadDialect<Connection>["transactions"] = {
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
} satisfies Record<WorkloadKind, (worker: MysqlWorker) => Promise<number>>;

const DIALECT: WorkloadDialect<Connection> = {
  connect: async (url) => {
    const connection = await connectDemo(url);
    await connection.query("set session transaction isolation level read committed");
    return connection;
  },
  disconnect: (connection) => connection.end().catch(() => undefined),
  run: (connection, statement) => connection.query(statement),
  isRetriable: (error) => RETRIABLE.has((error as SqlError).errno),
  transactions,
};

/** Starts writing to a furnished demo until `stop` is called or an error other than a deadlock occurs. */
export function startMysqlWorkload(url: string, options: WorkloadOptions = {}): Promise<Workload> {
  return runWorkload(DIALECT, url, options);
}

/** Resolves to the number of rows that the statement found. */
async function write({ client }: MysqlWorker, sql: string, values: readonly unknown[] = []): Promise<number> {
  return (await client.query<UpsertResult>(sql, values)).affectedRows;
}

// ---- transactions ------------------------------------------------------------------------------------------------

async function newInvoice(worker: MysqlWorker): Promise<{ number: string; customer: number; rows: number }> {
  const { random } = worker;
  const draft = random.next() < 0.25;
  const customer = await pickCustomer(worker);
  const number = await nextNumber(worker);
  const lines = Array.from({ length: random.upTo(6) }, (_, i) => [number, i + 1, "Usage", random.upTo(40) / 4, price(500 + random.upTo(90_000), customer.currency), customer.currency]);
  await write(worker, "insert into invoices (number, customer_id, state, currency, total, due_on, notes) values (?, ?, ?, ?, 0, current_date + interval 20 day, ?)",
    [number, customer.id, draft ? "draft" : "open", customer.currency, random.next() < 0.1 ? "Ｎet 20 — „dringend“ 🧾\n\t\\N" : null]);
  await write(worker, `insert into invoice_lines (invoice_number, line_no, description, quantity, unit_price, currency) values ${lines.map(() => "(?, ?, ?, ?, ?, ?)").join(", ")}`, lines.flat());
  await write(worker, "update invoices set total = (select sum(amount) from invoice_lines where invoice_number = ?) where number = ?", [number, number]);
  if (!draft) await owe(worker, customer.id, number, "total");
  return { number, customer: customer.id, rows: 2 + lines.length + (draft ? 0 : 1) + (await audit(worker, "invoice.created", number)) };
}

function price(cents: number, currency: string): string {
  return currency === "JPY" ? String(cents) : `${Math.floor(cents / 100)}.${String(cents % 100).padStart(2, "0")}`;
}

async function nextNumber({ client }: MysqlWorker): Promise<string> {
  const { insertId } = await client.query<UpsertResult>("insert into invoice_numbers () values ()");
  return `INV-${String(insertId).padStart(8, "0")}`;
}

/** Adds an invoice's total to its customer's balance; a few customers are everybody's favourite. */
async function owe(worker: MysqlWorker, customer: number, invoice: string, expression: "total" | "-total"): Promise<void> {
  await write(worker, `update customers set balance = balance + (select ${expression} from invoices where number = ?) where id = ?`, [invoice, customer]);
}

async function payment(worker: MysqlWorker): Promise<number> {
  const invoice = await pickInvoice(worker, "state in ('open', 'overdue')");
  if (invoice === undefined) return 0;
  await write(worker, "insert into payments (received_on, id, invoice_number, amount, currency, method) values (current_date, unhex(replace(uuid(), '-', '')), ?, ?, ?, ?)",
    [invoice.number, invoice.total, invoice.currency, worker.random.oneOf(["card", "transfer", "direct debit"])]);
  await write(worker, "update invoices set state = 'paid' where number = ?", [invoice.number]);
  await owe(worker, invoice.customer_id, invoice.number, "-total");
  await write(worker, "update counters set value = value + 1 where name = 'payments'");
  return 4 + (await audit(worker, "payment.received", invoice.number));
}

async function refund(worker: MysqlWorker): Promise<number> {
  const written = await write(worker,
    `insert into refunds (id, payment_received_on, payment_id, amount, currency, reason)
     select unhex(replace(uuid(), '-', '')), received_on, id, round(amount / 10, if(currency = 'JPY', 0, 2)), currency, ? from payments where invoice_number >= ? order by invoice_number limit 1`,
    [worker.random.oneOf(["goodwill", "duplicate", null]), await randomNumber(worker)]);
  return written === 0 ? 0 : 1 + (await audit(worker, "payment.refunded", "a payment"));
}

async function creditNote(worker: MysqlWorker): Promise<number> {
  const invoice = await pickInvoice(worker, "state in ('open', 'overdue', 'paid')");
  if (invoice === undefined) return 0;
  // The customer's row is the lock under which the next sequence number is taken.
  await write(worker, "update customers set balance = balance - round(? / 10) where id = ?", [invoice.total, invoice.customer_id]);
  const [next] = await worker.client.query<{ sequence: number }[]>("select coalesce(max(sequence), 0) + 1 as sequence from credit_notes where customer_id = ?", [invoice.customer_id]);
  await write(worker, "insert into credit_notes (customer_id, sequence, invoice_number, amount, currency, reason) values (?, ?, ?, round(? / 10), ?, ?)",
    [invoice.customer_id, next!.sequence, invoice.number, invoice.total, invoice.currency, '{"code": "SLA", "note": "späte Lieferung"}']);
  return 2 + (await audit(worker, "credit_note.issued", invoice.number));
}

async function stateUpdate(worker: MysqlWorker): Promise<number> {
  const invoice = await pickInvoice(worker, "state in ('draft', 'open', 'overdue')");
  if (invoice === undefined) return 0;
  const next = invoice.state === "draft" ? "open" : "overdue";
  await write(worker, "update invoices set state = ?, reminders = reminders + 1 where number = ?", [next, invoice.number]);
  if (next === "open") await owe(worker, invoice.customer_id, invoice.number, "total");
  return (next === "open" ? 2 : 1) + (await audit(worker, `invoice.${next}`, invoice.number));
}

async function deleteDraft(worker: MysqlWorker): Promise<number> {
  const invoice = await pickInvoice(worker, "state = 'draft'");
  if (invoice === undefined) return 0;
  const lines = await write(worker, "delete from invoice_lines where invoice_number = ?", [invoice.number]);
  await write(worker, "update credit_notes set invoice_number = null where invoice_number = ?", [invoice.number]);
  await write(worker, "delete from invoices where number = ?", [invoice.number]);
  return 1 + lines + (await audit(worker, "invoice.discarded", invoice.number));
}

async function keyChange(worker: MysqlWorker): Promise<number> {
  const invoice = await pickInvoice(worker, "true");
  if (invoice === undefined) return 0;
  return (await renumber(worker, invoice.number, await nextNumber(worker))) + (await audit(worker, "invoice.renumbered", invoice.number));
}

async function keySwap(worker: MysqlWorker): Promise<number> {
  const first = await pickInvoice(worker, "true");
  const second = await pickInvoice(worker, "true");
  if (first === undefined || second === undefined || first.number === second.number) return 0;
  const aside = `TMP-${first.number}`;
  let rows = 0;
  for (const [from, to] of [[first.number, aside], [second.number, first.number], [aside, second.number]] as const) rows += await renumber(worker, from, to);
  return rows + (await audit(worker, "invoice.swapped", `${first.number} ${second.number}`));
}

async function renumber(worker: MysqlWorker, from: string, to: string): Promise<number> {
  let rows = await write(worker, "update invoices set number = ? where number = ?", [to, from]);
  for (const table of ["invoice_lines", "payments", "credit_notes"]) rows += await write(worker, `update ${table} set invoice_number = ? where invoice_number = ?`, [to, from]);
  return rows;
}

/** A customer's address, and a meter of theirs: read, corrected, or a reading is thrown away. Readings have no key. */
async function profileUpdate(worker: MysqlWorker): Promise<number> {
  const { random } = worker;
  const customer = await pickCustomer(worker);
  const rewritten = random.next() < 0.1 ? ", profile = json_object('tier', 'gold', 'history', repeat(sha2(email, 256), 100))" : "";
  await write(worker, `update customers set email = ?${rewritten} where id = ?`, [`customer.${customer.id}.${random.upTo(1_000_000)}@example.com`, customer.id]);
  const meter = `M-${random.upTo(400)}`;
  const readings = await random.oneOf([
    () => write(worker, "insert into meter_readings values (?, utc_timestamp(6), ? / 8, false)", [meter, random.upTo(5_000)]),
    () => write(worker, "update meter_readings set kwh = kwh + 0.125, estimated = true where meter = ? order by read_at limit 1", [meter]),
    () => write(worker, "delete from meter_readings where meter = ? order by read_at limit 1", [meter]),
  ])();
  return 1 + readings + (await audit(worker, "customer.updated", String(customer.id)));
}

async function savepoint(worker: MysqlWorker): Promise<number> {
  const { client } = worker;
  const invoice = await newInvoice(worker);
  await client.query("savepoint attempt");
  await write(worker, "insert into invoice_lines (invoice_number, line_no, description, quantity, unit_price, currency) select number, 1000, 'Never seen', 1, 1, currency from invoices where number = ?", [invoice.number]);
  await write(worker, "update customers set balance = balance + 1000000 where id = ?", [invoice.customer]);
  await client.query("rollback to savepoint attempt");
  return invoice.rows + (await audit(worker, "invoice.confirmed", invoice.number));
}

/** In turn a dunning run over many invoices, an import of many audit entries, or of many readings, each in one transaction. */
async function large(worker: MysqlWorker): Promise<number> {
  const { random, largeRows } = worker;
  const [action, sql, values] = random.oneOf([
    ["dunning.run", "update invoices set reminders = (reminders + 1) % 30000 where number >= ? order by number limit ?", [await randomNumber(worker), largeRows]],
    ["usage.import", "insert into audit_log (actor, action, subject, detail) select 'meter', 'usage.imported', concat('reading ', i), json_object('kwh', cast(i * 0.37 as char)) from tally where i <= ?", [largeRows]],
    ["meters.import", "insert into meter_readings select concat('M-', i % 500), utc_timestamp(6), i * 0.125, i % 5 = 0 from tally where i <= ?", [largeRows]],
  ] as const);
  const rows = await write(worker, sql, values);
  await write(worker, "update counters set value = value + 1 where name = 'large runs'");
  return rows + 1 + (await audit(worker, action, String(rows)));
}

// ---- picking -----------------------------------------------------------------------------------------------------

interface Invoice {
  readonly number: string;
  readonly customer_id: number;
  readonly currency: string;
  readonly total: string;
  readonly state: string;
}

type InvoiceCondition = "true" | "state = 'draft'" | "state in ('open', 'overdue')" | "state in ('open', 'overdue', 'paid')" | "state in ('draft', 'open', 'overdue')";

/** Locks an invoice that nobody else has locked: the first at or after a random number. */
async function pickInvoice(worker: MysqlWorker, condition: InvoiceCondition): Promise<Invoice | undefined> {
  const rows = await worker.client.query<Invoice[]>(`select number, customer_id, currency, total, state from invoices where number >= ? and ${condition} order by number limit 1 for update skip locked`, [await randomNumber(worker)]);
  return rows[0];
}

/** Spread over what has been issued so far. */
async function randomNumber({ client, random }: MysqlWorker): Promise<string> {
  const [last] = await client.query<{ n: number }[]>("select max(n) as n from invoice_numbers");
  return `INV-${String(random.upTo(last!.n)).padStart(8, "0")}`;
}

/** A fifth of the time one of ten hot customers, otherwise any; locked, because its balance may follow. */
async function pickCustomer({ client, random }: MysqlWorker): Promise<{ id: number; currency: string }> {
  const hot = random.next() < 0.2;
  const [last] = await client.query<{ id: number }[]>("select max(id) as id from customers");
  const rows = await client.query<{ id: number; currency: string }[]>("select id, currency from customers where id >= ? order by id limit 1 for update", [random.upTo(hot ? 10 : last!.id)]);
  return rows[0]!;
}

async function audit(worker: MysqlWorker, action: string, subject: string): Promise<number> {
  const { random } = worker;
  return write(worker, "insert into audit_log (actor, action, subject, detail) values (?, ?, ?, json_object('request', ?))", [random.oneOf(["web", "batch", "ops@example.com"]), action, subject, random.upTo(1_000_000_000)]);
}
