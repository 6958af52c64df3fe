// What does not belong: learn what is normal, rank, and sort out by keys.

import { Json, get } from "./api";
import { Action } from "./command";
import { readingForm, sourceField } from "./data";
import { el, heading, labelled, put, section, select } from "./dom";
import { to } from "./links";
import { sorting } from "./sorting";
import { follow } from "./waiting";
import { counted } from "./words";

export async function outliers(screen: HTMLElement, given: URLSearchParams): Promise<() => void> {
  const path = given.get("path");
  if (path) return sorting(screen, path);
  const found = await get("/api/home");
  const detectors = found.places.filter((each: Json) => each.kind === "detector"), rankings = found.places.filter((each: Json) => each.kind === "ranking");
  const ends: (() => void)[] = [];
  put(screen, heading("fabulate outliers", "Find what does not belong", el("p", { class: "lead" }, "First a detector learns normal images; then any images are ranked, the strangest first, at a promised rate of false alarms.")));
  if (rankings.length) put(screen, section("Rankings", el("div", { class: "tiles inner" }, ...rankings.map((each: Json) => el("a", { class: "tile", href: to("outliers", { path: each.path }) },
    el("div", { class: "text" }, el("h3", {}, each.name), el("p", {}, `${counted(each.outliers, "outlier")} of ${counted(each.images, "image")}`), el("p", {}, each.path)))))));
  if (detectors.length) put(screen, await scoring(detectors, given, ends));
  put(screen, await fitting(given, ends));
  return () => ends.forEach((end) => end());
}

async function fitting(given: URLSearchParams, ends: (() => void)[]): Promise<HTMLElement> {
  let named = false;
  const changed = () => { if (!named) out.value = `runs/normal-${source.input.value.trim().split("/").filter(Boolean).pop() || "images"}`; action.changed(); };
  const source = await sourceField(given.get("source") ?? "digits", changed);
  const reading = readingForm(await get("/api/form", { family: "vae" }), changed);
  const alarm = el("input", { type: "number", name: "false-alarm", min: 0.001, max: 0.5, step: "any", value: 0.05, input: () => action.changed() });
  const out = el("input", { type: "text", name: "out", autocomplete: "off", spellcheck: "false", input: () => { named = true; action.changed(); } });
  const place = el("div");
  const action = new Action("Learn what is normal", "outliers-fit", () => ({ source: source.input.value.trim(), reading: reading.form.changed(), false_alarm: Number(alarm.value), out: out.value.trim() }),
    (job) => ends.push(follow(place, job, () => { location.hash = to("outliers", { detector: job.path, source: source.input.value.trim() }); })));
  changed();
  return section("Learn what is normal", source.element, reading.element,
    el("div", { class: "form" }, labelled("false alarms", alarm, "The share of normal images that may be called outliers."), labelled("folder", out, "Where the detector is kept.")), action.element, place);
}

async function scoring(detectors: Json[], given: URLSearchParams, ends: (() => void)[]): Promise<HTMLElement> {
  let detector = given.get("detector") ?? detectors[0].path;
  const usual = () => detectors.find((each) => each.path === detector)?.data.source ?? "";
  const source = await sourceField(given.get("source") ?? usual(), () => action.changed());
  const choose = select(detectors.map((each) => [each.path, each.path]), detector, (path) => { detector = path; source.input.value = usual(); action.changed(); });
  const place = el("div");
  const action = new Action("Rank images", "outliers-score", () => ({ detector, source: source.input.value.trim() }),
    (job) => ends.push(follow(place, job, () => { location.hash = to("outliers", { path: job.path }); })));
  return section("Rank images", el("div", { class: "form two-fields" }, labelled("detector", choose), source.element), action.element, place);
}
