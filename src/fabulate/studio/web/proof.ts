// What `fabulate prove` found: the answer first, then each way to train with its interval, then what follows.

import { Json, get } from "./api";
import { ticks } from "./curves";
import { el, heading, put, section, svg } from "./dom";
import { report } from "./links";
import { counted } from "./words";

const LEFT = 112, RIGHT = 16, ROW = 34, BOTTOM = 42;

export async function proof(screen: HTMLElement, path: string): Promise<void> {
  const found = await get("/api/proof", { path });
  const [answer, advice, ...rest] = found.sentences as string[];
  put(screen, heading("fabulate prove", "Do synthetic images help?", el("p", { class: "lead" }, path)),
    el("section", { class: "verdict" }, el("h2", {}, "The verdict"), el("p", { id: "answer" }, answer), advice ? el("p", { class: "soft" }, advice) : null),
    section(`${counted(found.ways.length, "way")} to train one classifier`, el("div", { class: "legend" }, el("span", { class: "key train" }, "with synthetic images"), el("span", { class: "key without" }, "without them")),
      chart(found.ways), el("dl", { class: "ways" }, ...found.ways.flatMap((way: Json) => [el("dt", {}, way.name), el("dd", {}, `${way.words}; ${counted(way.images, "image")}`)]))),
    rest.length ? section("What stands behind it", el("ul", { class: "notes" }, ...rest.map((each) => el("li", {}, each)))) : null,
    section("All numbers", el("iframe", { class: "report", sandbox: "", title: "proof", src: report(`${path}/proof.html`) }),
      el("p", {}, el("a", { href: report(`${path}/proof.html`), target: "_blank", rel: "noopener" }, "open the page by itself"))));
}

/** The balanced accuracy of each way as a dot, its 95 % interval as a line. */
function chart(ways: Json[]): SVGElement {
  const WIDTH = window.innerWidth < 600 ? 350 : 720; // words have the size of those around them on both
  const known = ways.filter((way) => way.value !== null);
  const ends = known.flatMap((way) => [way.low ?? way.value, way.high ?? way.value]).map((share) => 100 * share);
  const least = Math.min(...ends, 100), most = Math.max(...ends, 0), margin = Math.max(1, 0.06 * (most - least));
  const low = Math.max(0, least - margin), high = Math.min(100, most + margin);
  const bottom = ROW * ways.length, x = (percent: number) => LEFT + ((percent - low) / (high - low || 1)) * (WIDTH - LEFT - RIGHT);
  const drawing = svg("svg", { class: "proof", viewBox: `0 0 ${WIDTH} ${bottom + BOTTOM}`, role: "img", "aria-label": "balanced accuracy of each way to train" });
  for (const tick of ticks(low, high, WIDTH < 400 ? 3 : 6)) {
    put(drawing, svg("line", { class: "gridline", x1: x(tick), x2: x(tick), y1: 4, y2: bottom }), svg("text", { x: x(tick), y: bottom + 16, "text-anchor": "middle" }, String(tick)));
  }
  put(drawing, svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: bottom + 34, "text-anchor": "middle" }, "balanced accuracy, % of test images"));
  ways.forEach((way, i) => {
    const y = ROW * (i + 0.5), row = svg("g", { class: way.synthetic ? "way synthetic" : "way", "data-way": way.name });
    put(row, svg("text", { class: "name", x: LEFT - 14, y: y + 4, "text-anchor": "end" }, way.name));
    if (way.value !== null) {
      const [from, to] = [100 * (way.low ?? way.value), 100 * (way.high ?? way.value)];
      put(row, svg("title", {}, `${way.name}: ${(100 * way.value).toFixed(1)} % (${from.toFixed(1)} to ${to.toFixed(1)})`),
        svg("line", { x1: x(from).toFixed(1), x2: x(to).toFixed(1), y1: y, y2: y }), svg("circle", { cx: x(100 * way.value).toFixed(1), cy: y, r: 5.5 }));
    }
    put(drawing, row);
  });
  return drawing;
}
