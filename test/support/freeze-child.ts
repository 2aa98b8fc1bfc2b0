/** Freezes `orders` of the database of argument 1 for argument 2 milliseconds; a failpoint kills it on the way. */
import { connectPostgresSource } from "../../connectors/postgres/source.ts";
import { MIGRATION } from "./freeze.ts";

const [, , url, lease] = process.argv;
const source = await connectPostgresSource({ url: url!, tls: { mode: "disable" } }, MIGRATION, null);
await source.freezer({ name: "child", epoch: 1n }).freeze({ lease: Number(lease), lockTimeout: 2_000 });
await source[Symbol.asyncDispose]();
