// A map of codes: a dot for each image, in the plane of the two directions that vary most. Zoomed by the wheel, moved
// through by pointer or arrow keys; a path can be drawn on it.

import { Atlas } from "./atlas";
import { Json } from "./api";
import { button, el } from "./dom";

// Okabe and Ito's colours, safe for the colour-blind, and three more; on light and dark.
export const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#a89200", "#8a8f98", "#9a6a4f", "#7a5fc0"];
const NEAR = 14, ZOOM = 1.2, STEP = 0.1; // pixels; times; standard deviations of an arrow key

export type Place = [number, number];
interface Told { moved(place: Place): void; path(places: Place[]): void; over(which: "real" | "drawn", i: number): void; }

export class CodeMap {
  readonly element: HTMLElement;
  readonly canvas = el("canvas", { class: "map", tabindex: 0, role: "application", "aria-label": "map of codes: arrow keys move, plus and minus zoom" });
  place: Place = [0, 0];
  private mode: "decode" | "path" = "decode";
  private pictures = false;
  private centre: Place = [0, 0];
  private span = 3.2; // standard deviations from the centre to the nearer edge
  private path: Place[] = [];
  private pressed = false;
  private readonly classes: string[];
  private readonly wide = new ResizeObserver(() => this.draw());

  constructor(private readonly codes: Json, private readonly images: { real: Atlas | null; drawn: Atlas }, private readonly told: Told) {
    this.classes = [...new Set(codes.labels as string[])].sort();
    const modes = (["decode", "path"] as const).map((mode) => {
      const press = button(mode === "decode" ? "Decode" : "Draw a path", () => { this.mode = mode; this.path = []; for (const each of modes) each.setAttribute("aria-pressed", String(each === press)); this.draw(); }, "small toggle");
      press.setAttribute("aria-pressed", String(mode === "decode"));
      return press;
    });
    const seen = button("Images", () => { this.pictures = !this.pictures; seen.setAttribute("aria-pressed", String(this.pictures)); this.draw(); }, "small toggle");
    seen.setAttribute("aria-pressed", "false");
    const tools = el("div", { class: "tools" }, ...modes, seen, button("+", () => this.zoom(1 / ZOOM), "small"), button("−", () => this.zoom(ZOOM), "small"),
      button("Reset", () => { this.centre = [0, 0]; this.span = 3.2; this.path = []; this.go([0, 0]); }, "small"));
    const legend = el("div", { class: "legend" }, ...this.classes.slice(0, 20).map((name) => { const key = el("span", { class: "key dotkey" }, name); key.style.setProperty("--dot", this.colour(name)); return key; }),
      codes.drawn.length ? el("span", { class: "key ringkey" }, "drawn by the model") : null);
    this.element = el("div", { class: "mapbox" }, tools, this.canvas, legend);
    this.listen();
    this.wide.observe(this.canvas);
  }

  end(): void { this.wide.disconnect(); }

  /** Go to a place, and say so. */
  go(place: Place): void { this.place = place; this.draw(); this.told.moved(place); }

  /** Where a place is drawn. */
  at([x, y]: Place): Place {
    const { clientWidth: width, clientHeight: height } = this.canvas, scale = Math.min(width, height) / 2 / this.span;
    return [width / 2 + (x - this.centre[0]) * scale, height / 2 - (y - this.centre[1]) * scale];
  }

  private back(event: PointerEvent | WheelEvent): Place {
    const box = this.canvas.getBoundingClientRect(), scale = Math.min(box.width, box.height) / 2 / this.span;
    return [this.centre[0] + (event.clientX - box.left - box.width / 2) / scale, this.centre[1] - (event.clientY - box.top - box.height / 2) / scale];
  }

  private colour(name: string): string { return COLOURS[Math.max(0, this.classes.indexOf(name)) % COLOURS.length]; }

  private zoom(times: number, around: Place = this.centre): void {
    const span = Math.min(20, Math.max(0.2, this.span * times)), share = span / this.span;
    this.centre = [around[0] + (this.centre[0] - around[0]) * share, around[1] + (this.centre[1] - around[1]) * share];
    this.span = span;
    this.draw();
  }

  private listen(): void {
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.pressed = true;
      if (this.mode === "path") { this.path = [this.back(event)]; this.draw(); } else this.go(this.back(event));
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (this.pressed && this.mode === "decode") this.go(this.back(event));
      else if (this.pressed) { this.path.push(this.back(event)); this.draw(); }
      else this.hover(event);
    });
    const up = () => { if (this.pressed && this.mode === "path" && this.path.length > 1) this.told.path(this.path); this.pressed = false; };
    this.canvas.addEventListener("pointerup", up);
    this.canvas.addEventListener("pointercancel", up);
    this.canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.zoom(event.deltaY > 0 ? ZOOM : 1 / ZOOM, this.back(event)); }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => {
      const moves: Record<string, Place> = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
      const move = moves[event.key];
      if (move) { event.preventDefault(); this.go([this.place[0] + move[0], this.place[1] + move[1]]); }
      if (event.key === "+" || event.key === "-") this.zoom(event.key === "-" ? ZOOM : 1 / ZOOM, this.place);
    });
  }

  /** Tell which image lies under the pointer. */
  private hover(event: PointerEvent): void {
    const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = NEAR, found: ["real" | "drawn", number] | null = null;
    for (const which of ["real", "drawn"] as const) {
      (this.codes[which] as number[][]).forEach((code, i) => {
        const [a, b] = this.at([code[0], code[1] ?? 0]), far = Math.hypot(a - x, b - y);
        if (far < best) { best = far; found = [which, i]; }
      });
    }
    if (found) this.told.over(...(found as ["real" | "drawn", number]));
  }

  draw(): void {
    const { clientWidth: width, clientHeight: height } = this.canvas, dense = window.devicePixelRatio || 1;
    if (!width) return;
    this.canvas.width = width * dense;
    this.canvas.height = height * dense;
    const context = this.canvas.getContext("2d")!, style = getComputedStyle(this.canvas);
    const line = style.getPropertyValue("--line"), soft = style.getPropertyValue("--soft"), ink = style.getPropertyValue("--ink"), accent = style.getPropertyValue("--accent");
    context.scale(dense, dense);
    context.lineWidth = 1;
    context.strokeStyle = line;
    for (let sd = -20; sd <= 20; sd++) { // a line for each standard deviation
      const [x] = this.at([sd, 0]), [, y] = this.at([0, sd]);
      context.globalAlpha = sd === 0 ? 1 : 0.55;
      context.beginPath(); context.moveTo(x, 0); context.lineTo(x, height); context.moveTo(0, y); context.lineTo(width, y); context.stroke();
    }
    context.globalAlpha = 1;
    const side = Math.max(16, Math.min(40, 62 / this.span));
    (this.codes.drawn as number[][]).forEach((code, i) => {
      const [x, y] = this.at([code[0], code[1] ?? 0]);
      if (this.pictures && !this.images.real) { this.images.drawn.paint(context, i, x - side / 2, y - side / 2, side, side); return; }
      context.globalAlpha = 0.6; context.strokeStyle = soft;
      context.beginPath(); context.arc(x, y, 2.6, 0, 7); context.stroke();
      context.globalAlpha = 1;
    });
    (this.codes.real as number[][]).forEach((code, i) => {
      const [x, y] = this.at([code[0], code[1] ?? 0]), colour = this.codes.labels.length ? this.colour(this.codes.labels[i]) : accent;
      if (this.pictures && this.images.real) {
        this.images.real.paint(context, i, x - side / 2, y - side / 2, side, side);
        context.strokeStyle = colour; context.lineWidth = 1.5; context.strokeRect(x - side / 2, y - side / 2, side, side); context.lineWidth = 1;
        return;
      }
      context.fillStyle = colour; context.globalAlpha = 0.8;
      context.beginPath(); context.arc(x, y, 3.4, 0, 7); context.fill();
      context.globalAlpha = 1;
    });
    if (this.path.length > 1) {
      context.strokeStyle = accent; context.lineWidth = 3; context.lineJoin = "round";
      context.beginPath();
      this.path.forEach((each, i) => { const [x, y] = this.at(each); if (i) context.lineTo(x, y); else context.moveTo(x, y); });
      context.stroke();
    }
    const [x, y] = this.at(this.place); // a ring with a cross, where people are
    context.strokeStyle = ink; context.lineWidth = 2;
    context.beginPath(); context.arc(x, y, 8, 0, 7);
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) { context.moveTo(x + 4 * dx, y + 4 * dy); context.lineTo(x + 13 * dx, y + 13 * dy); }
    context.stroke();
  }
}

/** Places at even distances along a path that was drawn. */
export function along(path: Place[], count: number): Place[] {
  const lengths = [0];
  for (let i = 1; i < path.length; i++) lengths.push(lengths[i - 1] + Math.hypot(path[i][0] - path[i - 1][0], path[i][1] - path[i - 1][1]));
  const whole = lengths[lengths.length - 1];
  return Array.from({ length: count }, (_, k) => {
    const at = (k / (count - 1)) * whole;
    const i = Math.max(1, lengths.findIndex((length, j) => j > 0 && length >= at));
    const share = (at - lengths[i - 1]) / Math.max(lengths[i] - lengths[i - 1], 1e-12);
    return [path[i - 1][0] + share * (path[i][0] - path[i - 1][0]), path[i - 1][1] + share * (path[i][1] - path[i - 1][1])] as Place;
  });
}
