// Choose images, a family and its hyperparameters, and begin.

import { Json, get } from "./api";
import { Action } from "./command";
import { readingForm, sourceField } from "./data";
import { el, heading, labelled, put, refill, section, select } from "./dom";
import { Form } from "./form";
import { to } from "./links";

const BEST: Record<string, string> = {
  ae: "Short codes, quickly.", vae: "Codes with a meaning, and whether an image is typical.", gan: "Sharp samples at once.",
  flow: "The best samples; slower to train and to draw.", nf: "Exact likelihoods.", vqvae: "A short discrete code.",
  ar: "Exact likelihoods of images of few gray levels.", consistency: "A flow's samples, sooner.",
};
const FIRST = ["epochs", "steps", "minutes", "conditional", "seed"]; // of the training, shown before all else

export async function train(screen: HTMLElement, given: URLSearchParams): Promise<void> {
  const families = (await get<Json[]>("/api/families")).filter((each) => each.images);
  let family = families.find((each) => each.name === given.get("family")) ?? families.find((each) => each.name === "vae") ?? families[0];
  let preset = "default", named = false;
  let forms: { model: Form; training: Form; first: Form } | null = null;
  const changed = () => { if (!named) out.value = usual(); action.changed(); };
  const source = await sourceField(given.get("source") ?? "digits", changed);
  const form = await get("/api/form", { family: family.name });
  const size = given.get("size"); // that the data screen found to suit them
  if (size) form.reading_defaults = { ...form.reading_defaults, size };
  const reading = readingForm(form, changed);
  const out = el("input", { type: "text", name: "out", autocomplete: "off", spellcheck: "false", input: () => { named = true; action.changed(); } });
  const usual = () => `runs/${family.name}-${source.input.value.trim().split("/").filter(Boolean).pop() || "images"}${preset === "default" ? "" : `-${preset}`}`;
  const asked = () => ({
    family: family.name, preset, source: source.input.value.trim(), out: out.value.trim(),
    reading: { ...(size ? { size: Number(size) || size } : {}), ...reading.form.changed() },
    model: forms?.model.changed() ?? {}, training: { ...forms?.training.changed(), ...forms?.first.changed() },
  });
  const place = el("div");
  const cards = el("div", { class: "families", role: "radiogroup", "aria-label": "family" });
  const choose = async (name: string) => {
    family = families.find((each) => each.name === name)!;
    preset = "default";
    for (const card of cards.children) card.setAttribute("aria-checked", String((card as HTMLElement).dataset.name === name));
    await fillForms();
  };
  const fillForms = async () => {
    const form = await get("/api/form", { family: family.name });
    if (form.family !== family.name) return; // another was chosen meanwhile
    const values = form.presets[preset];
    const names = Object.keys(form.training.properties);
    forms = {
      first: new Form(form.training, values.training, changed, {}, FIRST),
      model: new Form(form.model, values.model, changed, values.kinds, Object.keys(form.model.properties).filter((each) => each !== "sampling")),
      training: new Form(form.training, values.training, changed, {}, names.filter((each) => !FIRST.includes(each))),
    };
    forms.first.element.prepend(labelled("preset", select(family.presets.map((each: string) => [each, each]), preset,
      async (chosen) => { preset = chosen; await fillForms(); }), "A named set of hyperparameters; “tutorial” is the textbook's."));
    refill(place, forms.first.element, el("details", {}, el("summary", {}, "The model"), forms.model.element),
      el("details", {}, el("summary", {}, "The training"), forms.training.element));
    changed();
  };
  put(cards, ...families.map((each) => {
    const card = el("button", { class: "family", type: "button", role: "radio", "aria-checked": String(each === family), click: () => void choose(each.name) },
      el("code", {}, each.name), el("strong", {}, each.title), el("span", { class: "soft" }, BEST[each.name] ?? each.idea));
    card.dataset.name = each.name;
    return card;
  }));
  const action = new Action("Train", "train", asked, (job) => { location.hash = to("run", { path: job.path }); });
  put(screen, heading("fabulate train", "Train a model", el("p", { class: "lead" }, "The same command again continues; stopping saves first.")),
    section("Images", source.element, reading.element), section("Family", cards), section("Hyperparameters", place),
    section("", labelled("Run folder", out, "Everything is kept there; the folder can be moved, copied and deleted."), action.element));
  await fillForms();
}
