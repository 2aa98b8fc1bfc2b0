export { createLogger, scrub, type Logger, type LoggerOptions } from "./logger.ts";
export { createMetrics, type BatchFigures, type Metrics, type MetricsOptions } from "./metrics.ts";
export { METRICS, type MetricEntry, type MetricLabel } from "./catalogue.ts";
