export { parseBankCsv } from "./bank.ts";
export { buildReport, type BankRule, type ReportParts } from "./build.ts";
export { reportCsv } from "./csv.ts";
export { FinanceDesk, type DeskOptions } from "./desk.ts";
export { reportPdf } from "./pdf.ts";
