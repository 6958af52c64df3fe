// One page: what stands behind # says which screen, and what of.

import { get, tell } from "./api";
import { compare } from "./compare";
import { data } from "./data";
import { el, refill } from "./dom";
import { explore } from "./explore";
import { home } from "./home";
import { learn } from "./learn";
import { outliers } from "./outliers";
import { run } from "./run";
import { train } from "./train";

/** Fill a screen; what it returns is called when people leave it. */
export type Screen = (screen: HTMLElement, asked: URLSearchParams) => void | (() => void) | Promise<void | (() => void)>;

const SCREENS: Record<string, [string, Screen]> = {
  "": ["Home", home], data: ["Data", data], train: ["Train", train], explore: ["Explore", explore],
  outliers: ["Outliers", outliers], compare: ["Compare", compare], learn: ["Learn", learn], run: ["", run],
};

let leave: (() => void) | null = null;
let visit = 0;

async function show(): Promise<void> {
  const [name, words = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [title, screen] = SCREENS[name] ?? SCREENS[""];
  const own = ++visit;
  leave?.();
  leave = null;
  for (const link of document.querySelectorAll<HTMLAnchorElement>("#top nav a")) {
    if (link.hash === `#/${name}`) { link.setAttribute("aria-current", "page"); link.scrollIntoView({ inline: "center", block: "nearest" }); }
    else link.removeAttribute("aria-current");
  }
  document.title = title ? `${title} · fabulate studio` : "fabulate studio";
  const place = el("div"); // of this visit alone: what comes late for another screen is drawn nowhere
  document.getElementById("screen")!.replaceChildren(place);
  window.scrollTo(0, 0);
  try {
    const left = (await screen(place, new URLSearchParams(words))) ?? null;
    if (own !== visit) { left?.(); return; }
    leave = left;
  } catch (error) {
    if (own !== visit) return;
    refill(place, el("section", {}, el("h2", {}, "This cannot be shown"), el("p", {}, error instanceof Error ? error.message : String(error)),
      el("p", {}, el("a", { href: "#/" }, "Back to the first page"))));
  }
  document.getElementById("screen")!.dataset.shown = name || "home";
}

/** How many jobs run and wait, in the bar above. */
async function jobs(): Promise<void> {
  try {
    const all = await get<{ state: string; about: string; path: string }[]>("/api/jobs");
    const running = all.filter((job) => job.state === "running"), waiting = all.filter((job) => job.state === "waiting").length;
    const place = document.getElementById("jobs")!;
    place.textContent = running.length ? `${running[0].about}${waiting ? ` · ${waiting} waiting` : ""}` : "";
    place.classList.toggle("busy", running.length > 0);
  } catch { /* told where something is asked for */ }
}

function begin(): void {
  if (location.search) history.replaceState(null, "", location.pathname + location.hash); // the token has become a cookie
  refill(document.getElementById("top")!, el("div", { class: "inner" },
    el("a", { class: "brand", href: "#/" }, "fabulate", el("span", {}, " studio")),
    el("nav", { "aria-label": "screens" }, ...Object.entries(SCREENS).filter(([, [title]]) => title)
      .map(([name, [title]]) => el("a", { href: `#/${name}` }, title))),
    el("a", { id: "jobs", href: "#/", title: "jobs" })));
  window.addEventListener("hashchange", () => void show());
  window.addEventListener("unhandledrejection", (event) => tell(String(event.reason?.message ?? event.reason), true));
  void show();
  void jobs();
  window.setInterval(() => { if (!document.hidden) void jobs(); }, 2000);
}

begin();
