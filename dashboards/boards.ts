/** The four boards: may we cross, is it mirrored, is it equal, does the money agree. */
import type { Dashboard } from "@grafana/grafana-foundation-sdk/dashboard";
import { PICKED, PICKED_CLASS, board, curve, figure, heat, history, list, yesNo } from "./panels.ts";

const one = (expr: string, legend = ""): { readonly expr: string; readonly legend: string } => ({ expr, legend });

const overview = board("dualrun-overview", "dualrun: go or no-go", "Whether the business could cross now. Every figure that is not green has its reason on another board.", [
  { title: "Go or no-go", panels: [
    yesNo({ title: "Mirroring", about: "1 while changes are applied.", runbook: "dualrunstalled" }, one(`max(dualrun_state{${PICKED},state="streaming"})`)),
    yesNo({ title: "Everything in sync", about: "Every class was proven in sync by its last comparison.", runbook: "dualruncomparisonoutofsync" }, one(`min(dualrun_comparison_in_sync{${PICKED}})`)),
    figure({ title: "Open breaks", about: "Confirmed differences that nobody has settled.", runbook: "dualrunbreakaged" }, one(`sum(dualrun_breaks_open{${PICKED}})`), { warn: 1, bad: 1 }),
    figure({ title: "Lag", about: "Seconds since commit of the oldest change that is not applied.", unit: "s", runbook: "dualrunlaghigh" }, one(`max(dualrun_lag_seconds{${PICKED}})`), { warn: 5, bad: 60 }),
    figure({ title: "Oldest proof", about: "How long ago the part was compared by value whose proof is oldest.", unit: "s", runbook: "dualrunproofold" }, one(`max(dualrun_comparison_proof_age_seconds{${PICKED}})`), { warn: 86_400, bad: 129_600 }),
    figure({ title: "Clean days in a row", about: "Business days that were compared, clean, on time and signed. The aim is 30.", runbook: "dualruncleanstreakbroken" }, one(`max(dualrun_clean_streak_days{${PICKED}})`)),
  ] },
  { title: "Lately", panels: [
    history({ title: "Proof by class", about: "Each class over time: green where the last comparison proved it in sync.", runbook: "dualruncomparisonoutofsync" }, one(`min by (class) (dualrun_comparison_in_sync{${PICKED}})`, "{{class}}")),
    curve({ title: "Lag", about: "How far the target is behind the source's commits.", unit: "s", runbook: "dualrunlaghigh" }, one(`dualrun_lag_seconds{${PICKED}}`, "lag")),
    curve({ title: "Phase", about: "The phase that the migration is in." }, one(`max by (phase) (dualrun_phase{${PICKED}}) == 1`, "{{phase}}")),
  ] },
]);

const replication = board("dualrun-replication", "dualrun: replication", "The stream from the source's log to the target: rates, batches, what holds it up, what it costs the source.", [
  { title: "Flow", panels: [
    curve({ title: "Changes applied", about: "Rows per second, by class.", unit: "cps" }, one(`sum by (class) (rate(dualrun_changes_applied_total{${PICKED}}[1m]))`, "{{class}}")),
    curve({ title: "Transactions applied", about: "Source transactions per second.", unit: "cps" }, one(`sum(rate(dualrun_transactions_applied_total{${PICKED}}[1m]))`, "transactions")),
    curve({ title: "By operation", about: "Inserts, updates, deletes and truncates per second.", unit: "cps" }, one(`sum by (op) (rate(dualrun_changes_applied_total{${PICKED}}[1m]))`, "{{op}}")),
    curve({ title: "Read from the log", about: "Bytes of the change stream per second.", unit: "Bps" }, one(`sum(rate(dualrun_bytes_read_total{${PICKED}}[1m]))`, "read")),
  ] },
  { title: "Behind", panels: [
    curve({ title: "Lag", about: "Seconds since commit of the oldest change that is not applied.", unit: "s", runbook: "dualrunlaghigh" }, one(`dualrun_lag_seconds{${PICKED}}`, "lag")),
    curve({ title: "Log between head and applied", about: "Bytes of the source's log that are not applied yet.", unit: "bytes", runbook: "dualrunlaghigh" }, one(`dualrun_lag_bytes{${PICKED}}`, "not applied")),
    curve({ title: "Log that the source keeps", about: "Bytes held back on production's disk by the slot, and the limit.", unit: "bytes", runbook: "dualrunretainedloghalf" }, one(`dualrun_source_retained_bytes{${PICKED}}`, "retained"), one(`dualrun_source_retained_bytes_max{${PICKED}}`, "allowed")),
    figure({ title: "Slot", about: "Which state the replication slot is in.", runbook: "dualrunslotlost", width: 6 }, one(`max by (state) (dualrun_slot_state{${PICKED}}) == 1`, "{{state}}")),
    figure({ title: "Daemon", about: "What the daemon is doing.", runbook: "dualrunstalled", width: 6 }, one(`max by (state) (dualrun_state{${PICKED}}) == 1`, "{{state}}")),
  ] },
  { title: "Batches", panels: [
    curve({ title: "Time per batch", about: "Median and 95th percentile of writing and committing one batch.", unit: "s" }, one(`histogram_quantile(0.5, sum by (le) (rate(dualrun_apply_batch_duration_seconds_bucket{${PICKED}}[5m])))`, "p50"), one(`histogram_quantile(0.95, sum by (le) (rate(dualrun_apply_batch_duration_seconds_bucket{${PICKED}}[5m])))`, "p95")),
    curve({ title: "Rows per batch", about: "Median and 95th percentile of the rows in a batch.", unit: "short" }, one(`histogram_quantile(0.5, sum by (le) (rate(dualrun_apply_batch_rows_bucket{${PICKED}}[5m])))`, "p50"), one(`histogram_quantile(0.95, sum by (le) (rate(dualrun_apply_batch_rows_bucket{${PICKED}}[5m])))`, "p95")),
    curve({ title: "Waiting for the target", about: "Share of the time in which reading waited because the target was slow.", unit: "percentunit" }, one(`rate(dualrun_backpressure_seconds_total{${PICKED}}[1m])`, "waiting")),
    curve({ title: "In memory", about: "Changes on their way, and the process.", unit: "bytes" }, one(`dualrun_buffer_bytes{${PICKED}}`, "changes"), one(`process_resident_memory_bytes{${PICKED}} and on (instance) dualrun_info`, "process")),
    curve({ title: "Row by row", about: "Batches that had to be written in log order, and rows of the target that were not what the log said.", unit: "cps", runbook: "dualrunforeignwrites" }, one(`sum by (class) (rate(dualrun_apply_ordered_batches_total{${PICKED}}[5m]))`, "{{class}} in order"), one(`sum by (class) (rate(dualrun_apply_conflicts_total{${PICKED}}[5m]))`, "{{class}} conflicts")),
    curve({ title: "Interruptions", about: "Restarts of the stream, and faults by code.", unit: "short", runbook: "dualrunapplyerrors" }, one(`increase(dualrun_stream_restarts_total{${PICKED}}[10m])`, "restarts"), one(`sum by (code) (increase(dualrun_apply_errors_total{${PICKED}}[10m]))`, "{{code}}")),
  ] },
  { title: "Snapshot", panels: [
    curve({ title: "Copied", about: "Rows copied by class.", unit: "short" }, one(`sum by (class) (dualrun_snapshot_rows{${PICKED}})`, "{{class}}")),
    curve({ title: "Chunks", about: "Resumable pieces of the copy, done and open.", unit: "short" }, one(`sum by (state) (dualrun_snapshot_chunks_total{${PICKED}})`, "{{state}}")),
  ] },
]);

const reconciliation = board("dualrun-reconciliation", "dualrun: reconciliation", "Counts, money and every value of both sides at one and the same moment, hour by hour.", [
  { title: "Proof", panels: [
    history({ title: "Class by hour", about: "Green where the last comparison proved the class in sync.", runbook: "dualruncomparisonoutofsync" }, one(`min by (class) (dualrun_comparison_in_sync{${PICKED_CLASS}})`, "{{class}}")),
    list({ title: "Verdicts", about: "The verdict of each class's last comparison.", width: 12 }, one(`max by (class, verdict) (dualrun_comparison_verdict{${PICKED_CLASS}}) == 1`, "{{class}}")),
    list({ title: "Records side by side", about: "Records on both sides at the last cut.", width: 12 }, one(`max by (class, side) (dualrun_records{${PICKED_CLASS}})`, "{{class}} {{side}}")),
  ] },
  { title: "Figures", panels: [
    curve({ title: "Records", about: "Records on the source at each cut.", unit: "short" }, one(`max by (class) (dualrun_records{${PICKED_CLASS},side="source"})`, "{{class}}")),
    curve({ title: "Difference in records", about: "Target less source: anything but zero is a confirmed difference, or one that is looked at again.", unit: "short", runbook: "dualruncomparisonoutofsync" }, one(`max by (class) (dualrun_records_difference{${PICKED_CLASS}})`, "{{class}}")),
    curve({ title: "Difference in money", about: "Target less source in units of each column's scale.", unit: "short", runbook: "dualruncomparisonoutofsync" }, one(`max by (class, column, currency) (dualrun_money_difference_minor_units{${PICKED_CLASS}})`, "{{class}}.{{column}} {{currency}}")),
    curve({ title: "Age of the oldest proof", about: "How long ago the part was compared by value whose proof is oldest.", unit: "s", runbook: "dualrunproofold" }, one(`max by (class) (dualrun_comparison_proof_age_seconds{${PICKED_CLASS}})`, "{{class}}")),
  ] },
  { title: "What it costs", panels: [
    curve({ title: "Time per comparison", about: "Mean over ten minutes.", unit: "s" }, one(`rate(dualrun_comparison_duration_seconds_sum{${PICKED}}[10m]) / (rate(dualrun_comparison_duration_seconds_count{${PICKED}}[10m]) > 0)`, "mean")),
    heat({ title: "Applier held at the cut", about: "For how long nothing was applied because of an exact cut.", unit: "s" }, one(`sum by (le) (increase(dualrun_comparison_hold_seconds_bucket{${PICKED}}[10m]))`, "{{le}}")),
    heat({ title: "Until the mirror came to the cut", about: "How long the stream took from the source's moment to its own place, applying all the while: long behind a huge transaction.", unit: "s" }, one(`sum by (le) (increase(dualrun_comparison_wait_seconds_bucket{${PICKED}}[10m]))`, "{{le}}")),
    curve({ title: "Records read", about: "Records per second that comparisons read on each side.", unit: "cps" }, one(`sum by (side) (rate(dualrun_comparison_rows_read_total{${PICKED_CLASS}}[10m]))`, "{{side}}")),
    curve({ title: "Since the last comparison", about: "Seconds since each class was compared last.", unit: "s", runbook: "dualruncomparisonstale" }, one(`time() - max by (class) (dualrun_comparison_timestamp_seconds{${PICKED_CLASS}})`, "{{class}}")),
  ] },
], true);

const finance = board("dualrun-finance", "dualrun: finance", "Totals by currency on both sides, breaks by age, the streak of clean days. Figures are as near as a float comes; exact ones stand in the daily report.", [
  { title: "At a glance", panels: [
    figure({ title: "Clean days in a row", about: "Compared, clean, on time and signed. The aim is 30.", runbook: "dualruncleanstreakbroken", width: 6 }, one(`max(dualrun_clean_streak_days{${PICKED}})`)),
    figure({ title: "Since the last signature", about: "Seconds since a daily report was signed.", unit: "s", runbook: "dualrunsignoffmissing", width: 6 }, one(`time() - max(dualrun_sign_off_timestamp_seconds{${PICKED}})`), { warn: 90_000, bad: 129_600 }),
    figure({ title: "Open breaks", about: "Confirmed differences that nobody has settled.", runbook: "dualrunbreakaged", width: 6 }, one(`sum(dualrun_breaks_open{${PICKED}})`), { warn: 1, bad: 1 }),
    figure({ title: "Money totals that differ", about: "How many column totals differ between both sides.", runbook: "dualruncomparisonoutofsync", width: 6 }, one(`count(dualrun_money_difference_minor_units{${PICKED}} != 0) or vector(0)`), { warn: 1, bad: 1 }),
  ] },
  { title: "Totals", panels: [
    list({ title: "Totals by currency", about: "Source and target at the last cut." }, one(`max by (class, column, currency, side) (dualrun_money_total{${PICKED}})`, "{{class}} {{column}} {{currency}} {{side}}")),
    curve({ title: "Totals on the source", about: "By class, column and currency.", unit: "short" }, one(`max by (class, column, currency) (dualrun_money_total{${PICKED},side="source"})`, "{{class}}.{{column}} {{currency}}")),
    curve({ title: "Differences", about: "Target less source in units of each column's scale.", unit: "short", runbook: "dualruncomparisonoutofsync" }, one(`max by (class, column, currency) (dualrun_money_difference_minor_units{${PICKED}})`, "{{class}}.{{column}} {{currency}}")),
  ] },
  { title: "Breaks", panels: [
    curve({ title: "Open breaks by age", about: "A break stays open until somebody has settled it.", unit: "short", runbook: "dualrunbreakaged", width: 24 }, one(`sum by (age) (dualrun_breaks_open{${PICKED}})`, "{{age}}")),
  ] },
]);

/** By the name of its file. */
export const BOARDS: Readonly<Record<string, Dashboard>> = { overview, replication, reconciliation, finance };
