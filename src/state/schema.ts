/** Tables of dualrun's own schema beside the checkpoint: what is remembered, agreed and recorded. */
import type { Migration } from "../core/index.ts";

export const STATE_MIGRATIONS: readonly Migration[] = [
  {
    name: "state-001-memory",
    statements: [
      `CREATE TABLE dualrun.settings (
         stream text NOT NULL,
         name text NOT NULL,
         value text NOT NULL,
         PRIMARY KEY (stream, name)
       )`,
      `CREATE TABLE dualrun.agreements (
         stream text NOT NULL,
         id bigint NOT NULL,
         document text NOT NULL,
         agreed_at timestamptz NOT NULL DEFAULT now(),
         PRIMARY KEY (stream, id)
       )`,
      `CREATE TABLE dualrun.conflicts (
         stream text NOT NULL,
         class text NOT NULL,
         kind text NOT NULL,
         key_hash text NOT NULL,
         position text NOT NULL,
         seen_at timestamptz NOT NULL DEFAULT now()
       )`,
      `CREATE TABLE dualrun.audit (
         stream text NOT NULL,
         id bigint NOT NULL,
         at text NOT NULL,
         who text NOT NULL,
         what text NOT NULL,
         note text,
         hash text NOT NULL,
         PRIMARY KEY (stream, id)
       )`,
    ],
  },
];
