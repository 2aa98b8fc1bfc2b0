/** A report as PDF, for the archive. */
import type { ClassReport, MoneyLine, Report } from "../core/index.ts";

const MARGIN = 42;
const SMALL = 8;
const COLUMNS = ["", "source", "target", "difference"] as const;

export async function reportPdf(report: Report): Promise<Buffer> {
  const { document } = report;
  const { default: PDFDocument } = await import("pdfkit"); // large, and needed by few
  // The same report is always the same file: nothing in it depends on when it was printed.
  const pdf = new PDFDocument({ size: "A4", margin: MARGIN, bufferPages: true, info: { Title: `Daily reconciliation ${document.date}, ${document.migration}`, CreationDate: new Date(document.createdAt) } });
  const chunks: Buffer[] = [];
  pdf.on("data", (chunk: Buffer) => chunks.push(chunk));
  const ended = new Promise<void>((resolve, reject) => pdf.once("end", resolve).once("error", reject));
  head(pdf, report);
  for (const cls of document.classes) classSection(pdf, cls);
  breaks(pdf, report);
  footers(pdf, report);
  pdf.end();
  await ended;
  return Buffer.concat(chunks);
}

type Pdf = InstanceType<typeof import("pdfkit")>;

function head(pdf: Pdf, { document, signOff }: Report): void {
  pdf.font("Helvetica-Bold").fontSize(18).text(`Daily reconciliation ${document.date}`);
  pdf.font("Helvetica").fontSize(10).text(`${latin(document.migration)} · version ${document.version} · ${document.clean ? "clean" : "NOT CLEAN"}${document.provisional ? " · provisional: the day was not over" : ""}${document.late ? " · late" : ""}`).moveDown(0.5);
  const facts: readonly (readonly [string, string])[] = [
    ["Cut", `${document.comparison.at}, comparison ${document.comparison.id}${document.comparison.full ? " (full)" : ""}`],
    ["Position", `source ${document.comparison.sourcePosition}, target ${document.comparison.targetPosition}`],
    ["Cut-off", `${document.cutOff}, ${document.zone} (zone data ${document.zoneData})`],
    ["Configuration", `${document.configuration}, dualrun ${document.program}`],
    ["Clean days in a row", String(document.cleanStreak)],
    ["Lag", document.lagSeconds === null ? "not measured" : `${document.lagSeconds.toFixed(1)} s`],
    ["Prepared by", `${latin(document.preparer)}, ${document.createdAt}`],
    ["Approved by", signOff === null ? "not signed" : `${latin(signOff.approver)}${signOff.onBehalfOf === null ? "" : ` for ${latin(signOff.onBehalfOf)}`}, ${signOff.at}: ${latin(signOff.note)}`],
  ];
  pdf.fontSize(SMALL);
  for (const [name, value] of facts) pdf.font("Helvetica-Bold").text(`${name}: `, { continued: true }).font("Helvetica").text(value);
  pdf.moveDown();
}

function classSection(pdf: Pdf, cls: ClassReport): void {
  room(pdf, 60 + cls.money.length * 60);
  pdf.font("Helvetica-Bold").fontSize(11).text(`${latin(cls.class)}: ${cls.verdict.replaceAll("_", " ")}`);
  pdf.fontSize(SMALL);
  if (cls.note !== null) pdf.font("Helvetica").text(latin(cls.note));
  line(pdf, COLUMNS, true);
  line(pdf, ["records", cls.records.source, cls.records.target, cls.difference]);
  if (cls.dated !== null) line(pdf, ["dated on the day", cls.dated.source, cls.dated.target, ""]);
  if (cls.undated !== null && cls.undated.source !== "0") line(pdf, ["without a date", cls.undated.source, cls.undated.target, ""]);
  for (const money of cls.money) moneyLines(pdf, money);
  for (const { reason, rows } of cls.excluded) pdf.font("Helvetica-Oblique").text(`excluded: ${rows === null ? "" : `${rows} rows `}${latin(reason)}`, MARGIN);
  pdf.moveDown(0.8);
}

function moneyLines(pdf: Pdf, { column, currency, opening, movements, backdated, closing, difference, bank }: MoneyLine): void {
  const name = `${latin(column)} ${currency === null ? "(no currency)" : latin(currency)}`;
  line(pdf, [`${name}, opening`, opening.source, opening.target, ""]);
  line(pdf, ["   movements of the day", movements.source, movements.target, ""]);
  if (/[1-9]/.test(backdated.source + backdated.target)) line(pdf, ["   backdated movements", backdated.source, backdated.target, ""]);
  line(pdf, ["   closing", closing.source, closing.target, difference], true);
  if (bank !== null) line(pdf, [`   bank (tolerance ${bank.tolerance})`, "", bank.total, `${bank.difference}${bank.within ? "" : " !"}`]);
}

function breaks(pdf: Pdf, { document }: Report): void {
  room(pdf, 40);
  pdf.font("Helvetica-Bold").fontSize(11).text("Open breaks", MARGIN).fontSize(SMALL).font("Helvetica");
  if (document.breaks.length === 0) pdf.text("none");
  for (const one of document.breaks) pdf.text(`${one.id}: ${latin(one.class)}, ${one.category}, ${one.rows} rows, open since ${one.openedAt}${one.owner === null ? "" : `, ${latin(one.owner)}`}${one.note === null ? "" : `: ${latin(one.note)}`}`);
}

function line(pdf: Pdf, cells: readonly string[], strong = false): void {
  room(pdf, 14);
  const width = (pdf.page.width - 2 * MARGIN) / 4;
  const y = pdf.y;
  pdf.font(strong ? "Helvetica-Bold" : "Helvetica");
  cells.forEach((text, i) => pdf.text(latin(text), MARGIN + i * width, y, { width: width - 6, align: i === 0 ? "left" : "right", lineBreak: false }));
  pdf.x = MARGIN;
  pdf.y = y + 11;
}

function room(pdf: Pdf, height: number): void {
  if (pdf.y + Math.min(height, 400) > pdf.page.height - MARGIN - 20) pdf.addPage();
}

function footers(pdf: Pdf, { document, hash }: Report): void {
  const { count } = pdf.bufferedPageRange();
  for (let page = 0; page < count; page++) {
    pdf.switchToPage(page);
    pdf.page.margins.bottom = 0; // a footer below the margin must not begin a page
    pdf.font("Helvetica").fontSize(6.5).text(`SHA-256 ${hash} · before ${document.previousHash ?? "none"} · audit ${document.auditHead ?? "none"} · page ${page + 1} of ${count}`, MARGIN, pdf.page.height - 28, { lineBreak: false });
  }
}

/** The standard fonts hold Latin-1 only; what they cannot show is shown by its code, never dropped. */
function latin(text: string): string {
  return text.replaceAll(/[^\x20-\x7e\xa0-\xff]/gu, (character) => (character === "–" ? "-" : `\\u{${character.codePointAt(0)!.toString(16)}}`));
}
