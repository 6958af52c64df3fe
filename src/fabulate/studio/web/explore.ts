// Walk among a model's codes: samples, a map, sliders along the directions that vary most, an image of one's own.

import { Json, attempt, get, postForBlob, query, upload } from "./api";
import { Atlas, asked, cell, fromBase64 } from "./atlas";
import { Action } from "./command";
import { button, el, heading, labelled, put, refill, section, select } from "./dom";
import { to } from "./links";
import { CodeMap, Place, along } from "./map";
import { Latest, classField, samples } from "./samples";
import { number, shape } from "./words";
import { writes } from "./written";

const CODES = 400, FRAMES = 48, STRIP = 12;

export async function explore(screen: HTMLElement, given: URLSearchParams): Promise<() => void> {
  const runs = (await get("/api/home")).places.filter((each: Json) => each.kind === "run" && each.model);
  const path = given.get("run") ?? runs[0]?.path;
  if (!path) {
    put(screen, heading("explore", "Explore", el("p", { class: "lead" }, "There is no trained model yet.")), section("", el("a", { class: "button primary", href: to("train") }, "Train one")));
    return () => undefined;
  }
  const options = runs.map((each: Json) => [each.path, each.path] as [string, string]);
  const choose = select(options.some(([each]: [string, string]) => each === path) ? options : [[path, path], ...options], path, (run) => { location.hash = to("explore", { run }); });
  const waiting = el("section", {}, el("progress"));
  put(screen, heading("explore", path.split("/").pop()!), waiting);
  const facts = await get("/api/explore", { run: path });
  waiting.remove();
  let end = () => {}, wanted = 0; // of the map that is shown; the class chosen last
  const place = el("div");
  const fill = (label: string | null) => attempt(async () => {
    const own = ++wanted, shown = await codes(path, facts, label);
    if (own !== wanted) { shown.end(); return; }
    end();
    end = shown.end;
    refill(place, ...shown.sections);
  });
  put(screen.firstElementChild!, el("p", { class: "lead" }, `${facts.family} · ${facts.medium === "images" ? shape(facts.shape) : `${facts.medium}, ${facts.shape}`} · ${number(facts.numbers)} parameters`));
  if (facts.medium !== "images") {
    put(screen, section("", el("div", { class: "form" }, labelled("run", choose))), writes(path, facts));
    return () => undefined;
  }
  put(screen, section("", el("div", { class: "form" }, labelled("run", choose), facts.map ? classField(facts.classes, fill, false) : null)));
  put(screen, samples(path, facts), place);
  if (facts.map) await fill(facts.classes[0] ?? null);
  else refill(place, section("Codes", el("p", { class: "soft" }, "A code of this model has as many numbers as an image, or none: no map of few directions tells what varies in it.")));
  return () => { wanted++; end(); };
}

/** The map with what is decoded beside it, the walk, and a place for an image. */
async function codes(run: string, facts: Json, label: string | null): Promise<{ sections: HTMLElement[]; end: () => void }> {
  const [, height, width] = facts.shape;
  const body = { run, n: CODES, label };
  const found = await (await postForBlob("/api/explore/map", body)).blob.text().then(JSON.parse);
  const drawn = await asked("/api/explore/images?which=drawn", body, found.drawn.length, height, width);
  const real = found.real.length ? await asked("/api/explore/images?which=real", body, found.real.length, height, width) : null;

  const decoded = cell(height, width, "the code here, decoded"), under = cell(height, width, "the image under the pointer");
  const words = el("figcaption", {}, "the mean code"), over = el("figcaption", {}, "point at a dot");
  decoded.classList.add("big");
  const coordinates = new Array<number>(found.shares.length).fill(0);
  const latest = new Latest();
  const decode = () => latest.run(async (signal) => {
    const atlas = await asked("/api/explore/decode", { ...body, places: [coordinates] }, 1, height, width, signal);
    atlas.draw(decoded, 0);
    decoded.dataset.place = coordinates.map((value) => value.toFixed(3)).join(" ");
    words.textContent = `${coordinates.slice(0, 2).map((value) => value.toFixed(2)).join(", ")} standard deviations from the mean code`;
  });
  const sliders = coordinates.map((_, k) => {
    const bar = el("input", { type: "range", min: -4, max: 4, step: 0.05, value: 0, name: `direction-${k + 1}`, "aria-label": `direction ${k + 1}`, input: () => {
      coordinates[k] = Number(bar.value);
      told.textContent = coordinates[k].toFixed(1);
      if (k < 2) { map.place = [coordinates[0], coordinates[1] ?? 0]; map.draw(); }
      void decode();
    } });
    const told = el("output", {}, "0.0");
    return { bar, told, row: el("label", { class: "slider" }, el("span", {}, `${k + 1}`), bar, told, el("span", { class: "soft" }, `${(100 * found.shares[k]).toFixed(1)} %`)) };
  });
  const move = (values: number[]) => {
    values.forEach((value, k) => { coordinates[k] = value; sliders[k].bar.value = String(value); sliders[k].told.textContent = value.toFixed(1); });
    void decode();
  };
  const walk = new Walk(body, height, width, coordinates.length);
  const map = new CodeMap(found, { real, drawn }, {
    moved: (place) => move(coordinates.length > 1 ? place : [place[0]]),
    path: (places) => void walk.along(places, coordinates),
    over: (which, i) => {
      (which === "real" ? real! : drawn).draw(under, i);
      over.textContent = which === "real" ? `a real image${found.labels.length ? `: ${found.labels[i]}` : ""}` : `sample ${i}, drawn`;
    },
  });
  void decode();
  const held = found.shares.slice(0, 2).reduce((sum: number, share: number) => sum + share, 0);
  const reset = button("Mean code", () => { move(coordinates.map(() => 0)); map.go([0, 0]); }, "small");
  const end = () => { map.end(); walk.end(); };
  return {
    sections: [
      section("Map of codes", el("p", { class: "soft" }, `Each dot is an image at its code, ${found.latent} numbers, seen along the two directions in which codes vary most (${(100 * held).toFixed(0)} % of the variance). Press anywhere, or move with the arrow keys: the code there is decoded. Lines are standard deviations.`),
        el("div", { class: "explorer" }, map.element, el("div", { class: "beside" },
          el("div", { class: "two" }, el("figure", {}, decoded, words), el("figure", {}, under, over)),
          el("div", { class: "sliders" }, el("div", { class: "slider head" }, el("span", {}), el("span", { class: "soft" }, "along each direction, in standard deviations"), el("span", {}), el("span", { class: "soft" }, "variance")),
            ...sliders.map((each) => each.row), reset)))),
      walk.element, between(run, label), own(body, facts, map, found, real),
    ],
    end,
  };
}

/** What lies along a path that was drawn: a strip, an animation, and a GIF to keep. */
class Walk {
  readonly element = section("A walk", el("p", { class: "soft" }, "Press “Draw a path” above, and draw one on the map: it becomes a strip and an animation."));
  private timer = 0;
  constructor(private readonly body: Json, private readonly height: number, private readonly width: number, private readonly directions: number) {}

  end(): void { clearInterval(this.timer); }

  async along(path: Place[], rest: number[]): Promise<void> {
    const places = along(path, FRAMES).map((place) => [...place, ...rest.slice(2)].slice(0, this.directions));
    await attempt(async () => {
      const atlas = await asked("/api/explore/decode", { ...this.body, places }, FRAMES, this.height, this.width);
      const film = cell(this.height, this.width, "the walk, moving");
      film.classList.add("film");
      const strip = el("div", { class: "strip" }, ...Array.from({ length: STRIP }, (_, k) => atlas.picture(Math.round((k * (FRAMES - 1)) / (STRIP - 1)), `part ${k + 1}`)));
      const save = button("Save as GIF", () => attempt(async () => {
        const { blob } = await postForBlob("/api/explore/walk", { ...this.body, places });
        const link = el("a", { href: URL.createObjectURL(blob), download: "walk.gif" });
        link.click();
        window.setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // some browsers begin to save it later
      }));
      this.end();
      let k = 0;
      this.timer = window.setInterval(() => { k = (k + 1) % (2 * FRAMES - 2); atlas.draw(film, k < FRAMES ? k : 2 * FRAMES - 2 - k); }, 80);
      atlas.draw(film, 0);
      refill(this.element, el("h2", {}, "A walk"), el("div", { class: "walk" }, film, strip), el("div", { class: "buttons" }, save));
    });
  }
}

/** A walk between two seeds by the command line, which keeps it in the run's folder. */
function between(run: string, label: string | null): HTMLElement {
  let seeds = [0, 1];
  const field = (i: number) => {
    const input = el("input", { type: "number", min: 0, step: 1, value: seeds[i], input: () => { seeds[i] = Math.max(0, Math.floor(Number(input.value) || 0)); action.changed(); } });
    return labelled(i ? "to seed" : "from seed", input);
  };
  const action = new Action("Walk between seeds", "interpolate", () => ({ run, seeds, label }), () => null, "");
  return el("section", {}, el("h2", {}, "Between two samples"), el("p", { class: "soft" }, "As a strip and a GIF in the run's folder."), el("div", { class: "form" }, field(0), field(1)), action.element);
}

/** An image that people drop: what the model makes of it. */
function own(body: Json, facts: Json, map: CodeMap, found: Json, real: Atlas | null): HTMLElement {
  const place = el("div", { class: "judged" });
  const file = el("input", { type: "file", accept: "image/*", change: () => { if (file.files?.[0]) void look(file.files[0]); } });
  const look = (given: File) => attempt(async () => {
    const told = await upload(query("/api/explore/image", { run: body.run, n: body.n, label: body.label }), given);
    const figure = (picture: HTMLElement, words: string) => el("figure", {}, picture, el("figcaption", {}, words));
    refill(place,
      figure(await fromBase64(told.image, "your image"), "your image, as the model sees it"),
      told.reconstruction ? figure(await fromBase64(told.reconstruction, "its reconstruction"), "its reconstruction") : null,
      told.neighbours && real ? el("figure", {}, el("div", { class: "strip few" }, ...told.neighbours.map((i: number) => real.picture(i, found.labels[i] ?? "real image"))), el("figcaption", {}, "the real images whose codes are nearest")) : null,
      told.score === undefined ? null : figure(el("strong", { class: "score" }, number(told.score)), "its score: higher is more typical"));
    if (told.place) map.go([told.place[0], told.place[1] ?? 0]);
  });
  const zone = el("label", { class: "drop", dragover: (event: DragEvent) => { event.preventDefault(); zone.classList.add("over"); }, dragleave: () => zone.classList.remove("over"),
    drop: (event: DragEvent) => { event.preventDefault(); zone.classList.remove("over"); const one = event.dataTransfer?.files[0]; if (one) void look(one); } },
    el("strong", {}, "Drop an image here"), el("span", { class: "soft" }, ` or choose one; it is brought to ${shape(facts.shape)}`), file);
  return section("An image of yours", zone, place);
}
