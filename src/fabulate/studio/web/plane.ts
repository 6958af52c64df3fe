// The plane of a lesson: a field behind the data, arrows, and what the model makes; and a place to draw on.

import { Picture } from "./packets";
import { el } from "./dom";

const HEAD = 4, SHOWN = 700, AROUND = 6, WIDE = 0.035, STEP = 0.06; // pixels of an arrow's head; data points drawn; points of a stroke, their spread; a key's step

export class Plane {
  readonly canvas = el("canvas", { class: "plane", tabindex: 0, role: "img", "aria-label": "the plane of points" });
  drawn = 0; // pictures, since the page was opened
  private data: Float32Array = new Float32Array(0);
  private points: Float32Array = new Float32Array(0);
  private arrows: Float32Array = new Float32Array(0);
  private readonly field = document.createElement("canvas");
  private about = { exact: false, side: 0, diverging: false };
  private stroke: [number, number][] | null = null; // of a drawing in the making
  private cross: [number, number] = [0, 0];
  private pressed = false;
  private waiting = 0;
  private readonly wide = new ResizeObserver(() => this.soon());
  private readonly theme = matchMedia("(prefers-color-scheme: dark)");
  private readonly changed = () => this.soon();

  constructor(private readonly finished: (points: [number, number][]) => void) {
    this.wide.observe(this.canvas);
    this.theme.addEventListener("change", this.changed);
    this.canvas.addEventListener("pointerdown", (event) => { if (!this.stroke) return; this.pressed = true; this.canvas.setPointerCapture(event.pointerId); this.add(event); });
    this.canvas.addEventListener("pointermove", (event) => { if (this.pressed) this.add(event); });
    const up = () => { if (this.pressed && this.stroke && this.stroke.length >= 20) this.finished(this.stroke); this.pressed = false; };
    this.canvas.addEventListener("pointerup", up);
    this.canvas.addEventListener("pointercancel", up);
    this.canvas.addEventListener("keydown", (event) => {
      if (!this.stroke) return;
      const move = ({ ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] } as Record<string, [number, number]>)[event.key];
      if (move) { event.preventDefault(); this.cross = [inside(this.cross[0] + move[0]), inside(this.cross[1] + move[1])]; this.scatter(this.cross); }
      if (event.key === "Enter" && this.stroke.length >= 20) this.finished(this.stroke);
    });
  }

  end(): void { this.wide.disconnect(); this.theme.removeEventListener("change", this.changed); cancelAnimationFrame(this.waiting); }

  /** Begin with other data. */
  begin(facts: Picture): void {
    this.data = facts.points;
    this.points = this.arrows = new Float32Array(0);
    this.stroke = null;
    this.about = { exact: facts.told.exact, side: facts.told.side, diverging: facts.told.diverging };
    this.field.width = this.field.height = 0;
    this.canvas.classList.remove("open");
    delete this.canvas.dataset.step;
    this.soon();
  }

  /** An empty plane to draw on. */
  open(): void {
    this.stroke = [];
    this.data = this.points = this.arrows = new Float32Array(0);
    this.field.width = this.field.height = 0;
    this.canvas.classList.add("open");
    this.soon();
  }

  show(picture: Picture): void {
    this.points = picture.points;
    if (picture.arrows.length) this.arrows = picture.arrows;
    if (picture.field.length) this.colour(picture.field);
    this.canvas.dataset.step = String(picture.told.step);
    this.soon();
  }

  private add(event: PointerEvent): void {
    const box = this.canvas.getBoundingClientRect();
    this.scatter([inside((2 * (event.clientX - box.left)) / box.width - 1), inside(1 - (2 * (event.clientY - box.top)) / box.height)]);
  }

  private scatter([a, b]: [number, number]): void {
    if (!this.stroke || this.stroke.length > 2000 - AROUND) return;
    for (let i = 0; i < AROUND; i++) { const far = WIDE * Math.sqrt(-2 * Math.log(1 - Math.random())), angle = 2 * Math.PI * Math.random(); this.stroke.push([inside(a + far * Math.cos(angle)), inside(b + far * Math.sin(angle))]); }
    this.data = new Float32Array(this.stroke.flat());
    this.soon();
  }

  /** The field as a small picture, which is enlarged smoothly. */
  private colour(levels: Uint8Array): void {
    const side = this.about.side, style = getComputedStyle(this.canvas);
    this.field.width = this.field.height = side;
    const context = this.field.getContext("2d")!, image = context.createImageData(side, side);
    const high = rgb(style.getPropertyValue("--accent")), low = rgb(style.getPropertyValue("--warm"));
    levels.forEach((level, i) => {
      const share = this.about.diverging ? level / 127.5 - 1 : level / 255, colour = share < 0 ? low : high;
      image.data.set([...colour, Math.round(150 * Math.abs(share))], 4 * i);
    });
    context.putImageData(image, 0, 0);
  }

  private soon(): void {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); this.drawn++; });
  }

  private draw(): void {
    const side = this.canvas.clientWidth, dense = window.devicePixelRatio || 1;
    if (!side) return;
    if (this.canvas.width !== Math.round(side * dense)) this.canvas.width = this.canvas.height = Math.round(side * dense);
    const context = this.canvas.getContext("2d")!, style = getComputedStyle(this.canvas);
    const [ink, soft, warm, line] = ["--ink", "--soft", "--warm", "--line"].map((name) => style.getPropertyValue(name));
    const x = (a: number) => ((a + 1) / 2) * side, y = (b: number) => ((1 - b) / 2) * side;
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, side, side);
    if (this.field.width) context.drawImage(this.field, 0, 0, side, side);
    context.strokeStyle = line;
    context.lineWidth = 1;
    context.beginPath();
    for (const at of [-0.5, 0, 0.5]) { context.moveTo(x(at), 0); context.lineTo(x(at), side); context.moveTo(0, y(at)); context.lineTo(side, y(at)); }
    context.stroke();
    dots(context, this.data, Math.min(this.data.length / 2, this.stroke ? 2000 : SHOWN), soft, 1.7, 0.55, x, y);
    dots(context, this.points, this.points.length / 2, warm, 2.4, 0.9, x, y);
    this.arrow(context, ink, side, x, y);
    if (this.stroke) {
      context.strokeStyle = ink;
      context.beginPath();
      context.moveTo(x(this.cross[0]) - 7, y(this.cross[1])); context.lineTo(x(this.cross[0]) + 7, y(this.cross[1]));
      context.moveTo(x(this.cross[0]), y(this.cross[1]) - 7); context.lineTo(x(this.cross[0]), y(this.cross[1]) + 7);
      context.stroke();
    }
  }

  private arrow(context: CanvasRenderingContext2D, ink: string, side: number, x: (a: number) => number, y: (b: number) => number): void {
    const count = this.arrows.length / 4, lengths = Array.from({ length: count }, (_, i) => Math.hypot(this.arrows[4 * i + 2], this.arrows[4 * i + 3]));
    const usual = [...lengths].sort((a, b) => a - b)[Math.floor(0.9 * count)] || 1, longest = (side / 13) * 0.95;
    context.strokeStyle = context.fillStyle = ink;
    context.globalAlpha = 0.75;
    context.lineWidth = 1.15;
    context.beginPath();
    for (let i = 0; i < count; i++) {
      const [a, b, da, db] = this.arrows.subarray(4 * i, 4 * i + 4), x0 = x(a), y0 = y(b);
      // A residual ends where it ends; of others the nine tenths' longest is as long as they lie apart.
      const scale = this.about.exact ? side / 2 : (longest * Math.min(1, lengths[i] / usual)) / (lengths[i] || 1);
      const dx = da * scale, dy = -db * scale, long = Math.hypot(dx, dy);
      if (long < 1.5) continue;
      const ux = dx / long, uy = dy / long, head = Math.min(HEAD, long / 2), x1 = x0 + dx, y1 = y0 + dy;
      context.moveTo(x0, y0); context.lineTo(x1, y1);
      context.moveTo(x1 - head * (ux - 0.6 * uy), y1 - head * (uy + 0.6 * ux)); context.lineTo(x1, y1); context.lineTo(x1 - head * (ux + 0.6 * uy), y1 - head * (uy - 0.6 * ux));
    }
    context.stroke();
    context.globalAlpha = 1;
  }
}

function dots(context: CanvasRenderingContext2D, points: Float32Array, count: number, colour: string, radius: number, alpha: number, x: (a: number) => number, y: (b: number) => number): void {
  context.fillStyle = colour;
  context.globalAlpha = alpha;
  context.beginPath();
  for (let i = 0; i < count; i++) { const a = x(points[2 * i]), b = y(points[2 * i + 1]); context.moveTo(a + radius, b); context.arc(a, b, radius, 0, 7); }
  context.fill();
  context.globalAlpha = 1;
}

function inside(value: number): number { return Math.max(-1, Math.min(1, value)); }

/** A colour of the style sheet, #rrggbb, as numbers. */
function rgb(colour: string): [number, number, number] {
  const number = parseInt(colour.trim().slice(1), 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}
