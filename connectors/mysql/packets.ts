/** The packets of a binary log dump, taken from @vlasky/zongji before its own decoder sees them. */
import type ZongJi from "@vlasky/zongji";

/** A packet as mysql2 hands it over; `buffer` is its own and is used again afterwards. */
interface Packet {
  readonly buffer: Buffer;
  readonly offset: number;
  readonly end: number;
  isEOF(): boolean;
}

type PacketReader = (packet: Packet) => PacketReader | null;

export interface PacketHandler {
  /** An event with its leading 0, as BinlogDecoder.packet takes it. What it throws ends the dump. */
  readonly onEvent: (buffer: Buffer, from: number, to: number) => void;
  /** Called once: null when the server has ended the dump. Nothing comes afterwards. */
  readonly onEnd: (error: unknown) => void;
}

/** To be called in zongji's `ready`, once per start. What the server answers with an error comes as zongji's own `error`. */
export function takePackets(zongji: ZongJi, handler: PacketHandler): void {
  const { prototype } = (zongji as unknown as { BinlogClass: { prototype: { binlogData: PacketReader } } }).BinlogClass;
  const end = (error: unknown): null => {
    handler.onEnd(error);
    return null;
  };
  const read: PacketReader = (packet) => {
    if (packet.isEOF()) return end(null);
    try {
      handler.onEvent(packet.buffer, packet.offset, packet.end);
    } catch (error) {
      return end(error);
    }
    return read;
  };
  prototype.binlogData = read;
}
