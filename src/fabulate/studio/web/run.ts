// A run: its curves and pictures as it trains, stop and continue; afterwards the timelapse and what to do with it.

import { Json, attempt, get, post, query } from "./api";
import { Action, code } from "./command";
import { Curves } from "./curves";
import { button, el, facts, heading, put, refill, section } from "./dom";
import { file, report, to } from "./links";
import { counted, lasting, number, shape } from "./words";

export async function run(screen: HTMLElement, given: URLSearchParams): Promise<() => void> {
  const path = given.get("path") ?? "";
  const stopped = { yes: false };
  const stream: { source: EventSource | null } = { source: null };
  const wait = async () => { // its folder is not there before the training has begun
    while (!stopped.yes) {
      const found = await get("/api/run", { path });
      if (stopped.yes) return;
      if (found.settings) { refill(screen); stream.source = shown(screen, found, path); return; }
      const job = found.job as Json;
      refill(screen, heading("fabulate train", path.split("/").pop()!),
        section(job.state === "failed" || job.state === "lost" ? "It did not begin" : job.state === "waiting" ? "It waits for the jobs before it" : "It begins",
          job.output ? el("pre", {}, job.output) : el("progress"), code(`fabulate ${job.words.join(" ")}`)));
      if (["failed", "lost", "stopped"].includes(job.state)) return;
      await new Promise((done) => setTimeout(done, 400));
    }
  };
  await Promise.race([wait(), new Promise((done) => setTimeout(done, 300))]);
  return () => { stopped.yes = true; stream.source?.close(); };
}

function shown(screen: HTMLElement, found: Json, path: string): EventSource {
  const rows: Json[] = [];
  const curves = new Curves(), lapse = new Timelapse(path);
  const pill = el("span", { class: "pill" }), bar = el("progress", { max: 1, value: 0 }), far = el("span", { class: "soft far" });
  const buttons = el("div", { class: "buttons" }), output = el("pre", {}), after = el("div"), tested = el("div");
  const settings = found.settings;
  let state = "", job: Json | null = found.job ?? null, last = "";

  const progress = () => {
    const row = rows[rows.length - 1];
    if (!row) { bar.value = 0; far.textContent = state === "running" ? "the first steps …" : ""; return; }
    const share = state === "finished" ? 1 : spent(settings.training, row);
    bar.value = share;
    const recent = rows.filter((each) => spent(settings.training, each) >= share / 2)[0] ?? row;
    const done = share - spent(settings.training, recent);
    const left = state === "running" && done > 0 ? ` · ${lasting(((row.seconds - recent.seconds) * (1 - share)) / done)} left` : "";
    const speed = [...rows].reverse().find((each) => each.images_per_second)?.images_per_second;
    far.textContent = `${counted(row.step, "step")} · ${lasting(row.seconds)}${speed ? ` · ${number(speed)} images/s` : ""}${left}`;
  };
  const controls = () => {
    pill.className = `pill ${state}`;
    pill.textContent = state;
    const stop = () => attempt(async () => { await post(`/api/stop/${job!.name}`); });
    const again = new Action("Continue", "continue", () => ({ run: path }), () => null);
    refill(buttons,
      job && (state === "running" || state === "waiting") ? button("Stop (it saves first)", stop) : null,
      state === "stopped" ? again.element : null);
  };
  const uses = (news: Json) => {
    const model = news.model ?? found.model, known = news.report ?? found.report;
    const key = `${state} ${model} ${known}`;
    if (key === last) return;
    last = key;
    refill(after, model ? section("What to do with it",
      el("div", { class: "buttons" }, el("a", { class: "button primary", href: to("explore", { run: path }) }, found.shape.length === 3 ? "Explore its codes" : "Read its samples"),
        found.shape.length === 3 ? el("a", { class: "button", href: to("compare", { run: path }) }, "Compare with another run") : null),
      state === "running" ? null : new Action(known ? "Evaluate again" : "Evaluate", "evaluate", () => ({ run: path, n: 2000 }), () => null, "").element,
      state === "running" ? null : new Action("Draw 64 samples as files", "sample", () => ({ run: path, n: 64, seed: 0 }), () => null, "").element) : null,
      known ? section("Evaluation", el("iframe", { class: "report", title: `evaluation of ${found.name}`, sandbox: "", src: report(`${path}/report/index.html`) }),
        el("p", {}, el("a", { href: report(`${path}/report/index.html`), target: "_blank", rel: "noopener" }, "open the page by itself"))) : null);
  };

  put(screen, heading("fabulate train", found.name, el("p", { class: "lead" }, `${found.family} · ${found.data} · ${shape(found.shape)} `, pill)),
    section("", el("div", { class: "progressline" }, bar, far), buttons, tested),
    section("Pictures as it trains", lapse.element), section("Curves", curves.element), after,
    section("How it was made", facts([["images", settings.data.source], ["classes", settings.classes.join(", ") || "not learnt"], ["run folder", path]]),
      el("details", {}, el("summary", {}, "Hyperparameters"), el("pre", {}, JSON.stringify({ model: settings.model, training: settings.training }, null, 2))),
      el("details", {}, el("summary", {}, "What it printed"), output)));

  const source = new EventSource(query("/api/run/events", { path }));
  source.onmessage = (event) => {
    const news = JSON.parse(event.data) as Json;
    if (news.gone) { source.close(); refill(screen, section("The run is gone", el("p", {}, `There is no folder ${path} any more.`), el("a", { href: "#/" }, "Back to the first page"))); return; }
    if (news.reset) rows.length = 0;
    if (news.rows) { rows.push(...news.rows); curves.draw(rows); }
    if (news.pictures) lapse.show(news.pictures);
    if (news.state) { state = news.state; job = news.job; output.textContent = job?.output ?? "It was started from a terminal."; controls(); uses(news); if (news.reconstructions) lapse.finished(); }
    progress();
    const test = [...rows].reverse().find((row) => row.test && Object.keys(row.test).length)?.test;
    if (test) refill(tested, facts(Object.entries(test as Record<string, number>).map(([name, value]) => [`test ${name.replaceAll("_", " ")}`, number(value)])));
    pill.dataset.rows = String(rows.length);
  };
  return source;
}

/** The share of its budget that a training has spent at a line of its log. */
function spent(training: Json, row: Json): number {
  const shares = [row.step / training.steps, row.epoch / training.epochs, row.seconds / 60 / training.minutes].filter((share) => Number.isFinite(share));
  return Math.min(1, Math.max(0, ...shares));
}

/** The pictures of a training in their order, with a bar to move through them. */
class Timelapse {
  readonly element = el("div", { class: "lapse" });
  private readonly image = el("img", { alt: "samples", class: "picture" });
  private readonly words = el("figcaption", {});
  private readonly bar = el("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "step", input: () => this.at(Number(this.bar.value)) });
  private readonly play = button("▶", () => this.playing(!this.timer), "small");
  private readonly real = el("figure", { hidden: true });
  private pictures: Json[] = [];
  private timer = 0;

  constructor(private readonly path: string) {
    put(this.element, el("p", { class: "soft waiting" }, "The first picture comes after an eighth of the training."),
      el("div", { class: "figures" }, el("figure", {}, this.image, this.words), this.real), el("div", { class: "scrub" }, this.play, this.bar));
    this.element.dataset.count = "0";
  }

  show(pictures: Json[]): void {
    const newest = Number(this.bar.value) === this.pictures.length - 1 || !this.pictures.length;
    this.pictures = pictures;
    this.bar.max = String(pictures.length - 1);
    this.element.dataset.count = String(pictures.length);
    for (const each of pictures) new Image().src = file(`${this.path}/${each.name}`); // so that moving does not flicker
    if (newest && pictures.length) { this.bar.value = this.bar.max; this.at(pictures.length - 1); }
  }

  /** Reconstructions beside them, when the training is over. */
  finished(): void {
    if (!this.real.hidden) return;
    const image = el("img", { class: "picture", src: file(`${this.path}/reconstructions.png`), alt: "reconstructions", error: () => { this.real.hidden = true; } });
    refill(this.real, image, el("figcaption", {}, "at the end: images it never saw, and what it makes of them"));
    this.real.hidden = false;
  }

  private at(i: number): void {
    const picture = this.pictures[i];
    if (!picture) return;
    this.image.src = file(`${this.path}/${picture.name}`);
    this.words.textContent = `step ${picture.step.toLocaleString("en-US")}`;
  }

  private playing(on: boolean): void {
    clearInterval(this.timer);
    this.timer = 0;
    this.play.textContent = on ? "⏸" : "▶";
    if (!on) return;
    let i = Number(this.bar.value) >= this.pictures.length - 1 ? -1 : Number(this.bar.value);
    this.timer = window.setInterval(() => {
      if (!this.element.isConnected || ++i >= this.pictures.length) { this.playing(false); return; }
      this.bar.value = String(i);
      this.at(i);
    }, 350);
  }
}
