// The losses of a lesson against its steps, as they come.

import { ticks } from "./curves";
import { el } from "./dom";
import { number } from "./words";

const MOST = 900, LEFT = 46, BOTTOM = 20, TOP = 8, RIGHT = 8; // points kept of a curve; pixels

export class Trace {
  readonly element = el("canvas", { class: "trace", role: "img", "aria-label": "the loss against steps" });
  private steps: number[] = [];
  private values: Record<string, number[]> = {};
  private readonly wide = new ResizeObserver(() => this.draw());

  constructor() { this.wide.observe(this.element); }

  end(): void { this.wide.disconnect(); }

  clear(): void { this.steps = []; this.values = {}; this.draw(); }

  add(step: number, losses: Record<string, number>): void {
    if (!Object.keys(losses).length || step === this.steps[this.steps.length - 1]) return;
    this.steps.push(step);
    for (const [name, value] of Object.entries(losses)) (this.values[name] ??= new Array(this.steps.length - 1).fill(NaN)).push(value);
    for (const values of Object.values(this.values)) while (values.length < this.steps.length) values.push(NaN);
    if (this.steps.length > MOST) { // every second one goes
      this.steps = this.steps.filter((_, i) => i % 2);
      for (const name of Object.keys(this.values)) this.values[name] = this.values[name].filter((_, i) => i % 2);
    }
    this.draw();
  }

  private draw(): void {
    const { clientWidth: width, clientHeight: height } = this.element, dense = window.devicePixelRatio || 1;
    if (!width) return;
    if (this.element.width !== Math.round(width * dense)) { this.element.width = Math.round(width * dense); this.element.height = Math.round(height * dense); }
    const context = this.element.getContext("2d")!, style = getComputedStyle(this.element);
    const [soft, line, accent, warm] = ["--soft", "--line", "--accent", "--warm"].map((name) => style.getPropertyValue(name));
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, width, height);
    // The first steps fall from far above: the scale is that of the rest, nearly all of it.
    const late = Object.values(this.values).flatMap((each) => each.slice(Math.floor(each.length / 10))).filter(Number.isFinite).sort((a, b) => a - b);
    if (late.length < 2) return;
    let low = late[Math.floor(0.005 * late.length)], high = late[Math.ceil(0.985 * (late.length - 1))];
    const margin = Math.max(0.08 * (high - low), 1e-3 * Math.abs(high), 1e-9);
    low -= margin; high += margin;
    const last = Math.max(1, this.steps[this.steps.length - 1]);
    const x = (step: number) => LEFT + (step / last) * (width - LEFT - RIGHT), y = (value: number) => TOP + (1 - (value - low) / (high - low)) * (height - TOP - BOTTOM);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = soft;
    context.strokeStyle = line;
    context.textAlign = "right";
    for (const tick of ticks(low, high, 3)) { context.beginPath(); context.moveTo(LEFT, y(tick)); context.lineTo(width - RIGHT, y(tick)); context.stroke(); context.fillText(number(tick), LEFT - 6, y(tick) + 4); }
    context.textAlign = "center";
    for (const tick of ticks(0, last, 4).filter((tick) => x(tick) < width - 24)) context.fillText(tick.toLocaleString("en-US"), x(tick), height - 5);
    context.save();
    context.beginPath();
    context.rect(LEFT, TOP - 2, width - LEFT - RIGHT + 2, height - TOP - BOTTOM + 4);
    context.clip();
    Object.values(this.values).forEach((values, k) => {
      context.strokeStyle = k ? warm : accent;
      context.lineWidth = 1.6;
      context.lineJoin = "round";
      context.beginPath();
      values.forEach((value, i) => { if (Number.isFinite(value)) context.lineTo(x(this.steps[i]), y(value)); });
      context.stroke();
    });
    context.restore();
  }
}
