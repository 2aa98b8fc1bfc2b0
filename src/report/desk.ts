/** Finance's desk: makes reports from comparisons, takes signatures, reads statements, counts clean days. */
import { createHash } from "node:crypto";
import { addDays, startOfDay, ZONE_DATA_VERSION, localDate } from "../compare/index.ts";
import {
  DualrunError, formatAgreement,
  type Agreement, type FinanceControl, type Report, type ReportHead, type SqlExecutor,
} from "../core/index.ts";
import { BankTotals, Breaks, Comparisons, Reports, refusedRows } from "../state/index.ts";
import { parseBankCsv } from "./bank.ts";
import { buildReport, type BankRule } from "./build.ts";

export interface DeskOptions {
  readonly migration: string;
  readonly program: string;
  readonly zone: string;
  readonly bank: readonly BankRule[];
  /** Throws a DualrunError while the target is out of reach. */
  readonly sql: () => SqlExecutor;
  readonly agreement: () => Agreement;
  readonly lagSeconds: () => number | null;
  /** Appends to the audit trail and returns its new head. */
  readonly audit: (who: string, what: string, note: string | null) => Promise<string>;
  /** Called after anything that metrics show. */
  readonly changed: (cleanStreak: number, lastSignature: string | null) => void;
}

const DATE = /^\d{4}-\d{2}-\d{2}$/;
const MOST_DAYS_BACK = 3_660;

export class FinanceDesk implements FinanceControl {
  private readonly options: DeskOptions;

  constructor(options: DeskOptions) {
    this.options = options;
  }

  reports(): Promise<readonly ReportHead[]> {
    return this.memory().reports.heads();
  }

  report(date: string): Promise<Report | null> {
    return this.memory().reports.find(checkedDate(date));
  }

  async prepare(date: string, by: string): Promise<Report> {
    const { migration, program, zone, agreement, lagSeconds } = this.options;
    const sql = this.options.sql();
    const { reports, breaks, comparisons, bank } = this.memory();
    const [latest] = await comparisons.latestWhole();
    if (latest === undefined) throw new DualrunError("DR7101", `nothing was compared yet: there is no report for ${checkedDate(date)}`, { next: "`dualrun compare`, then prepare it." });
    const cutOff = new Date(startOfDay(zone, addDays(checkedDate(date), 1))).toISOString();
    if (Date.parse(cutOff) > Date.now() + 2 * 86_400_000) throw new DualrunError("DR7101", `${date} has not begun`, { next: "Name a business date that has." });
    const before = await reports.find(date);
    const auditHead = await this.options.audit(by, `report of ${date} prepared`, null);
    const report = await reports.save(buildReport({
      migration, program, zone, date, cutOff, auditHead,
      version: (before?.document.version ?? 0) + 1, createdAt: new Date().toISOString(), preparer: by,
      configuration: createHash("sha256").update(formatAgreement(agreement())).update(zone).digest("hex"), zoneData: ZONE_DATA_VERSION,
      comparison: latest, classes: agreement().classes.map(({ cls }) => cls), breaks: await breaks.list({ open: true }), refused: await refusedRows(sql, migration),
      bank: await bank.of(date), bankRules: this.options.bank,
      previous: await reports.before(date), previousHash: await reports.lastHash(), cleanStreak: await this.streakBefore(date), lagSeconds: lagSeconds(),
    }));
    await this.tell();
    return report;
  }

  /** The daily run: the report of the day that has ended last, unless it is signed. */
  async prepareDaily(now = Date.now()): Promise<Report | null> {
    const date = addDays(localDate(this.options.zone, now), -1);
    if ((await this.memory().reports.find(date))?.signOff != null) return null;
    return this.prepare(date, "dualrun");
  }

  async signOff(date: string, sign: { readonly note: string; readonly onBehalfOf: string | null; readonly hash: string | null }, by: string): Promise<Report> {
    const { reports } = this.memory();
    const report = await reports.find(checkedDate(date));
    if (report === null) throw new DualrunError("DR7101", `there is no report for ${date}`);
    const { document, hash, signOff } = report;
    const refuse = (why: string): never => {
      throw new DualrunError("DR7102", why, { where: `report of ${date}, version ${document.version}` });
    };
    if (signOff !== null) refuse(`it is signed by ${signOff.approver} already`);
    if (document.provisional) refuse("the day was not over when its figures were taken");
    if (document.preparer === by) refuse(`${by} prepared it: somebody else has to approve`);
    if (sign.hash !== null && sign.hash !== hash) refuse(`it was made again since: its hash is ${hash.slice(0, 16)}…, not ${sign.hash.slice(0, 16)}…`);
    await reports.sign(date, hash, { approver: by, onBehalfOf: sign.onBehalfOf, note: sign.note, at: new Date().toISOString() });
    await this.options.audit(by, `report of ${date} signed, version ${document.version}, ${hash}${sign.onBehalfOf === null ? "" : `, for ${sign.onBehalfOf}`}`, sign.note);
    await this.tell();
    return (await reports.find(date))!;
  }

  async importBank(csv: string, by: string): Promise<{ readonly lines: number; readonly dates: readonly string[] }> {
    const lines = parseBankCsv(csv);
    await this.memory().bank.import(lines);
    const dates = [...new Set(lines.map(({ date }) => date))].toSorted();
    await this.options.audit(by, `bank totals imported: ${lines.length} lines, ${dates[0]} to ${dates.at(-1)}`, null);
    return { lines: lines.length, dates };
  }

  /** Up to the latest business date that is over. */
  cleanStreak(now = Date.now()): Promise<number> {
    return this.streakBefore(localDate(this.options.zone, now));
  }

  /** What metrics show, after a start and after every change. */
  async tell(): Promise<void> {
    this.options.changed(await this.cleanStreak(), await this.memory().reports.lastSignature());
  }

  private async streakBefore(date: string): Promise<number> {
    const heads = new Map((await this.memory().reports.heads()).map((head) => [head.date, head]));
    let days = 0;
    while (days < MOST_DAYS_BACK && isCleanDay(heads.get(addDays(date, -1 - days)))) days += 1;
    return days;
  }

  private memory(): { readonly reports: Reports; readonly breaks: Breaks; readonly comparisons: Comparisons; readonly bank: BankTotals } {
    const sql = this.options.sql();
    const { migration } = this.options;
    return { reports: new Reports(sql, migration), breaks: new Breaks(sql, migration), comparisons: new Comparisons(sql, migration), bank: new BankTotals(sql, migration) };
  }
}

/** Compared, clean, on time and signed; a day without a report is not. */
function isCleanDay(head: ReportHead | undefined): boolean {
  return head !== undefined && head.clean && !head.late && !head.provisional && head.signedBy !== null;
}

function checkedDate(date: string): string {
  if (DATE.test(date) && new Date(`${date}T00:00:00Z`).toJSON()?.startsWith(date) === true) return date;
  throw new DualrunError("DR1004", `${JSON.stringify(date.slice(0, 40))} is no date like 2026-11-21`);
}
