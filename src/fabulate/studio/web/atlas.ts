// Many images in one PNG: a square of cells without gaps. Each is drawn by itself, crisp where it is small.

import { postForBlob } from "./api";
import { el } from "./dom";

const SMALL = 64; // pixels a side below which pixels stay squares

export class Atlas {
  readonly columns: number;
  constructor(readonly bitmap: ImageBitmap, readonly n: number, readonly height: number, readonly width: number) {
    this.columns = Math.ceil(Math.sqrt(n));
  }

  /** Draw image i into a canvas, in its own pixels; CSS enlarges it. */
  draw(canvas: HTMLCanvasElement, i: number): void {
    if (canvas.width !== this.width) canvas.width = this.width;
    if (canvas.height !== this.height) canvas.height = this.height;
    this.paint(canvas.getContext("2d", { willReadFrequently: true })!, i, 0, 0, this.width, this.height);
  }

  /** Draw image i into a rectangle of a drawing. */
  paint(context: CanvasRenderingContext2D, i: number, x: number, y: number, width: number, height: number): void {
    const left = (i % this.columns) * this.width, top = Math.floor(i / this.columns) * this.height;
    context.imageSmoothingEnabled = this.width >= SMALL;
    context.drawImage(this.bitmap, left, top, this.width, this.height, x, y, width, height);
  }

  /** Image i as a canvas. */
  picture(i: number, words: string): HTMLCanvasElement {
    const canvas = cell(this.height, this.width, words);
    this.draw(canvas, i);
    return canvas;
  }
}

/** A canvas for one image. */
export function cell(height: number, width: number, words: string): HTMLCanvasElement {
  const crisp = Math.max(height, width) < SMALL ? "cell crisp" : "cell";
  return el("canvas", { class: crisp, height, width, role: "img", "aria-label": words });
}

/** Images that the server makes. */
export async function asked(path: string, body: unknown, n: number, height: number, width: number, signal?: AbortSignal): Promise<Atlas> {
  const { blob } = await postForBlob(path, body, signal);
  return new Atlas(await createImageBitmap(blob), n, height, width);
}

/** Images in rows that wrap. */
export function gallery(atlas: Atlas, count: number, words: (i: number) => string): HTMLElement {
  return el("div", { class: "gallery-grid" }, ...Array.from({ length: count }, (_, i) => atlas.picture(i, words(i))));
}

/** A PNG in base64 as a canvas. */
export async function fromBase64(data: string, words: string): Promise<HTMLCanvasElement> {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  return new Atlas(bitmap, 1, bitmap.height, bitmap.width).picture(0, words);
}
