// A ranking as a gallery: each image with where it departs from what is normal; kept or thrown out by keys, with undo.

import { Json, attempt, get, post } from "./api";
import { Atlas, asked, cell } from "./atlas";
import { Action, code } from "./command";
import { button, el, heading, put, section, settled } from "./dom";
import { to } from "./links";
import { counted, number } from "./words";

const PAGE = 48;
type Decision = "keep" | "reject" | null;

export async function sorting(screen: HTMLElement, path: string): Promise<() => void> {
  const ranking = await get("/api/outliers", { path });
  const rows = ranking.rows as Json[];
  const [, height, width] = ranking.shape;
  const decided = new Map<string, Decision>([...ranking.keep.map((name: string) => [name, "keep"]), ...ranking.reject.map((name: string) => [name, "reject"])]);
  const undo: [string, Decision][] = [];
  let at = 0, shown = 0;

  const grid = el("div", { class: "strange", role: "listbox", "aria-label": "images, the strangest first", tabindex: 0 });
  const counts = el("p", { class: "counts" }), more = button("Show more", () => load(), "small");
  const said = el("span", { class: "soft" });
  const of = (what: Decision) => rows.filter((row) => decided.get(row.name) === what).map((row) => row.name as string);
  let written: Promise<unknown> = Promise.resolve(); // one after the other: the last decision is the one that stays
  const save = settled(() => { written = written.then(() => attempt(async () => {
    const told = await post("/api/outliers/decide", { ranking: path, keep: of("keep"), reject: of("reject") });
    said.textContent = `written: ${told.keep} in keep.txt, ${told.reject} in reject.txt`;
    grid.dataset.saved = `${told.keep} ${told.reject}`;
    again.changed();
  })); }, 150);

  const mark = (i: number) => {
    const card = grid.children[i];
    if (!card) return;
    const what = decided.get(rows[i].name) ?? "";
    card.setAttribute("data-decided", what);
    card.setAttribute("aria-selected", String(i === at));
    card.querySelector(".mark")!.textContent = what === "keep" ? "✓ kept" : what === "reject" ? "✕ rejected" : "";
  };
  const count = () => { counts.textContent = `${of("keep").length} kept, ${of("reject").length} rejected, ${rows.filter((row) => row.outlier && !decided.get(row.name)).length} outliers to look at`; };
  const go = (i: number) => {
    const before = at;
    at = Math.max(0, Math.min(rows.length - 1, i));
    if (at >= shown - 4) void load();
    mark(before);
    mark(at);
    grid.children[at]?.scrollIntoView({ block: "nearest" });
  };
  const decide = (i: number, what: Decision) => {
    undo.push([rows[i].name, decided.get(rows[i].name) ?? null]);
    if (what) decided.set(rows[i].name, what); else decided.delete(rows[i].name);
    mark(i);
    count();
    save();
  };
  const back = () => {
    const last = undo.pop();
    if (!last) return;
    if (last[1]) decided.set(last[0], last[1]); else decided.delete(last[0]);
    const i = rows.findIndex((row) => row.name === last[0]);
    count();
    go(i);
    save();
  };
  const columns = () => Math.max(1, getComputedStyle(grid).gridTemplateColumns.split(" ").length);
  const keys: Record<string, () => void> = {
    ArrowLeft: () => go(at - 1), ArrowRight: () => go(at + 1), ArrowUp: () => go(at - columns()), ArrowDown: () => go(at + columns()),
    k: () => { decide(at, "keep"); go(at + 1); }, r: () => { decide(at, "reject"); go(at + 1); }, u: back, " ": () => grid.classList.toggle("plain-images"),
  };
  const press = (event: KeyboardEvent) => {
    const key = keys[event.key];
    if (!key || event.ctrlKey || event.metaKey || event.altKey || (event.target as HTMLElement).matches("input, select, textarea")) return;
    event.preventDefault();
    key();
  };

  let loading = false;
  const load = async () => {
    if (loading || shown >= rows.length) return;
    loading = true;
    const n = Math.min(PAGE, rows.length - shown), first = shown;
    const atlas = await attempt(() => asked("/api/outliers/images", { ranking: path, start: first, count: n }, 2 * n, height, width));
    loading = false;
    if (!atlas) return;
    for (let k = 0; k < n; k++) put(grid, card(atlas, k, first + k));
    shown += n;
    more.hidden = shown >= rows.length;
    for (let i = first; i < shown; i++) mark(i);
  };
  const card = (atlas: Atlas, k: number, i: number) => {
    const row = rows[i], heat = cell(height, width, `where ${row.name} departs from what is normal`);
    atlas.draw(heat, 2 * k + 1);
    heat.classList.add("heat");
    return el("div", { class: row.outlier ? "odd outlier" : "odd", title: `${row.name}: score ${number(row.score)}, p ${number(row.p)}`, role: "option", click: () => go(i), dblclick: () => decide(i, decided.get(row.name) === "reject" ? null : "reject") },
      el("div", { class: "both" }, atlas.picture(2 * k, row.name), heat),
      el("div", { class: "under" }, el("strong", {}, row.name), el("span", {}, `${row.class ? `${row.class} · ` : ""}p ${row.p.toPrecision(2)}`), el("span", { class: "mark" })));
  };

  const again = new Action("Learn again without them", "outliers-refit", () => ({ ranking: path }), (job) => { location.hash = to("outliers", { detector: job.path }); }, "");
  const [low, high] = ranking.false_alarm_interval;
  put(screen, heading("fabulate outliers", path.split("/").pop()!, el("p", { class: "lead" },
    `${counted(ranking.outliers, "outlier")} of ${counted(ranking.images, "image")}; of normal images ${(100 * ranking.false_alarm).toFixed(1)} % (${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)}) would be called so`)),
    section("", counts, el("div", { class: "keys" }, ...[["k", "keep"], ["r", "reject"], ["u", "undo"], ["← → ↑ ↓", "move"], ["space", "heat maps"]].map(([key, words]) => el("span", {}, el("kbd", {}, key), ` ${words}`))),
      el("div", { class: "buttons" }, button("Keep", keys.k), button("Reject", keys.r), button("Undo", back), said)),
    section("The strangest first", el("p", { class: "soft" }, "Beside each image: red where it departs from what a model of normal images makes of it."), grid, el("div", { class: "buttons" }, more)),
    section("What to do with the lists", el("p", { class: "soft" }, "They lie beside the ranking, a name on each line."), code(`${path}/reject.txt`), again.element));
  count();
  await load();
  go(0);
  document.addEventListener("keydown", press);
  return () => document.removeEventListener("keydown", press);
}
