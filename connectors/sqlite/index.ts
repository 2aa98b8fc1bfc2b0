export { openSqliteJournal, type SqliteJournalOptions } from "./journal.ts";
export { inspectSqliteJournal } from "./inspect.ts";
