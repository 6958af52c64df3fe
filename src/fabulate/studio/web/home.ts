// The first screen: what lies under the roots, and what to begin with where nothing does.

import { Json, attempt, get, post } from "./api";
import { Child, button, el, heading, put, refill, section } from "./dom";
import { cover, file, to } from "./links";
import { ago, counted, lasting, number, shape } from "./words";

export async function home(screen: HTMLElement): Promise<() => void> {
  const place = el("div");
  put(screen, place);
  let told = "";
  const refresh = async () => {
    const found = await get("/api/home");
    const now = JSON.stringify(found);
    if (now === told) return; // nothing moves that did not change
    told = now;
    refill(place, ...filled(found, refresh));
  };
  await refresh();
  const timer = window.setInterval(() => { if (!document.hidden) void refresh().catch(() => null); }, 3000);
  return () => clearInterval(timer);
}

function filled(found: Json, refresh: () => Promise<void>): Child[] {
  const of = (...kinds: string[]) => found.places.filter((each: Json) => kinds.includes(each.kind));
  const runs = of("run"), images = of("images"), others = of("detector", "ranking", "comparison", "proof");
  const jobs = found.jobs.filter((job: Json) => job.state === "running" || job.state === "waiting").reverse();
  const failed = found.jobs.filter((job: Json) => job.state === "failed").slice(-1);
  const empty = !runs.length && !others.length;
  return [
    heading("fabulate studio", empty ? "Begin with one of these" : "Your models and images", el("p", { class: "lead" },
      empty ? "A model learns from a folder of images, and draws new ones. Everything it keeps lies in a folder of yours."
        : `${counted(runs.length, "run")}, ${counted(images.length, "folder")} of images in ${found.roots.join(", ")}`)),
    empty ? starts() : null,
    jobs.length || failed.length ? section("Jobs", el("div", { class: "joblist" }, ...[...jobs, ...failed].map((job: Json) => line(job, refresh)))) : null,
    runs.length ? el("div", { class: "tiles" }, ...runs.map(run)) : null,
    images.length ? section("Images", el("div", { class: "tiles inner" }, ...images.map(folder))) : null,
    others.length ? section("Found and compared", el("div", { class: "tiles inner" }, ...others.map(other))) : null,
  ];
}

function starts(): HTMLElement {
  const card = (title: string, words: string, link: string, act: string) =>
    el("a", { class: "start", href: link }, el("h2", {}, title), el("p", {}, words), el("span", { class: "go" }, act));
  return el("div", { class: "starts" },
    card("The digits", "1,797 handwritten digits come along. A VAE learns them in half a minute.", to("train", { source: "digits", family: "vae" }), "Train a first model"),
    card("Your folder", "Photographs, scans, drawings: see what is there, what is broken, and what to do.", to("data"), "Look at images"),
    card("A lesson", "Points of the plane, a model that plays on them, and its loss as formula, code and number.", to("learn"), "Play"));
}

function line(job: Json, refresh: () => Promise<void>): HTMLElement {
  const stop = () => attempt(async () => { await post(`/api/stop/${job.name}`); await refresh(); });
  const last = job.output.trim().split("\n").pop();
  return el("div", { class: "job" }, el("span", { class: `pill ${job.state}` }, job.state),
    el("div", { class: "what" }, el("strong", {}, job.about), el("span", { class: "soft" }, last || job.words.join(" "))),
    job.state === "failed" ? null : button("stop", stop, "small"));
}

function tile(link: string, picture: Child, title: string, pill: Child, lines: Child[], kind = ""): HTMLElement {
  return el("a", { class: `tile ${kind}`, href: link }, el("div", { class: "frame" }, picture),
    el("div", { class: "text" }, el("h3", {}, title, pill), ...lines.map((each) => el("p", {}, each))));
}

function run(each: Json): HTMLElement {
  const picture = each.picture ? el("img", { src: file(`${each.path}/${each.picture}`, each.changed), alt: `samples of ${each.name}`, loading: "lazy" }) : null;
  const test = Object.entries(each.test as Record<string, number>).slice(0, 1).map(([name, value]) => `${name.replaceAll("_", " ")} ${number(value)}`).join(" · ");
  const far = each.state === "finished" ? `${counted(each.step, "step")}, ${lasting(each.seconds)}` : `${Math.round(100 * each.share)} %, step ${each.step.toLocaleString("en-US")}`;
  return tile(to("run", { path: each.path }), picture, each.name, el("span", { class: `pill ${each.state}` }, each.state), [
    `${each.family} · ${each.data}${each.shape.length === 3 ? ` · ${shape(each.shape)}` : ""}`, test ? `test ${test}` : null, `${far} · ${ago(each.changed)}`,
  ].filter(Boolean));
}

function folder(each: Json): HTMLElement {
  return tile(to("data", { source: each.path }), el("img", { class: "crisp", src: cover(each.path), alt: `images of ${each.name}`, loading: "lazy" }),
    each.name, null, [counted(each.images, "image"), each.path], "pictures");
}

function other(each: Json): HTMLElement {
  if (each.kind === "comparison") {
    return tile(to("compare", { path: each.path }), null, each.runs.join(" · "), el("span", { class: "pill" }, "comparison"), [each.overall]);
  }
  if (each.kind === "proof") {
    return tile(to("compare", { proof: each.path }), null, each.name, el("span", { class: "pill" }, "proof"), [each.answer]);
  }
  if (each.kind === "ranking") {
    return tile(to("outliers", { path: each.path }), null, each.name, el("span", { class: "pill" }, "ranking"),
      [`${counted(each.outliers, "outlier")} of ${counted(each.images, "image")}`, each.path]);
  }
  return tile(to("outliers", { detector: each.path }), null, each.name, el("span", { class: "pill" }, "detector"),
    [`what is normal in ${each.data.source ?? "rows"}`, each.path]);
}
