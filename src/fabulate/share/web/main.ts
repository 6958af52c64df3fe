// The page: a grid that a seed draws, and the directions of the codes to walk along from any of its images.

import { button, el, facts, labelled, put, section, select } from "../../studio/web/dom";
import { Model, type Drawn } from "./model";

const REACH = 3; // standard deviations to both sides
const ALL = ""; // the classes in turn
const LARGE = 64; // pixels from which on an image is not shown as squares

async function start(): Promise<void> {
  const page = document.getElementById("page")!;
  try {
    show(page, await Model.load());
  } catch (error) {
    page.replaceChildren(el("h1", {}, "The model could not be loaded"), el("p", {}, String(error)),
      el("p", { class: "soft" }, "The page needs a file server: python -m http.server in its folder, say."));
  }
}

function show(page: HTMLElement, model: Model): void {
  const { title, about, shape, classes, family, version, images, steps, directions } = model.facts;
  document.title = title;
  let label = ALL, count = steps?.usual ?? 0, wanted = 0;
  let drawn: Drawn | null = null;

  const seed = el("input", { type: "number", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, value: 0, change: () => void draw() });
  const cells = Array.from({ length: images }, (_, i) =>
    el("button", { type: "button", class: "cell", "aria-label": `image ${i}`, disabled: !directions, click: () => choose(i) }, canvas(model)));
  const grid = el("div", { class: "grid" }, ...cells);
  grid.style.setProperty("--columns", String(Math.round(Math.sqrt(images))));
  const far = el("p", { class: "soft far", role: "status" });
  const walk = directions ? walker(model) : null;

  async function draw(): Promise<void> {
    const mine = ++wanted, began = performance.now();
    const value = Math.min(Math.max(Math.floor(Number(seed.value) || 0), 0), Number.MAX_SAFE_INTEGER);
    seed.value = String(value);
    const chosen = cells.map((_, i) => (label === ALL ? i % Math.max(classes.length, 1) : Number(label)));
    const told = (step: number): void => { if (steps && step < count) far.textContent = `step ${step} of ${count}`; };
    const made = await model.draw(value, chosen, count, told, () => mine !== wanted);
    if (!made || mine !== wanted) return;
    drawn = made;
    cells.forEach((cell, i) => paint(cell.firstElementChild as HTMLCanvasElement, model, made.pixels, i));
    far.textContent = `${images} images in ${Math.round(performance.now() - began)} ms`;
    if (walk && directions) choose(0);
    page.dataset["seed"] = String(value);
    Object.assign(globalThis, { drawn }); // for whoever looks from the console
  }

  function choose(i: number): void {
    if (!drawn || !walk) return;
    cells.forEach((cell, j) => cell.setAttribute("aria-pressed", String(i === j)));
    walk.from(drawn.codes.slice(i * model.facts.codes, (i + 1) * model.facts.codes), drawn.classes[i]!);
  }

  function again(): void { seed.value = String(Number(seed.value) + 1); void draw(); }

  const controls = el("div", { class: "controls" },
    button("New images", again, "primary"),
    labelled("Seed", seed, "The same seed draws the same images, in every browser."),
    classes.length ? labelled("Class", select([[ALL, "all in turn"], ...classes.map((name, i): [string, string] => [String(i), name])], ALL,
      (value) => { label = value; void draw(); })) : null,
    steps ? stepper(steps, (value) => { count = value; void draw(); }) : null,
    el("p", { class: "soft keys" }, el("kbd", {}, "N"), " new images"));
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() === "n" && !event.ctrlKey && !event.metaKey && !event.altKey && !(event.target as Element).matches("input, select")) again();
  });

  page.replaceChildren(el("p", { class: "eyebrow" }, family), el("h1", {}, title), el("p", { class: "soft lead" }, about),
    section("", el("div", { class: "drawing" }, el("div", {}, grid, far), controls)));
  if (walk) put(page, section("Walk from an image", el("p", { class: "soft" }, "Press an image above; each slider moves its code along one of the directions that change images most."), walk.element));
  put(page, section("", facts([["images", `${shape[1]} x ${shape[2]}`], ["numbers of a code", model.facts.codes.toLocaleString("en")],
    ...(classes.length ? [["classes", classes.join(", ")] as [string, string]] : []), ["made by", `fabulate ${version}`]]),
    el("p", { class: "soft" }, "All of it is computed in this page, by onnxruntime-web (MIT licence): nothing is sent anywhere.")));
  void draw();
}

/** The slider of evaluations of the network. */
function stepper(steps: { usual: number; most: number }, changed: (value: number) => void): HTMLElement {
  const told = el("output", {}, String(steps.usual));
  const slider = el("input", { type: "range", min: 2, max: steps.most, value: steps.usual, "aria-label": "Evaluations",
    input: () => { told.textContent = slider.value; }, change: () => changed(Number(slider.value)) });
  return el("div", { class: "field" }, el("span", { class: "name" }, "Evaluations of the network: ", told), slider,
    el("span", { class: "help" }, "Few are quick, many are precise."));
}

/** An image that sliders move along the directions. */
function walker(model: Model): { element: HTMLElement; from: (code: Float32Array, label: number) => void } {
  const { vectors, spreads, shares } = model.facts.directions!;
  const preview = canvas(model);
  let base: Float32Array = new Float32Array(), label = 0, busy = false, again = false;

  const told = vectors.map(() => el("output", {}, "0.0"));
  const sliders = vectors.map((_, k) => el("input", { type: "range", min: -REACH, max: REACH, step: 0.1, value: 0,
    "aria-label": `direction ${k + 1}`, input: () => void move() }));

  async function move(): Promise<void> {
    sliders.forEach((slider, k) => { told[k]!.textContent = Number(slider.value).toFixed(1); });
    again = busy;
    if (busy) return;
    busy = true;
    const code = base.slice();
    sliders.forEach((slider, k) => {
      const far = Number(slider.value) * spreads[k]!;
      vectors[k]!.forEach((value, j) => { code[j] = code[j]! + far * value; });
    });
    const pixels = await model.decode(code, [label]);
    paint(preview, model, pixels, 0);
    Object.assign(globalThis, { walked: { code, label, pixels } });
    busy = false;
    if (again) await move();
  }

  function rest(): void {
    for (const slider of sliders) slider.value = "0";
    void move();
  }

  const rows = sliders.map((slider, k) => el("label", { class: "slider" }, el("span", { class: "soft" }, k + 1), slider, told[k]!,
    el("span", { class: "soft" }, `${(100 * shares[k]!).toFixed(shares[k]! < 0.1 ? 1 : 0)} %`)));
  const element = el("div", { class: "walking" }, el("figure", {}, preview),
    el("div", { class: "sliders" }, el("div", { class: "slider head soft" }, el("span"), el("span", {}, "direction"), el("span", {}, "sd"), el("span", {}, "of change")),
      ...rows, button("Back to the image", rest, "small")));
  return { element, from: (code, y) => { base = code; label = y; rest(); } };
}

function canvas(model: Model): HTMLCanvasElement {
  const [, height, width] = model.facts.shape;
  return el("canvas", { width, height, class: Math.max(height, width) < LARGE ? "crisp" : "" });
}

/** Image i of pixels (N, C, H, W) in [0, 1]: gray or colour, with transparency or without. */
function paint(target: HTMLCanvasElement, model: Model, pixels: Float32Array, i: number): void {
  const [channels, height, width] = model.facts.shape, size = height * width, colour = channels > 2;
  const image = new ImageData(width, height);
  const at = (channel: number, k: number): number => Math.round(255 * pixels[(i * channels + channel) * size + k]!);
  for (let k = 0; k < size; k++) {
    for (let c = 0; c < 3; c++) image.data[4 * k + c] = at(colour ? c : 0, k);
    image.data[4 * k + 3] = channels % 2 ? 255 : at(channels - 1, k);
  }
  target.getContext("2d")!.putImageData(image, 0, 0);
}

void start();
