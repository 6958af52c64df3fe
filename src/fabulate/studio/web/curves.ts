// The quantities of a training against its steps: training as a line, validation dashed, tests as dots.

import { Json } from "./api";
import { el, put, svg } from "./dom";
import { number } from "./words";

const WIDTH = 400, HEIGHT = 190, LEFT = 50, RIGHT = 10, TOP = 10, BOTTOM = 24;
const PARTS = ["train", "validation", "test", "samples"] as const;
const NAMES: Record<string, string> = { train: "training images", validation: "validation images", test: "test images", samples: "samples" };

/** Charts that follow a log: `draw` may be called as often as rows come. */
export class Curves {
  readonly element = el("div", { class: "curves" });
  private readonly legend = el("div", { class: "legend" });
  private readonly charts = el("div", { class: "charts" });

  constructor() { put(this.element, this.legend, this.charts); }

  draw(rows: Json[]): void {
    const names = [...new Set(rows.flatMap((row) => PARTS.flatMap((part) => Object.keys(row[part] ?? {}))))];
    const parts = PARTS.filter((part) => rows.some((row) => row[part] && Object.keys(row[part]).length));
    this.legend.replaceChildren(...parts.map((part) => el("span", { class: `key ${part}` }, NAMES[part])));
    this.charts.style.setProperty("--across", String(names.length === 4 ? 2 : Math.min(3, Math.max(2, names.length))));
    while (this.charts.children.length > names.length) this.charts.lastChild!.remove();
    names.forEach((name, i) => {
      const chart = panel(name, rows);
      if (i < this.charts.children.length) this.charts.replaceChild(chart, this.charts.children[i]);
      else this.charts.appendChild(chart);
    });
  }
}

function panel(name: string, rows: Json[]): HTMLElement {
  const series = PARTS.map((part) => ({ part, points: rows.filter((row) => typeof row[part]?.[name] === "number").map((row) => [row.step, row[part][name]] as [number, number]) }));
  const last = Math.max(1, ...rows.map((row) => row.step));
  // The first steps fall from far above: the scale is that of the rest.
  const late = rows.slice(Math.floor(rows.length / 20)).flatMap((row) => PARTS.map((part) => row[part]?.[name])).filter((value) => typeof value === "number") as number[];
  const values = late.length ? late : series.flatMap((each) => each.points.map(([, value]) => value));
  let low = Math.min(...values), high = Math.max(...values);
  const margin = Math.max(0.05 * (high - low), 0.01 * Math.abs(high), 1e-9);
  low -= margin; high += margin;
  const x = (step: number) => LEFT + (step / last) * (WIDTH - LEFT - RIGHT);
  const y = (value: number) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const id = `clip-${name.replace(/\W/g, "-")}`;
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${name} against steps` },
    svg("defs", {}, svg("clipPath", { id }, svg("rect", { x: LEFT, y: TOP - 4, width: WIDTH - LEFT - RIGHT + 6, height: HEIGHT - TOP - BOTTOM + 8 }))));
  for (const tick of ticks(low, high, 4)) {
    put(drawing, svg("line", { class: "gridline", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }),
      svg("text", { x: LEFT - 7, y: y(tick) + 4, "text-anchor": "end" }, number(tick)));
  }
  for (const tick of ticks(0, last, 4)) put(drawing, svg("text", { x: x(tick), y: HEIGHT - 6, "text-anchor": tick === 0 ? "start" : "middle" }, short(tick)));
  const clipped = svg("g", { "clip-path": `url(#${id})` });
  put(drawing, clipped);
  for (const { part, points } of series) {
    if (!points.length) continue;
    if (part === "train" || part === "validation") put(clipped, svg("polyline", { class: `curve ${part}`, points: points.map(([s, v]) => `${x(s).toFixed(1)},${y(v).toFixed(1)}`).join(" ") }));
    if (part !== "train") put(clipped, ...points.map(([s, v]) => svg("circle", { class: `dot ${part}`, cx: x(s).toFixed(1), cy: y(v).toFixed(1), r: part === "validation" ? 1.8 : 3.2 })));
  }
  const now = series.filter((each) => each.points.length).map((each) => el("span", { class: `key ${each.part}` }, number(each.points[each.points.length - 1][1])));
  return el("figure", { class: "chart" }, el("figcaption", {}, el("strong", {}, name.replaceAll("_", " ").replace(".", ": ")), ...now), drawing);
}

/** Round numbers between two, about so many. */
export function ticks(low: number, high: number, count: number): number[] {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough)!;
  const found: number[] = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-12 * step; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

function short(value: number): string {
  return value >= 1e6 ? `${value / 1e6}M` : value >= 10_000 ? `${value / 1000}k` : String(value);
}
