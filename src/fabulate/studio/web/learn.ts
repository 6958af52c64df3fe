// Lessons: a family plays on points of the plane, trained as one looks on; formula, code and numbers beside the picture.

import { Json, attempt, get, post, query, stream } from "./api";
import { button, el, heading, labelled, put, refill, section, select } from "./dom";
import { Exercises } from "./exercises";
import { formula, math } from "./formulas";
import { Picture, packets } from "./packets";
import { Plane } from "./plane";
import { Trace } from "./trace";
import { number } from "./words";

const FAMILIES = ["ae", "vae", "gan", "flow", "nf"], DATA = ["ring", "moons", "grid", "drawing"];
const TITLES: Record<string, string> = { ae: "autoencoder", vae: "variational autoencoder", gan: "GAN", flow: "flow matching", nf: "normalizing flow" };
const MAKES: Record<string, string> = { ae: "reconstructions", vae: "decoded codes of p(z)", gan: "the generator's points", flow: "where the field carries noise", nf: "points of codes z" };
const KNOBS: Record<string, [string, number, number, number, string]> = { // name, least, most, step, what it is
  beta: ["beta", 0, 20, 0.1, "weight of the KL term"], penalty: ["penalty gamma", 0, 2, 0.01, "on the critic's gradient"],
  evaluations: ["evaluations", 1, 30, 1, "of the network for each sample"], time: ["time of the arrows", 0.02, 0.98, 0.02, "0 data, 1 noise"],
  temperature: ["temperature", 0.1, 2, 0.05, "standard deviation of codes"],
};
const KEYS: [string, string][] = [["space", "play, pause"], ["t", "one player's turn"], ["r", "restart"], ["1 … 5", "family"], ["d", "next data"], ["p", "other preset"], ["[ ]", "learning rate"]];

interface Settings { family: string; preset: string; data: string; seed: number; latent_dim?: number; points?: [number, number][] }

export function learn(screen: HTMLElement, given: URLSearchParams): () => void {
  const known = (name: string, of: string[], otherwise: string) => (of.includes(given.get(name) ?? "") ? given.get(name)! : otherwise);
  let settings: Settings = { family: known("family", FAMILIES, "gan"), preset: known("preset", ["default", "tutorial"], "default"), data: known("data", DATA.slice(0, 3), "grid"), seed: Number(given.get("seed") ?? 0) || 0 };
  let facts: Json = {}, latest: Json = {}, abort = new AbortController(), visit = 0, resume = false;

  // Controls
  const press = (names: string[], name: string, change: (value: string) => void) => {
    const group = el("div", { class: "segments", role: "radiogroup", "aria-label": name }, ...names.map((each) => {
      const one = el("button", { type: "button", class: "segment", role: "radio", title: TITLES[each] ?? each, click: () => change(each) }, each);
      one.dataset.value = each;
      return one;
    }));
    return { group, set: (value: string) => { for (const one of group.children) one.setAttribute("aria-checked", String((one as HTMLElement).dataset.value === value)); } };
  };
  const families = press(FAMILIES, "family", (family) => begin({ family, latent_dim: undefined }));
  const presets = press(["default", "tutorial"], "preset", (preset) => begin({ preset }));
  const data = press(DATA, "data", (name) => (name === "drawing" ? drawing() : begin({ data: name })));
  const codes = press(["1", "2"], "numbers of a code", (value) => begin({ latent_dim: Number(value) }));
  const seed = el("input", { type: "number", min: 0, step: 1, value: settings.seed, name: "seed", change: () => begin({ seed: Math.max(0, Math.floor(Number(seed.value) || 0)) }) });
  const rate = slider("learning rate", -5, -0.5, 0.05, "", (value) => Number((10 ** value).toPrecision(2)), (value) => steer({ rate: value }));
  const pace = select([["100", "as fast as it goes"], ["10", "ten steps a picture"], ["1", "a step a picture"]], "100", (speed) => steer({ speed: Number(speed) }));
  const knobs = el("div", { class: "knobs" });
  let moved: Record<string, ReturnType<typeof slider>> = {};
  const steer = (change: Json) => (facts.name ? attempt(() => post("/api/learn/steer", { lesson: facts.name, ...change })) : undefined);
  const play = button("Play", () => steer({ playing: !latest.playing }), "primary"), turn = button("One turn", () => steer({ playing: false, turns: 1 })), again = button("Restart", () => begin({}));

  // What is seen
  const plane = new Plane((points) => begin({ data: "drawing", points })), trace = new Trace();
  const speed = el("span", { class: "soft speed" }), modes = el("p", { class: "modes" }), key = el("div", { class: "legend" }), trouble = el("p", { class: "problem", role: "alert" });
  const formulas = el("div", { class: "formulas" }), numbers = el("dl", { class: "terms" }), code = el("div", { class: "code" });
  const exercises = new Exercises((start) => begin({ latent_dim: undefined, preset: "default", ...start }), () => facts.name ?? "");
  void attempt(async () => exercises.fill((await get("/api/learn")).exercises)); // which waits for torch, once

  const controls = () => {
    families.set(settings.family); presets.set(settings.preset); data.set(settings.data);
    codes.set(String(settings.latent_dim ?? (settings.family === "ae" ? 1 : 2)));
    seed.value = String(settings.seed);
  };
  const begin = (change: Partial<Settings>) => {
    if (change.data && change.data !== "drawing") settings.points = undefined;
    settings = { ...settings, ...change };
    if (settings.data === "drawing" && !settings.points) { drawing(); return; }
    controls();
    void follow();
  };
  const drawing = () => {
    abort.abort();
    visit++;
    facts = latest = {};
    settings = { ...settings, data: "drawing", points: undefined };
    controls();
    trace.clear();
    plane.open();
    modes.textContent = "Draw: press and move. Or arrow keys here, then Enter.";
    plane.canvas.focus({ preventScroll: true });
  };

  /** Begin a lesson and show its pictures until it ends, or another begins. */
  const follow = async () => {
    abort.abort();
    const own = ++visit, mine = (abort = new AbortController());
    facts = latest = {};
    modes.textContent = "the lesson begins …";
    await attempt(async () => {
      const asked = { ...settings, latent_dim: settings.family === "ae" || settings.family === "vae" ? settings.latent_dim ?? null : null };
      await packets(await stream("/api/learn/lesson", asked, mine.signal), (picture) => { if (own === visit) (picture.told.family ? opened : shown)(picture); });
      if (own === visit) { trouble.textContent = "The lesson has ended: nobody touched it for ten minutes, or the studio was closed. Restart begins it anew."; play.disabled = turn.disabled = true; }
    });
  };
  const opened = (picture: Picture) => {
    facts = picture.told;
    trouble.textContent = "";
    play.disabled = turn.disabled = false;
    facts.diverging = facts.family === "gan";
    plane.begin(picture);
    trace.clear();
    if (pace.value !== "100") void steer({ speed: Number(pace.value) });
    refill(key, el("span", { class: "key dotkey soft-dot" }, "data"), el("span", { class: "key dotkey warm-dot" }, MAKES[facts.family]), el("span", { class: "key arrowkey" }, facts.arrows_are),
      facts.field_is ? el("span", { class: facts.diverging ? "key fieldkey diverging" : "key fieldkey" }, facts.diverging ? "critic: low, high" : "density p(x)") : null);
    refill(formulas, ...facts.players.map((name: string) => {
      const { lines, words } = formula(facts.family, facts.preset, name);
      const box = el("div", { class: "formula" }, facts.players.length > 1 ? el("strong", { class: "player" }, name) : null, ...lines.map((line) => el("div", { class: "tex" }, math(line))), el("p", { class: "soft" }, words));
      box.dataset.player = name;
      return box;
    }));
    refill(code, ...facts.players.flatMap((name: string) => facts.code[name].map(excerpt)));
    refill(numbers);
    refill(knobs);
    moved = {};
  };
  const shown = (picture: Picture) => {
    const first = latest.step === undefined, told = (latest = picture.told);
    plane.show(picture);
    const losses = Object.fromEntries(Object.entries(told.terms as Record<string, number>).filter(([name]) => name.split(".").pop() === "loss"));
    trace.add(told.step, losses);
    if (first || numbers.children.length !== Object.keys(told.terms).length) refill(numbers, ...Object.keys(told.terms).map((name) => el("div", {}, el("dt", {}, name.replaceAll("_", " ").replace(".", ": ")), el("dd", {}))));
    Object.values(told.terms as Record<string, number>).forEach((value, i) => { numbers.children[i].lastElementChild!.textContent = fixed(value); });
    for (const box of formulas.children) box.classList.toggle("next", facts.players.length > 1 && (box as HTMLElement).dataset.player === told.next);
    if (first) {
      rate.show(Math.log10(told.rate));
      refill(knobs, ...Object.keys(told.knobs).map((name) => {
        const [title, least, most, step, help] = KNOBS[name];
        moved[name] = slider(title, least, most, step, help, (value) => value, (value) => steer({ [name]: value }));
        moved[name].show(told.knobs[name]);
        return moved[name].element;
      }), facts.family === "ae" || facts.family === "vae" ? labelled("numbers of a code", codes.group) : null);
    }
    play.textContent = told.playing ? "Pause" : "Play";
    trouble.textContent = told.trouble;
    play.disabled = turn.disabled = Boolean(told.trouble);
    turn.textContent = facts.players.length > 1 ? `${told.next}'s turn` : "One turn";
    modes.textContent = told.modes === undefined ? `step ${told.step.toLocaleString("en-US")}` : `step ${told.step.toLocaleString("en-US")} · ${told.modes} of 9 modes covered · ${(100 * told.near).toFixed(0)} % near one`;
    plane.canvas.dataset.modes = String(told.modes ?? "");
    exercises.solve(told.solved);
  };

  // How fast it goes: pictures that were drawn, and steps, in a second
  let before = { drawn: 0, step: 0, at: performance.now() };
  const timer = window.setInterval(() => {
    const now = performance.now(), seconds = (now - before.at) / 1000, step = latest.step ?? 0;
    speed.textContent = latest.playing ? `${((plane.drawn - before.drawn) / seconds).toFixed(0)} pictures/s · ${Math.max(0, (step - before.step) / seconds).toFixed(0)} steps/s` : "";
    plane.canvas.dataset.speed = String((plane.drawn - before.drawn) / seconds);
    before = { drawn: plane.drawn, step, at: now };
  }, 1000);
  const hidden = () => { // nobody looks: the model waits
    if (document.hidden) { resume = Boolean(latest.playing); if (resume) void steer({ playing: false }); }
    else if (resume) { resume = false; void steer({ playing: true }); }
  };
  const pressed = (event: KeyboardEvent) => {
    const target = event.target as HTMLElement, name = event.key;
    if (event.ctrlKey || event.metaKey || event.altKey || target.matches("input, select, textarea")) return;
    const next = (all: string[], now: string) => all[(all.indexOf(now) + 1) % all.length];
    if (name === " " && !target.matches(".button, a, summary")) { event.preventDefault(); play.click(); }
    else if (name === "t") turn.click();
    else if (name === "r") begin({});
    else if (FAMILIES[Number(name) - 1]) begin({ family: FAMILIES[Number(name) - 1], latent_dim: undefined });
    else if (name === "d") { const other = next(DATA, settings.data); if (other === "drawing") drawing(); else begin({ data: other }); }
    else if (name === "p") begin({ preset: next(["default", "tutorial"], settings.preset) });
    else if (name === "[" || name === "]") rate.move(name === "]" ? 2 : -2);
  };
  document.addEventListener("visibilitychange", hidden);
  document.addEventListener("keydown", pressed);

  put(screen, heading("learn", "Learn by playing", el("p", { class: "lead" }, "The families of fabulate on points of the plane, trained by the same code as on images. Watch, stop, take one turn, turn a knob.")),
    section("", el("div", { class: "lessonbar" }, labelled("family", families.group), labelled("preset", presets.group), labelled("data", data.group), labelled("seed", seed)),
      el("div", { class: "bench" },
        el("div", { class: "left" }, plane.canvas, modes, el("div", { class: "buttons tight" }, play, turn, again, speed), trouble, key),
        el("div", { class: "right" }, formulas, numbers, trace.element, el("div", { class: "dials" }, rate.element, labelled("pace", pace), knobs))),
      el("div", { class: "keys" }, ...KEYS.map(([name, words]) => el("span", {}, el("kbd", {}, name), ` ${words}`)))),
    section("The lines that are it", el("p", { class: "soft" }, "Read from the source as it runs here; what is marked computes the loss."), code), exercises.element);
  controls();
  void follow();
  return () => { visit++; abort.abort(); plane.end(); trace.end(); clearInterval(timer); document.removeEventListener("visibilitychange", hidden); document.removeEventListener("keydown", pressed); };
}

/** A range with its value beside it; `read` makes the value of a position. */
function slider(title: string, least: number, most: number, step: number, help: string, read: (at: number) => number, changed: (value: number) => unknown) {
  const told = el("output", {});
  const bar = el("input", { type: "range", min: least, max: most, step, name: title, "aria-label": title, input: () => { told.textContent = number(read(Number(bar.value))); changed(read(Number(bar.value))); } });
  const element = el("label", { class: "dial" }, el("span", { class: "name" }, title), told, bar, help ? el("span", { class: "help" }, help) : null);
  const show = (at: number) => { bar.value = String(at); told.textContent = number(read(Number(bar.value))); };
  return { element, show, move: (steps: number) => { show(Number(bar.value) + steps * step); changed(read(Number(bar.value))); } };
}

/** Lines of the source with their place, those that are the loss marked. */
function excerpt(each: Json): HTMLElement {
  const lines = (each.text as string).split("\n").map((line, i) => el("span", { class: each.marks.includes(i) ? "code-line marked-line" : "code-line" }, line || " "));
  return el("figure", { class: "excerpt" }, el("figcaption", {}, el("a", { href: query("/api/learn/source", { file: each.file }), target: "_blank", rel: "noopener" }, `${each.file}, line ${each.line}`), " ", el("code", {}, each.symbol)),
    el("pre", { tabindex: 0 }, ...lines));
}

/** A number of always the same look, so that nothing jumps. */
function fixed(value: number): string {
  const size = Math.abs(value);
  return size >= 1000 ? value.toFixed(0) : size >= 100 ? value.toFixed(1) : size >= 0.01 || value === 0 ? value.toFixed(4) : value.toExponential(2);
}
