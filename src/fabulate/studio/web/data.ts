// Look at images before training: the intake report as it grows.

import { Json, attempt, get, lines, postForBlob } from "./api";
import { Atlas, gallery } from "./atlas";
import { code } from "./command";
import { Child, button, el, facts, heading, labelled, put, refill, section, svg } from "./dom";
import { Form } from "./form";
import { thumbnail, to } from "./links";
import { counted, shape } from "./words";
import { writings } from "./written";

const SHOWN = 60; // images on a sheet

/** A text field for a source, with what lies under the roots to choose from. */
export async function sourceField(value: string, changed: () => void): Promise<{ element: HTMLElement; input: HTMLInputElement }> {
  const found = await get("/api/home");
  const known = ["digits", "mnist", "fashion_mnist", "cifar10", "proverbs", ...found.places.filter((each: Json) => each.kind === "images").map((each: Json) => each.path)];
  const input = el("input", { type: "text", name: "source", value, list: "sources", placeholder: "a folder, or digits", autocomplete: "off", spellcheck: "false", input: changed });
  return { element: labelled("source", el("div", { class: "row" }, input, el("datalist", { id: "sources" }, ...known.map((each) => el("option", { value: each }))))), input };
}

/** How images are read, folded away. */
export function readingForm(form: Json, changed: () => void): { element: HTMLElement; form: Form } {
  const own = new Form(form.reading, form.reading_defaults, changed);
  return { element: el("details", {}, el("summary", {}, "How images are read: size, crop, channels"), own.element), form: own };
}

export async function data(screen: HTMLElement, given: URLSearchParams): Promise<() => void> {
  const stop = new AbortController();
  const source = await sourceField(given.get("source") ?? "", () => told());
  put(screen, heading("fabulate data", "Look at images", el("p", { class: "lead" }, "Every file is decoded and checked before anything is trained on it.")));
  const line = code("fabulate data");
  const place = el("div");
  const reading = readingForm(await get("/api/form", { family: "vae" }), () => told());
  const words = () => ["fabulate", "data", source.input.value.trim() || "SOURCE", ...options(reading.form.changed())].join(" ");
  const told = () => refill(line.querySelector("code")!, words());
  const look = async () => {
    const body = { source: source.input.value.trim(), reading: reading.form.changed() };
    if (!body.source) { source.input.focus(); return; }
    history.replaceState(null, "", to("data", { source: body.source }));
    const bar = el("progress", { max: 1, value: 0 }), far = el("span", { class: "soft" }, "reading …");
    refill(place, section("", el("div", { class: "reading" }, bar, far)));
    await attempt(() => lines("/api/data", body, (news) => {
      if (news.total) { bar.max = news.total; bar.value = news.done; far.textContent = `${news.done.toLocaleString("en-US")} of ${counted(news.total, "image")}`; }
      if (news.error) refill(place, section("These images cannot be read as they are", el("p", { class: "problem" }, news.error)));
      if (news.report) refill(place, ...report(news.report, body));
    }, stop.signal));
    if (place.querySelector("progress")) refill(place);
  };
  told();
  put(screen, section("", source.element, reading.element, el("div", { class: "action" }, button("Look", look, "primary"), line)), place);
  source.input.addEventListener("keydown", (event) => { if (event.key === "Enter") void look(); });
  if (source.input.value) void look();
  return () => stop.abort();
}

/** Options as they are typed. */
export function options(values: Json): string[] {
  return Object.entries(values).filter(([, value]) => value !== null).map(([name, value]) => `--${name.replaceAll("_", "-")} ${value}`);
}

function report(found: Json, body: Json): Child[] {
  const name = body.source;
  if (found.medium) return sequences(found, name);
  const aside = found.set_aside as [string, string][];
  const next = { source: name, ...(found.undecided.length ? { size: String(found.spec.size) } : {}) };
  return [
    section(found.name,
      facts([
        ["to train", counted(found.train, "image")], ["to test", counted(found.test, "image")],
        ["shape", shape([found.channels, found.height, found.width])],
        ["set aside", aside.length ? counted(aside.length, "file") : "none"],
        ["duplicates", found.duplicates ? counted(found.duplicates, "image") : "none"],
        ["files", `${found.found.toLocaleString("en-US")} found`],
      ]),
      found.undecided.length || found.warnings.length || found.notes.length
        ? el("ul", { class: "notes" }, ...found.undecided.map((each: string) => el("li", { class: "fair" }, each)),
          ...found.warnings.map((each: string) => el("li", { class: "fair" }, each)), ...found.notes.map((each: string) => el("li", {}, each))) : null,
      el("div", { class: "buttons" }, el("a", { class: "button primary", href: to("train", next) }, "Train on these"),
        el("a", { class: "button", href: to("outliers", { source: name }) }, "Find what is strange"))),
    classes(found, { ...body, reading: { ...body.reading, ...(found.undecided.length ? { size: found.spec.size } : {}) } }),
    sizes(found, name),
    aside.length ? section(`Set aside: ${counted(aside.length, "file")}`, el("p", { class: "soft" }, "They are never trained on."),
      el("div", { class: "files" }, ...aside.slice(0, 60).map(([each, why]) => fileCard(`${name}/${each}`, each, why)))) : null,
    found.duplicates ? section(`Duplicates: ${counted(found.duplicates, "image")}`, el("p", { class: "soft" },
      found.shared ? `${counted(found.shared, "test image")} also in the training part: the test would be too easy.` : "Each beside the one it repeats."),
      el("div", { class: "pairs" }, ...found.duplicate_pairs.map(([one, two]: [string, string]) => el("figure", {},
        el("div", { class: "pair" }, thumb(`${name}/${one}`, one), thumb(`${name}/${two}`, two)), el("figcaption", {}, `${one} = ${two}`))))) : null,
  ];
}

/** Texts or tunes: what the command line tells of them, and some of them. */
function sequences(found: Json, source: string): Child[] {
  return [
    section(found.name, el("table", { class: "told" }, ...found.rows.map(([title, words]: [string, string]) => el("tr", {}, el("th", {}, title), el("td", {}, words)))),
      el("div", { class: "buttons" }, el("a", { class: "button primary", href: to("train", { source, family: "ar" }) }, "Train on these"))),
    section(`Some of the ${counted(found.train, found.medium.replace(/s$/, ""))} to learn from`, writings(found.items)),
  ];
}

/** Bars of the classes, and a sheet of images of the one that is chosen. */
function classes(found: Json, body: Json): HTMLElement {
  const counts = Object.entries(found.train_classes as Record<string, number>);
  const most = Math.max(1, ...counts.map(([, n]) => n));
  const sheet = el("div", { class: "sheet" });
  const show = (label: string | null) => attempt(async () => {
    const path = label === null ? "/api/data/sheet?" : `/api/data/sheet?label=${encodeURIComponent(label)}&`;
    const { blob, headers } = await postForBlob(`${path}count=${SHOWN}`, body);
    const total = Number(headers.get("total"));
    const n = Math.min(SHOWN, total), height = Number(headers.get("height")), width = Number(headers.get("width"));
    const atlas = new Atlas(await createImageBitmap(blob), n, height, width);
    refill(sheet, gallery(atlas, n, (i) => `${label ?? "image"} ${i + 1}`), el("p", { class: "soft" }, `${n} of ${counted(total, "training image")}${label === null ? "" : ` of ${label}`}`));
    for (const bar of bars.children) bar.setAttribute("aria-pressed", String((bar as HTMLElement).dataset.label === label));
  });
  const bars = el("div", { class: "bars" }, ...counts.map(([label, n]) => {
    const bar = el("button", { class: "barrow", type: "button", click: () => void show(label) },
      el("span", { class: "barname" }, label), el("span", { class: "track-of" }, fill(n / most)), el("span", { class: "barcount" }, n.toLocaleString("en-US"),
        found.test_classes[label] ? el("span", { class: "soft" }, ` + ${found.test_classes[label].toLocaleString("en-US")} test`) : null));
    bar.dataset.label = label;
    return bar;
  }));
  void show(counts.length ? counts[0][0] : null);
  return section(counts.length ? `${counts.length} classes` : "Images", counts.length ? el("div", { class: "split" }, bars, sheet) : sheet);
}

function fill(share: number): HTMLElement {
  const bar = el("span", { class: "fill" });
  bar.style.width = `${Math.max(0.5, 100 * share)}%`;
  return bar;
}

/** The sizes found, and what the crop cuts away of the image that loses most, drawn. */
function sizes(found: Json, source: string): HTMLElement | null {
  const all = Object.entries(found.sizes as Record<string, number>);
  if (all.length < 2 && !found.cut) return null;
  const list = el("ul", { class: "plain" }, ...all.slice(0, 8).map(([size, n]) => el("li", {}, `${size} `, el("span", { class: "soft" }, counted(n, "image")))),
    all.length > 8 ? el("li", { class: "soft" }, `and ${all.length - 8} more sizes`) : null);
  return section("Sizes as found", el("div", { class: "split" }, list, found.cut ? cropped(found, source) : null));
}

function cropped(found: Json, source: string): HTMLElement {
  const [mean, most, name] = found.cut as [number, number, string];
  const [height, width] = found.cut_sides ?? [3, 4];
  const ratio = found.width / found.height;
  const kept = width / height > ratio ? { w: height * ratio, h: height } : { w: width, h: width / ratio };
  const x = (width - kept.w) / 2, y = (height - kept.h) / 2, edge = Math.max(width, height) / 150;
  const drawing = svg("svg", { class: "crop", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "what is cut away" },
    svg("image", { href: thumbnail(`${source}/${name}`, 512), width, height, preserveAspectRatio: "none" }),
    svg("path", { class: "away", "fill-rule": "evenodd", d: `M0 0H${width}V${height}H0Z M${x} ${y}V${y + kept.h}H${x + kept.w}V${y}Z` }),
    svg("rect", { class: "kept", x, y, width: kept.w, height: kept.h, "stroke-width": edge * 2 }));
  return el("figure", {}, drawing, el("figcaption", {},
    `The crop to ${found.height}×${found.width} cuts away ${Math.round(100 * mean)} % of the area on average, and most, ${Math.round(100 * most)} %, of ${name}. Fit “pad” keeps all of it.`));
}

function thumb(path: string, name: string): HTMLElement {
  const image = el("img", { src: thumbnail(path, 160), alt: name, error: () => image.replaceWith(el("div", { class: "broken" }, "?")) });
  return image;
}

function fileCard(path: string, name: string, why: string): HTMLElement {
  return el("figure", { class: "file" }, thumb(path, name), el("figcaption", {}, el("strong", {}, name), el("span", {}, why)));
}
