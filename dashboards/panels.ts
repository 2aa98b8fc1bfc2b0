/** Small words for dashboards: a panel is a title, what it means, its expressions and a unit. */
import * as cog from "@grafana/grafana-foundation-sdk/cog";
import * as common from "@grafana/grafana-foundation-sdk/common";
import * as dashboard from "@grafana/grafana-foundation-sdk/dashboard";
import * as heatmap from "@grafana/grafana-foundation-sdk/heatmap";
import * as prometheus from "@grafana/grafana-foundation-sdk/prometheus";
import * as stat from "@grafana/grafana-foundation-sdk/stat";
import * as statushistory from "@grafana/grafana-foundation-sdk/statushistory";
import * as table from "@grafana/grafana-foundation-sdk/table";
import * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";

/** What every expression is narrowed to by the dashboard's variables. */
export const PICKED = 'instance=~"$instance"';

export interface Expression {
  readonly expr: string;
  /** With label names in double braces. */
  readonly legend: string;
}

export interface PanelText {
  readonly title: string;
  /** What it shows, and what to do when it looks wrong. */
  readonly about: string;
  /** Section of RUNBOOK.md, which the console shows. */
  readonly runbook?: string;
  readonly unit?: string;
  readonly width?: number;
  readonly height?: number;
}

type Panel = cog.Builder<dashboard.Panel>;

/** The same, and by the class variable. */
export const PICKED_CLASS = `${PICKED},class=~"$class"`;

/** The console of a daemon, as the dashboards' variable says. */
const CONSOLE = "${console}";

const DATASOURCE = { type: "prometheus", uid: "${datasource}" };

function query({ expr, legend }: Expression, form: "series" | "table"): prometheus.DataqueryBuilder {
  const target = new prometheus.DataqueryBuilder().expr(expr).legendFormat(legend);
  return form === "table" ? target.instant().format(prometheus.PromQueryFormat.Table) : target;
}

/** The parts of a builder that all panels share. */
interface AnyPanel<Self> {
  title(text: string): Self;
  description(text: string): Self;
  datasource(reference: object): Self;
  span(width: number): Self;
  height(rows: number): Self;
  withTarget(target: cog.Builder<cog.Dataquery>): Self;
  links(links: cog.Builder<dashboard.DashboardLink>[]): Self;
  unit(unit: string): Self;
}

function dress<P extends AnyPanel<P>>(panel: P, text: PanelText, expressions: readonly Expression[], form: "series" | "table" = "series"): P {
  let dressed = panel.title(text.title).description(text.about).datasource(DATASOURCE).span(text.width ?? 8).height(text.height ?? 7);
  if (text.unit !== undefined) dressed = dressed.unit(text.unit);
  if (text.runbook !== undefined) dressed = dressed.links([new dashboard.DashboardLinkBuilder("What to do").type(dashboard.DashboardLinkType.Link).url(`${CONSOLE}/runbook#${text.runbook}`).targetBlank(true)]);
  for (const expression of expressions) dressed = dressed.withTarget(query(expression, form));
  return dressed;
}

/** One large figure; green up to `warn`, amber up to `bad`, red above. */
export function figure(text: PanelText, expression: Expression, limits?: { readonly warn: number; readonly bad: number }): Panel {
  const panel = dress(new stat.PanelBuilder(), { width: 4, height: 5, ...text }, [expression]);
  return limits === undefined ? panel : panel.thresholds(steps([["green", null], ["orange", limits.warn], ["red", limits.bad]]));
}

/** One figure that is good at 1 and bad at 0. */
export function yesNo(text: PanelText, expression: Expression): Panel {
  return dress(new stat.PanelBuilder(), { width: 4, height: 5, ...text }, [expression])
    .thresholds(steps([["red", null], ["green", 1]]))
    .mappings([{ type: dashboard.MappingType.ValueToText, options: { 0: { text: "NO", index: 0 }, 1: { text: "yes", index: 1 } } }]);
}

export function curve(text: PanelText, ...expressions: readonly Expression[]): Panel {
  return dress(new timeseries.PanelBuilder().fillOpacity(8).legend(new common.VizLegendOptionsBuilder().displayMode(common.LegendDisplayMode.List).placement(common.LegendPlacement.Bottom).showLegend(true)), { width: 12, height: 8, ...text }, expressions);
}

/** Classes by hour: green where proven. */
export function history(text: PanelText, expression: Expression): Panel {
  return dress(new statushistory.PanelBuilder().dataLinks([inConsole("/classes/${__field.labels.class}")]), { width: 24, height: 9, ...text }, [expression])
    .thresholds(steps([["red", null], ["green", 1]]))
    .mappings([{ type: dashboard.MappingType.ValueToText, options: { 0: { text: "not proven", index: 0 }, 1: { text: "in sync", index: 1 } } }]);
}

export function heat(text: PanelText, expression: Expression): Panel {
  return dress(new heatmap.PanelBuilder().calculate(false), { width: 12, height: 8, ...text }, [expression]);
}

/** The latest values, one line per combination of labels. */
export function list(text: PanelText, ...expressions: readonly Expression[]): Panel {
  return dress(new table.PanelBuilder().dataLinks([inConsole("/classes/${__data.fields.class}")]), { width: 24, height: 9, ...text }, expressions, "table");
}

function steps(values: readonly (readonly [string, number | null])[]): dashboard.ThresholdsConfigBuilder {
  return new dashboard.ThresholdsConfigBuilder().mode(dashboard.ThresholdsMode.Absolute).steps(values.map(([color, value]) => ({ color, value })));
}

/** A link to a page of the console. */
const inConsole = (url: string): dashboard.DashboardLinkBuilder => new dashboard.DashboardLinkBuilder("Rows and history in the console").type(dashboard.DashboardLinkType.Link).url(`${CONSOLE}${url}`).targetBlank(true);

export interface Row {
  readonly title: string;
  readonly panels: readonly Panel[];
}

export function board(uid: string, title: string, about: string, rows: readonly Row[], byClass = false): dashboard.Dashboard {
  let built = new dashboard.DashboardBuilder(title).uid(uid).description(about).tags(["dualrun"]).refresh("30s").time({ from: "now-6h", to: "now" }).timezone("browser").tooltip(dashboard.DashboardCursorSync.Crosshair)
    .withVariable(new dashboard.DatasourceVariableBuilder("datasource").label("Prometheus").type("prometheus"))
    .withVariable(variable("migration", "Migration", "label_values(dualrun_info, migration)"))
    .withVariable(variable("instance", "Instance", 'label_values(dualrun_info{migration=~"$migration"}, instance)'))
    .withVariable(new dashboard.TextBoxVariableBuilder("console").label("Console").defaultValue("http://127.0.0.1:7070"))
    .link(new dashboard.DashboardLinkBuilder("dualrun").type(dashboard.DashboardLinkType.Dashboards).tags(["dualrun"]).asDropdown(true).keepTime(true).includeVars(true));
  if (byClass) built = built.withVariable(variable("class", "Class", 'label_values(dualrun_comparison_in_sync{instance=~"$instance"}, class)'));
  for (const row of rows) {
    built = built.withRow(new dashboard.RowBuilder(row.title));
    for (const panel of row.panels) built = built.withPanel(panel);
  }
  return built.build();
}

function variable(name: string, label: string, definition: string): dashboard.QueryVariableBuilder {
  return new dashboard.QueryVariableBuilder(name).label(label).query(definition).datasource(DATASOURCE).refresh(dashboard.VariableRefresh.OnTimeRangeChanged).multi(true).includeAll(true);
}
