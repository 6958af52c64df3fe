// Samples that follow what is asked for: seed, class, and how the family draws.

import { Json, attempt } from "./api";
import { asked, gallery } from "./atlas";
import { Action } from "./command";
import { button, el, labelled, put, refill, section, select } from "./dom";
import { Form } from "./form";

/** A field for a class, of a model that learnt classes; nothing for others. */
export function classField(classes: string[], changed: (label: string | null) => void, all = true): HTMLElement | null {
  if (!classes.length) return null;
  const options: [string, string][] = [...(all ? [["", "each in turn"] as [string, string]] : []), ...classes.map((name) => [name, name] as [string, string])];
  return labelled(all ? "class" : "class of the map", select(options, all ? "" : classes[0], (name) => changed(name || null)));
}

/** The newest of several requests wins: those before are given up. */
export class Latest {
  private control = new AbortController();
  run<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    this.control.abort();
    this.control = new AbortController();
    return attempt(() => work(this.control.signal));
  }
}

export function samples(run: string, facts: Json): HTMLElement {
  const [, height, width] = facts.shape;
  const grid = el("div", { class: "samples" });
  const latest = new Latest();
  let seed = 0, n = Math.max(height, width) > 64 ? 16 : 64, label: string | null = null;
  const number = el("input", { type: "number", name: "seed", min: 0, step: 1, value: 0, input: () => { seed = Math.max(0, Math.floor(Number(number.value) || 0)); changed(); } });
  const body = () => ({ run, n, seed, label, sampling: form?.changed() ?? {} });
  const changed = () => {
    action.changed();
    void latest.run(async (signal) => {
      const began = performance.now();
      const atlas = await asked("/api/explore/draw", body(), n, height, width, signal);
      refill(grid, gallery(atlas, n, (i) => `sample ${i}`));
      (grid.firstElementChild as HTMLElement).style.setProperty("--columns", String(Math.ceil(Math.sqrt(n))));
      grid.dataset.milliseconds = String(Math.round(performance.now() - began));
      grid.dataset.seed = String(seed);
    });
  };
  const form = facts.sampling ? new Form(facts.sampling, facts.defaults, () => changed()) : null;
  const next = (by: number) => { seed = Math.max(0, seed + by); number.value = String(seed); changed(); };
  const action = new Action("Draw as files", "sample", body, () => null, "");
  const side = el("div", { class: "form one" }, labelled("seed", el("div", { class: "row" }, button("‹", () => next(-1), "small"), number, button("›", () => next(1), "small")), "Which images: the same seed draws the same ones."),
    labelled("images", select([["16", "16"], ["36", "36"], ["64", "64"], ["100", "100"]], String(n), (value) => { n = Number(value); changed(); })),
    classField(facts.classes, (name) => { label = name; changed(); }));
  if (form) put(side, ...Array.from(form.element.children));
  changed();
  return section("Samples", el("div", { class: "split narrow" }, side, grid), action.element);
}
