/** What stands in the file instead of rows: AES-256-GCM where there is a key, and a checksum in any case. */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";
import { DualrunError } from "../../src/core/index.ts";

const NONCE = 12;
const TAG = 16;

/** One per file: its key is derived from the configured one and the file's identity. Without a key bytes stay as they are. */
export class Seal {
  private readonly key: Buffer | null;

  /** `key` are 32 bytes, or null. */
  constructor(key: Uint8Array | null, fileId: string) {
    this.key = key === null ? null : Buffer.from(hkdfSync("sha256", key, fileId, "dualrun journal", 32));
  }

  /** `place` says where the bytes belong: they cannot be opened anywhere else. */
  close(bytes: Uint8Array, place: string): Uint8Array {
    if (this.key === null) return bytes;
    const nonce = randomBytes(NONCE);
    const cipher = createCipheriv("aes-256-gcm", this.key, nonce).setAAD(Buffer.from(place));
    return Buffer.concat([nonce, cipher.update(bytes), cipher.final(), cipher.getAuthTag()]);
  }

  /** Throws DR5101 when they were changed, moved, or sealed with another key. */
  open(sealed: Uint8Array, place: string): Uint8Array {
    if (this.key === null) return sealed;
    try {
      const end = sealed.length - TAG;
      const decipher = createDecipheriv("aes-256-gcm", this.key, sealed.subarray(0, NONCE)).setAAD(Buffer.from(place)).setAuthTag(sealed.subarray(end));
      return Buffer.concat([decipher.update(sealed.subarray(NONCE, end)), decipher.final()]);
    } catch (error) {
      throw new DualrunError("DR5101", `${place} cannot be decrypted`, { where: "journal", cause: error });
    }
  }
}

/** What stands beside a record's sealed bytes. */
export interface RecordRow {
  readonly seq: number;
  readonly ended: string | null;
  readonly transactions: number;
  readonly committed_at: number;
  readonly checksum: number;
  readonly body: Uint8Array;
}

export const recordPlace = (seq: number): string => `record ${seq}`;
export const tablePlace = (id: number): string => `table ${id}`;

/** Over the sealed bytes and the columns beside them. */
export function checksumOf({ seq, ended, transactions, committed_at, body }: Omit<RecordRow, "checksum">): number {
  return crc32(body, crc32(JSON.stringify([seq, ended, transactions, committed_at])));
}

/** The record's bytes; DR5101 with its number when they are not what was written. */
export function openRecord(seal: Seal, row: RecordRow): Uint8Array {
  if (checksumOf(row) !== row.checksum) throw new DualrunError("DR5101", `${recordPlace(row.seq)} does not have the checksum that was written with it`, { where: "journal" });
  return seal.open(row.body, recordPlace(row.seq));
}
