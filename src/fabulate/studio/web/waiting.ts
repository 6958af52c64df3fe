// A job that a screen waits for: what it prints meanwhile, and what follows when it is over.

import { Json, attempt, get, post } from "./api";
import { button, el, refill } from "./dom";

/** Show how far a job is in `place`; `done` when it has ended well. Gives what ends the waiting. */
export function follow(place: HTMLElement, job: Json, done: () => unknown): () => void {
  let over = false;
  const output = el("pre", {}), pill = el("span", { class: "pill" });
  const stop = button("Stop", () => attempt(() => post(`/api/stop/${job.name}`)), "small");
  refill(place, el("section", { class: "waiting-for" }, el("div", { class: "job" }, pill, el("strong", {}, job.about), stop), output));
  const look = async () => {
    if (over) return;
    const now = (await attempt(() => get<Json[]>("/api/jobs")))?.find((each) => each.name === job.name);
    if (over || !place.isConnected) return;
    if (now) {
      pill.className = `pill ${now.state}`;
      pill.textContent = now.state;
      output.textContent = now.output || (now.state === "waiting" ? "It waits for the jobs before it." : "…");
      output.scrollTop = output.scrollHeight;
      stop.hidden = !["running", "waiting"].includes(now.state);
      if (now.state === "done") { over = true; refill(place); done(); return; }
      if (["failed", "stopped", "lost"].includes(now.state)) { over = true; return; }
    }
    window.setTimeout(() => void look(), 600);
  };
  void look();
  return () => { over = true; };
}
