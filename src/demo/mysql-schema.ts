/**
 * The demo's business in the terms of MySQL and MariaDB: DECIMAL money, TIMESTAMP and DATETIME with microseconds, ENUM, JSON, BINARY(16) keys,
 * a generated column, TINYINT(1) for booleans, a table without a key. On the target it has PostgreSQL's tables of schema.ts, and readings besides.
 *
 * Invoices change their numbers and no foreign key cascades, which the log would not show: the application changes what refers to them.
 */
import type { Connection } from "mariadb";
import { DEMO_CLASSES, DEMO_CURRENCIES, type DemoClass, type SeedOptions } from "./schema.ts";

/** The demo's tables, and one that has no key. */
export const MYSQL_DEMO_CLASSES: readonly DemoClass[] = [
  ...DEMO_CLASSES,
  { name: "meter_readings", table: "billing.meter_readings", kind: "record", money: [], occurredAt: null, sensitive: [] },
];

/** Beside what `createDemoSchema` makes on a PostgreSQL target. */
export const READINGS_ON_POSTGRES = `
create table billing.meter_readings (
  meter text not null,
  read_at timestamp not null,
  kwh numeric(12,3) not null,
  estimated boolean not null
);
`;

const NUMBER = "varchar(40) character set ascii collate ascii_bin";

const TABLES = [
  `create table customers (
    id bigint not null auto_increment primary key,
    account_code varchar(20) character set ascii collate ascii_bin not null unique,
    name varchar(200) not null,
    email varchar(200) not null,
    country char(2) not null,
    time_zone varchar(64) not null,
    currency char(3) not null,
    balance decimal(14,2) not null default 0,
    profile json not null,
    created_at timestamp(6) not null default current_timestamp(6),
    updated_at timestamp(6) not null default current_timestamp(6) on update current_timestamp(6)
  )`,
  `create table invoices (
    number ${NUMBER} not null primary key,
    customer_id bigint not null,
    state enum('draft', 'open', 'paid', 'overdue', 'void', 'credited') not null,
    currency char(3) not null,
    total decimal(14,2) not null,
    reminders smallint not null default 0,
    issued_at timestamp(6) not null default current_timestamp(6),
    due_on date not null,
    notes text,
    updated_at timestamp(6) not null default current_timestamp(6) on update current_timestamp(6),
    foreign key (customer_id) references customers (id)
  )`,
  `create table invoice_lines (
    invoice_number ${NUMBER} not null,
    line_no integer not null,
    description varchar(200) not null,
    quantity decimal(10,3) not null,
    unit_price decimal(14,2) not null,
    currency char(3) not null,
    amount decimal(14,2) generated always as (round(quantity * unit_price, 2)) stored,
    primary key (invoice_number, line_no)
  )`,
  `create table payments (
    received_on date not null,
    id binary(16) not null,
    invoice_number ${NUMBER} not null,
    amount decimal(14,2) not null,
    currency char(3) not null,
    method varchar(20) not null,
    received_at timestamp(6) not null default current_timestamp(6),
    primary key (received_on, id),
    key (invoice_number)
  )`,
  `create table refunds (
    id binary(16) not null primary key,
    payment_received_on date not null,
    payment_id binary(16) not null,
    amount decimal(14,2) not null,
    currency char(3) not null,
    reason varchar(200),
    refunded_at timestamp(6) not null default current_timestamp(6),
    foreign key (payment_received_on, payment_id) references payments (received_on, id)
  )`,
  `create table credit_notes (
    customer_id bigint not null,
    sequence integer not null,
    invoice_number ${NUMBER},
    amount decimal(14,2) not null,
    currency char(3) not null,
    reason json not null,
    issued_at timestamp(6) not null default current_timestamp(6),
    primary key (customer_id, sequence),
    key (invoice_number),
    foreign key (customer_id) references customers (id)
  )`,
  `create table counters (
    name varchar(40) character set ascii collate ascii_bin not null primary key,
    value bigint not null,
    updated_at timestamp(6) not null default current_timestamp(6) on update current_timestamp(6)
  )`,
  `create table audit_log (
    id bigint not null auto_increment primary key,
    occurred_at timestamp(6) not null default current_timestamp(6),
    actor varchar(100) not null,
    action varchar(60) not null,
    subject varchar(100) not null,
    detail json not null
  )`,
  `create table meter_readings (
    meter varchar(20) not null,
    read_at datetime(6) not null,
    kwh decimal(12,3) not null,
    estimated tinyint(1) not null,
    key (meter)
  )`,
  // The application's own: not mirrored.
  "create table invoice_numbers (n bigint not null auto_increment primary key)",
  "create table tally (i integer not null primary key)",
];

const MIRRORED = MYSQL_DEMO_CLASSES.map(({ name }) => name);

/** Makes the tables in the connection's database, and fills them, the same rows every time; resolves to the number of mirrored rows. */
export async function furnishMysql(connection: Connection, options: SeedOptions = {}): Promise<number> {
  const scale = options.scale ?? 1;
  const invoices = Math.max(200, Math.round(50_000 * scale));
  const customers = Math.max(40, Math.round(8_000 * scale));
  for (const statement of [...TABLES, TALLY, ...seedStatements(customers, invoices), `analyze table ${MIRRORED.join(", ")}`]) await connection.query(statement);
  const counts = await connection.query<{ n: number }[]>(MIRRORED.map((name) => `select count(*) as n from ${name}`).join(" union all "));
  return counts.reduce((sum, { n }) => sum + n, 0);
}

const DIGITS = `(${Array.from({ length: 10 }, (_, d) => `select ${d} as d`).join(" union all ")})`;
/** 1 to 100,000. */
const TALLY = `insert into tally select 1 + a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d from ${["a", "b", "c", "d", "e"].map((name) => `${DIGITS} as ${name}`).join(" cross join ")}`;

const oneOf = (index: string, ...choices: readonly string[]): string => `elt(1 + ${index} % ${choices.length}, ${choices.map((choice) => `'${choice.replaceAll("'", "''")}'`).join(", ")})`;
const ordinal = "cast(substring(number, 5) as unsigned)";

/** Plausible, and the same everywhere: arithmetic on the row's number, no RAND(). */
function seedStatements(customers: number, invoices: number): string[] {
  const paidAt = `issued_at + interval (1 + ${ordinal} % 400) hour`;
  return [
    `insert into customers (id, account_code, name, email, country, time_zone, currency, profile, created_at, updated_at)
     select i, concat('ACC-', lpad(i, 6, '0')), concat(${oneOf("i", "Ada", "Zoë", "Łukasz", "Māui", "Søren", "José", "Aroha", "Mei")}, ' ', ${oneOf("i", "O'Brien", "Müller", "Ngata", "Nguyễn", "Smith", "Ōtomo", "Garcia")}),
            concat('customer.', i, '@example.com'), ${oneOf("i", "NZ", "AU", "DE", "US", "GB", "JP")},
            ${oneOf("i", "Pacific/Auckland", "Australia/Adelaide", "Europe/Berlin", "America/New_York", "Europe/London", "Asia/Tokyo")}, ${oneOf("i", ...DEMO_CURRENCIES)},
            if(i % 10 = 0, json_object('tier', 'gold', 'history', repeat(sha2(i, 256), 100)), json_object('tier', 'standard', 'visits', i % 7)),
            '2023-03-01 08:30:00' + interval i * 97 minute, '2023-03-01 08:30:00' + interval i * 97 minute
       from tally where i <= ${customers}`,
    `insert into invoices (number, customer_id, state, currency, total, issued_at, due_on, notes, updated_at)
     select concat('INV-', lpad(i, 8, '0')), c.id, case when i % 17 = 0 then 'draft' when i % 10 < 6 then 'paid' when i % 10 < 8 then 'open' when i % 10 = 8 then 'overdue' else 'void' end,
            c.currency, 0, issued_at, date(issued_at) + interval 20 day, if(i % 12 = 0, concat('PO ', i, ' — net 20'), null), issued_at
       from (select i, timestamp('2024-02-01 09:00:00') + interval i * ${Math.floor((2 * 365 * 86_400) / invoices)} second as issued_at from tally where i <= ${invoices}) heads join customers c on c.id = 1 + i * 31 % ${customers}`,
    `insert into invoice_lines (invoice_number, line_no, description, quantity, unit_price, currency)
     select number, i, ${oneOf("(i - 1)", "Hosting", "Support hours", "Licence seat", "Data transfer", "Consulting")}, (1 + (n * 13 + i * 7) % 40) * 0.25,
            if(currency = 'JPY', 400 * (1 + (n * 7 + i) % 90), (499 + (n * 7919 + i * 101) % 20000) / 100), currency
       from (select number, currency, ${ordinal} as n from invoices) heads join tally on i <= 1 + n % 5`,
    "update invoices join (select invoice_number, sum(amount) as total from invoice_lines group by invoice_number) sums on invoice_number = number set invoices.total = sums.total, updated_at = issued_at",
    `insert into payments (received_on, id, invoice_number, amount, currency, method, received_at)
     select date(${paidAt}), unhex(left(sha2(concat('payment ', number), 256), 32)), number, total, currency, ${oneOf(ordinal, "card", "transfer", "direct debit")}, ${paidAt} from invoices where state = 'paid'`,
    `insert into refunds (id, payment_received_on, payment_id, amount, currency, reason, refunded_at)
     select unhex(left(sha2(concat('refund ', hex(id)), 256), 32)), received_on, id, round(amount / 4, if(currency = 'JPY', 0, 2)), currency, if(right(hex(id), 1) < '8', 'goodwill', null), received_at + interval 3 day
       from payments where left(hex(id), 1) = '0'`,
    `insert into credit_notes (customer_id, sequence, invoice_number, amount, currency, reason, issued_at)
     select customer_id, row_number() over (partition by customer_id order by number), number, round(total / 10), currency, json_object('code', 'SLA', 'hours', length(number)), issued_at + interval 10 day
       from invoices where state = 'overdue'`,
    "update customers join (select customer_id, sum(total) as total from invoices where state in ('open', 'overdue') group by customer_id) owed on customer_id = id set balance = owed.total, updated_at = created_at",
    "insert into counters (name, value, updated_at) select 'payments', count(*), '2026-02-01 00:00:00' from payments union all select 'large runs', 0, '2026-02-01 00:00:00'",
    "insert into audit_log (occurred_at, actor, action, subject, detail) select issued_at, 'import', 'invoice.created', number, json_object('total', cast(total as char), 'currency', currency) from invoices order by number",
    `insert into meter_readings (meter, read_at, kwh, estimated) select concat('M-', i % 500), '2026-01-01 00:00:00' + interval i % 1000 minute, (i % 700) * 0.125, i % 9 = 0 from tally where i <= ${invoices / 2}`,
    `insert into invoice_numbers (n) values (${invoices})`,
  ];
}
