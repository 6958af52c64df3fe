// Texts and tunes: to be read, looked at and heard.

import { Json, post, postForBlob, query } from "./api";
import { Action } from "./command";
import { button, el, labelled, put, refill, section, select, settled } from "./dom";
import { Form } from "./form";
import { Latest, classField } from "./samples";

/** Items below each other; `sounds`: where the sound of item i is, of those that have one. */
export function writings(items: Json[], sounds?: (i: number) => string): HTMLElement {
  return el("div", { class: "writings" }, ...items.map((item, i) => el("article", { class: "writing" },
    item.title ? el("h3", {}, item.title) : null, item.about ? el("p", { class: "soft" }, item.about) : null,
    item.sound && sounds ? el("audio", { controls: true, preload: "none", src: sounds(i), "aria-label": `sample ${i + 1}` }) : null,
    el("pre", {}, item.text || " "))));
}

/** Samples of a model of texts or tunes, which follow seed, class and how the family writes. */
export function writes(run: string, facts: Json): HTMLElement {
  const list = el("div", { class: "written", "aria-live": "polite" });
  const latest = new Latest();
  let seed = 0, n = 6, label: string | null = null;
  const body = () => ({ run, n, seed, label, sampling: form?.changed() ?? {} });
  const write = () => latest.run(async (signal) => {
    const asked = body();
    refill(list, el("progress"));
    try {
      const items = await post<Json[]>("/api/explore/write", asked, signal);
      const shown = writings(items, (i) => query("/api/explore/sound", { asks: JSON.stringify(asked), i }));
      if (items.some((item) => item.sound)) { // music is looked at too
        const { blob } = await postForBlob("/api/explore/sheet", asked, signal);
        const bitmap = await createImageBitmap(blob);
        const sheet = el("canvas", { class: "roll", height: bitmap.height, width: bitmap.width, role: "img", "aria-label": "piano rolls of the samples" });
        sheet.getContext("2d")!.drawImage(bitmap, 0, 0);
        refill(list, sheet, shown);
      } else refill(list, shown);
    } catch (error) {
      if (!(error instanceof DOMException)) refill(list);
      throw error;
    }
  });
  const soon = settled(write, 400); // while somebody types what samples begin with
  const changed = () => { action.changed(); soon(); };
  const number = el("input", { type: "number", name: "seed", min: 0, step: 1, value: 0, input: () => { seed = Math.max(0, Math.floor(Number(number.value) || 0)); changed(); } });
  const next = (by: number) => { seed = Math.max(0, seed + by); number.value = String(seed); changed(); };
  const form = facts.sampling ? new Form(facts.sampling, facts.defaults, changed) : null;
  const action = new Action("Write as files", "sample", body, () => null, "");
  const side = el("div", { class: "form one" }, labelled("seed", el("div", { class: "row" }, button("‹", () => next(-1), "small"), number, button("›", () => next(1), "small")), "Which samples: the same seed writes the same ones."),
    labelled(facts.medium, select([["3", "3"], ["6", "6"], ["12", "12"], ["24", "24"]], String(n), (value) => { n = Number(value); changed(); })),
    classField(facts.classes, (name) => { label = name; changed(); }));
  if (form) put(side, ...Array.from(form.element.children));
  void write();
  return section("Samples", el("div", { class: "split narrow" }, side, list), action.element);
}
