/** Character sets: which one a collation belongs to, and their text as UTF-8. */
import iconv from "iconv-lite";
import { refused } from "./faults.ts";
import { LOWER_HALVES, UPPER_HALVES } from "./single-byte.ts";
import type { TupleWriter } from "./tuple-writer.ts";

/** Appends the text in [from, to) of `bytes`, as UTF-8. */
export type TextCopy = (bytes: Buffer, from: number, to: number, out: TupleWriter) => void;

/** The name of the character set of BINARY, VARBINARY and BLOB. */
export const BINARY = "binary";

const COLLATIONS_BELOW_100: Readonly<Record<string, readonly number[]>> = {
  big5: [1, 84], latin2: [2, 9, 21, 27, 77], dec8: [3, 69], cp850: [4, 80], latin1: [5, 8, 15, 31, 47, 48, 49, 94], hp8: [6, 72], koi8r: [7, 74],
  swe7: [10, 82], ascii: [11, 65], ujis: [12, 91], sjis: [13, 88], cp1251: [14, 23, 50, 51, 52], hebrew: [16, 71], tis620: [18, 89], euckr: [19, 85],
  latin7: [20, 41, 42, 79], koi8u: [22, 75], gb2312: [24, 86], greek: [25, 70], cp1250: [26, 34, 44, 66, 99], gbk: [28, 87], cp1257: [29, 58, 59],
  latin5: [30, 78], armscii8: [32, 64], utf8mb3: [33, 76, 83], ucs2: [35, 90], cp866: [36, 68], keybcs2: [37, 73], macce: [38, 43], macroman: [39, 53],
  cp852: [40, 81], utf8mb4: [45, 46], utf16: [54, 55], utf16le: [56, 62], cp1256: [57, 67], utf32: [60, 61], [BINARY]: [63], geostd8: [92, 93],
  cp932: [95, 96], eucjpms: [97, 98],
};
const LOW_COLLATIONS = new Map(Object.entries(COLLATIONS_BELOW_100).flatMap(([charset, ids]) => ids.map((id): [number, string] => [id, charset])));

/** First and last collation, as MySQL 9.7 and MariaDB 11.8 list them. */
const COLLATION_RANGES: readonly (readonly [number, number, string])[] = [
  [101, 124, "utf16"], [128, 151, "ucs2"], [159, 159, "ucs2"], [160, 183, "utf32"], [192, 223, "utf8mb3"], [224, 247, "utf8mb4"],
  [248, 250, "gb18030"], [255, 323, "utf8mb4"], [576, 579, "utf8mb3"], [608, 611, "utf8mb4"], [640, 642, "ucs2"], [672, 674, "utf16"], [736, 738, "utf32"],
];
/** MariaDB numbers a collation without padding 1024 above the one with it. */
const NO_PAD = 1024;
/** MariaDB's UCA 14.0.0 collations: 256 numbers for each of these character sets. */
const UCA_1400 = 2048;
const UCA_1400_SETS = ["utf8mb3", "utf8mb4", "ucs2", "utf16", "utf32"] as const;

/** The character set of a collation by its number, undefined when neither server knows the number. */
export function charsetOfCollation(id: number): string | undefined {
  if (id >= UCA_1400) return UCA_1400_SETS[(id - UCA_1400) >> 8];
  const padded = id >= NO_PAD ? id - NO_PAD : id;
  return LOW_COLLATIONS.get(padded) ?? COLLATION_RANGES.find(([first, last]) => first <= padded && padded <= last)?.[2];
}

const QUESTION_MARK = 0x3f;

const copyUtf8: TextCopy = (bytes, from, to, out) => out.append(bytes, from, to);
const copyHex: TextCopy = (bytes, from, to, out) => out.hex(bytes, from, to);

function singleByte(lower: Readonly<Record<number, string>>, upper: string): TextCopy {
  const points = Uint16Array.from({ length: 256 }, (_, byte) => {
    return byte < 0x80 ? (lower[byte]?.charCodeAt(0) ?? byte) : (upper.charCodeAt(byte - 0x80) || QUESTION_MARK);
  });
  return (bytes, from, to, out) => {
    out.reserve(3 * (to - from));
    for (; from < to; from++) out.codePoint(points[bytes[from]!]!);
  };
}

const copyUtf16: TextCopy = (bytes, from, to, out) => copyUnits(out, (to - from) >> 1, (i) => (bytes[from + 2 * i]! << 8) | bytes[from + 2 * i + 1]!);
const copyUtf16le: TextCopy = (bytes, from, to, out) => copyUnits(out, (to - from) >> 1, (i) => bytes[from + 2 * i]! | (bytes[from + 2 * i + 1]! << 8));

function copyUnits(out: TupleWriter, count: number, unitAt: (index: number) => number): void {
  out.reserve(3 * count);
  for (let i = 0; i < count; i++) {
    const unit = unitAt(i);
    const next = isHighSurrogate(unit) && i + 1 < count ? unitAt(i + 1) : 0;
    if ((next & 0xfc00) === 0xdc00) {
      out.codePoint(0x10000 + ((unit & 0x3ff) << 10) + (next & 0x3ff));
      i += 1;
    } else {
      out.codePoint(unit);
    }
  }
}

const isHighSurrogate = (unit: number): boolean => (unit & 0xfc00) === 0xd800;

const copyUtf32: TextCopy = (bytes, from, to, out) => {
  for (; from + 4 <= to; from += 4) out.codePoint(((bytes[from + 1]! << 16) | (bytes[from + 2]! << 8) | bytes[from + 3]!) & 0x1f_ffff);
};

/** Characters that iconv-lite and the servers take for the same bytes, where they differ. */
const SJIS_CHARACTERS: Readonly<Record<string, string>> = { "＼": "\\", "～": "〜", "∥": "‖", "－": "−", "￠": "¢", "￡": "£", "￢": "¬" };
const GB2312_CHARACTERS: Readonly<Record<string, string>> = { "·": "・", "—": "―" };

function throughIconv(charset: string, encoding: string, characters: Readonly<Record<string, string>> = {}, hasReplacementCharacter = false): TextCopy {
  const differing = Object.keys(characters).length === 0 ? null : new RegExp(`[${Object.keys(characters).join("")}]`, "g");
  return (bytes, from, to, out) => {
    const text = iconv.decode(bytes.subarray(from, to), encoding, { stripBOM: false });
    if (!hasReplacementCharacter && text.includes("\ufffd")) throw unreadable(charset);
    out.utf8(differing === null ? text : text.replace(differing, (character) => characters[character]!));
  };
}

const copyGb18030Text = throughIconv("gb18030", "gb18030", {}, true);

/** iconv-lite reads the bytes A3 A0 as a blank, MySQL as a private character. */
const copyGb18030: TextCopy = (bytes, from, to, out) => {
  for (let at = from; at < to; at += gb18030Width(bytes[at]!, bytes[at + 1]!)) if (bytes[at] === 0xa3 && bytes[at + 1] === 0xa0) throw unreadable("gb18030");
  copyGb18030Text(bytes, from, to, out);
};

function gb18030Width(first: number, second: number): number {
  if (first < 0x80) return 1;
  return second >= 0x30 && second <= 0x39 ? 4 : 2;
}

function unreadable(charset: string): Error {
  return refused(`a text in the character set ${charset} holds a character that cannot be decoded`, "Convert the table to utf8mb4 (ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4), or leave it out.");
}

const COPIES: ReadonlyMap<string, TextCopy> = new Map([
  ["utf8mb4", copyUtf8], ["utf8mb3", copyUtf8], [BINARY, copyHex], ["ascii", singleByte({}, "")],
  ...Object.entries(UPPER_HALVES).map(([charset, upper]): [string, TextCopy] => [charset, singleByte(LOWER_HALVES[charset] ?? {}, upper)]),
  ["utf16", copyUtf16], ["ucs2", copyUtf16], ["utf16le", copyUtf16le], ["utf32", copyUtf32],
  ["sjis", throughIconv("sjis", "shiftjis", SJIS_CHARACTERS)], ["cp932", throughIconv("cp932", "cp932")],
  ["gbk", throughIconv("gbk", "gbk")], ["gb2312", throughIconv("gb2312", "gb2312", GB2312_CHARACTERS)], ["euckr", throughIconv("euckr", "euckr")], ["gb18030", copyGb18030],
]);

/** Undefined for character sets in which iconv-lite and the servers disagree about characters: big5, ujis, eucjpms. */
export function textCopyOf(charset: string): TextCopy | undefined {
  return COPIES.get(charset);
}
