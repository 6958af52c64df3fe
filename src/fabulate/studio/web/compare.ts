// Two to four runs: the verdict first, then the same seeds side by side, then all numbers.

import { Json, attempt, get } from "./api";
import { asked, gallery } from "./atlas";
import { Action } from "./command";
import { button, el, heading, labelled, put, refill, section } from "./dom";
import { report, to } from "./links";
import { proof } from "./proof";
import { Latest } from "./samples";
import { follow } from "./waiting";

const SHOWN = 25, MOST = 4;

export async function compare(screen: HTMLElement, given: URLSearchParams): Promise<() => void> {
  const shown = given.get("proof");
  if (shown) { await proof(screen, shown); return () => undefined; }
  const home = await get("/api/home");
  const runs = home.places.filter((each: Json) => each.kind === "run" && each.model && each.shape.length === 3) as Json[];
  const known = home.places.filter((each: Json) => each.kind === "comparison") as Json[];
  const proofs = home.places.filter((each: Json) => each.kind === "proof") as Json[];
  const ends: (() => void)[] = [];
  const path = given.get("path");
  const opened = known.find((each) => each.path === path);
  const chosen = new Set<string>();
  for (const run of runs) if (opened ? opened.runs.includes(run.name) : run.path === given.get("run")) chosen.add(run.path);
  let seed = 0;

  const verdict = el("div"), grids = el("div", { class: "versus" }), page = el("div"), waiting = el("div");
  const show = (place: string) => attempt(async () => {
    const found = await get("/api/comparison", { path: place });
    refill(verdict, el("section", { class: "verdict" }, el("h2", {}, "The verdict"), el("p", { id: "overall" }, found.overall)));
    refill(page, section("All numbers", el("iframe", { class: "report", sandbox: "", title: "comparison", src: report(`${place}/index.html`) }),
      el("p", {}, el("a", { href: report(`${place}/index.html`), target: "_blank", rel: "noopener" }, "open the page by itself"))));
  });
  const latest = new Latest();
  const draw = () => latest.run(async (signal) => {
    action.changed();
    action.element.hidden = chosen.size < 2;
    const some = runs.filter((run) => chosen.has(run.path));
    const columns = some.map((run) => el("figure", {}, el("figcaption", {}, el("strong", {}, run.name), ` ${run.family} · ${run.data}`), el("div", { class: "samples" })));
    refill(grids, ...columns);
    for (const [i, run] of some.entries()) {
      const atlas = await asked("/api/explore/draw", { run: run.path, n: SHOWN, seed }, SHOWN, run.shape[1], run.shape[2], signal);
      refill(columns[i].querySelector(".samples")!, gallery(atlas, SHOWN, (k) => `sample ${k} of ${run.name}`));
    }
  });
  const boxes = runs.map((run) => {
    const box = el("input", { type: "checkbox", checked: chosen.has(run.path), change: () => {
      if (box.checked && chosen.size >= MOST) { box.checked = false; return; }
      if (box.checked) chosen.add(run.path); else chosen.delete(run.path);
      refill(verdict); refill(page);
      void draw();
    } });
    return el("label", { class: "pick" }, box, el("span", {}, el("strong", {}, run.name), el("span", { class: "soft" }, `${run.family} · ${run.data}`)));
  });
  const number = el("input", { type: "number", min: 0, step: 1, value: 0, name: "seed", input: () => { seed = Math.max(0, Math.floor(Number(number.value) || 0)); void draw(); } });
  const n = el("input", { type: "number", min: 100, step: 100, value: 2000, name: "n", input: () => action.changed() });
  const action = new Action("Compare", "compare", () => ({ runs: [...chosen], n: Number(n.value) }),
    (job) => ends.push(follow(waiting, job, () => show(job.path))));
  put(screen, heading("fabulate compare", opened ? opened.runs.join(" · ") : "Compare models", opened ? null : el("p", { class: "lead" }, "Which is better, and is the difference more than chance?")),
    verdict,
    section("Models", runs.length > 1 ? el("div", { class: "picks" }, ...boxes) : el("p", { class: "soft" }, "There have to be two trained models of the same images."),
      el("div", { class: "form" }, labelled("samples of each", n, "With fewer the intervals are wider.")), action.element, waiting,
      known.length && !opened ? el("div", { class: "buttons" }, ...known.map((each) => el("a", { class: "button small", href: to("compare", { path: each.path }) }, each.runs.join(" · ")))) : null),
    section("The same seeds side by side", el("div", { class: "form" }, labelled("seed", el("div", { class: "row" }, button("‹", () => { number.value = String(Math.max(0, seed - 1)); number.dispatchEvent(new Event("input")); }, "small"), number,
      button("›", () => { number.value = String(seed + 1); number.dispatchEvent(new Event("input")); }, "small")))), grids),
    page,
    proofs.length && !opened ? section("Proofs", el("p", { class: "soft" }, "Whether synthetic images helped a classifier."),
      el("div", { class: "buttons" }, ...proofs.map((each) => el("a", { class: "button small", href: to("compare", { proof: each.path }) }, each.path)))) : null);
  if (opened) void show(opened.path);
  void draw();
  return () => ends.forEach((end) => end());
}
