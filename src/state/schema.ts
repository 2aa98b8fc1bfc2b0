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
  {
    name: "state-002-comparisons",
    statements: [
      `CREATE TABLE dualrun.proofs (
         stream text NOT NULL,
         class text NOT NULL,
         share integer NOT NULL,
         proven_at text NOT NULL,
         PRIMARY KEY (stream, class, share)
       )`,
      `CREATE TABLE dualrun.comparisons (
         stream text NOT NULL,
         id bigint NOT NULL,
         kind text NOT NULL,
         started_at text NOT NULL,
         finished_at text,
         verdict text NOT NULL,
         document text NOT NULL,
         PRIMARY KEY (stream, id)
       )`,
      `CREATE TABLE dualrun.comparison_classes (
         stream text NOT NULL,
         id bigint NOT NULL,
         class text NOT NULL,
         at text NOT NULL,
         verdict text NOT NULL,
         document text NOT NULL,
         PRIMARY KEY (stream, id, class)
       )`,
      "CREATE INDEX ON dualrun.comparison_classes (stream, class, id)",
      `CREATE TABLE dualrun.breaks (
         stream text NOT NULL,
         id bigint NOT NULL,
         class text NOT NULL,
         category text NOT NULL,
         opened_at text NOT NULL,
         last_seen_at text NOT NULL,
         clean_since text,
         comparison bigint,
         rows bigint NOT NULL,
         document text NOT NULL,
         owner text,
         note text,
         resolution text,
         resolved_at text,
         resolved_by text,
         PRIMARY KEY (stream, id)
       )`,
    ],
  },
  {
    name: "state-003-reports",
    statements: [
      `CREATE TABLE dualrun.reports (
         stream text NOT NULL,
         id bigint NOT NULL,
         date text NOT NULL,
         version integer NOT NULL,
         created_at text NOT NULL,
         hash text NOT NULL,
         document text NOT NULL,
         PRIMARY KEY (stream, id),
         UNIQUE (stream, date, version)
       )`,
      `CREATE TABLE dualrun.sign_offs (
         stream text NOT NULL,
         date text NOT NULL,
         hash text NOT NULL,
         approver text NOT NULL,
         on_behalf_of text,
         note text NOT NULL,
         at text NOT NULL,
         PRIMARY KEY (stream, hash)
       )`,
      `CREATE TABLE dualrun.bank_totals (
         stream text NOT NULL,
         date text NOT NULL,
         currency text NOT NULL,
         account text NOT NULL,
         amount numeric NOT NULL,
         imported_at text NOT NULL,
         PRIMARY KEY (stream, date, currency, account)
       )`,
    ],
  },
];
