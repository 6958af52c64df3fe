// Five exercises beside a lesson. The server says what is solved; the browser remembers it.

import { Json, attempt, post } from "./api";
import { button, el, put } from "./dom";

const KEY = "fabulate-learn-solved";

function remembered(): Set<string> {
  try { return new Set(JSON.parse(localStorage.getItem(KEY) ?? "[]") as string[]); } catch { return new Set(); }
}

export class Exercises {
  readonly element = el("section", { class: "exercises" });
  private readonly solved = remembered();
  private readonly cards = new Map<string, HTMLElement>();
  private readonly count = el("span", { class: "soft" });
  private readonly list = el("ol", { class: "tasks" });

  /** `begin` sets an exercise's lesson up; `lesson` is the name of the one there is. */
  constructor(private readonly begin: (start: Json) => void, private readonly lesson: () => string) {
    put(this.element, el("h2", {}, "Exercises ", this.count), this.list);
  }

  fill(all: Json[]): void {
    for (const each of all) {
      const told = el("p", { class: "outcome", role: "status" });
      const value = el("input", { type: "number", step: "any", "aria-label": `your answer: ${each.title}`, keydown: (event: KeyboardEvent) => { if (event.key === "Enter") void check(); } });
      const check = () => attempt(async () => {
        if (value.value === "") return;
        const { solved } = await post("/api/learn/answer", { lesson: this.lesson(), exercise: each.name, value: Number(value.value) });
        if (solved) this.solve([each.name]); else told.textContent = "Not yet: the numbers of the lesson that runs do not say so.";
      });
      const card = el("li", { class: "task" }, el("h3", {}, each.title), el("p", {}, each.task),
        el("div", { class: "buttons" }, button("Set it up", () => this.begin(each.start), "small"),
          ...(each.asks ? [el("span", { class: "answer" }, value, button("Check", check, "small"))] : [])),
        told, el("p", { class: "why" }, each.why));
      this.cards.set(each.name, card);
      put(this.list, card);
    }
    this.tell();
  }

  /** What the server found solved. */
  solve(names: string[]): void {
    const news = names.filter((name) => !this.solved.has(name));
    if (!news.length) return;
    for (const name of news) this.solved.add(name);
    try { localStorage.setItem(KEY, JSON.stringify([...this.solved])); } catch { /* it is remembered until the page is closed */ }
    this.tell();
  }

  private tell(): void {
    for (const [name, card] of this.cards) {
      card.classList.toggle("solved", this.solved.has(name));
      if (this.solved.has(name)) card.querySelector(".outcome")!.textContent = "Solved.";
    }
    this.count.textContent = `${this.solved.size} of ${this.cards.size} solved`;
    this.element.dataset.solved = [...this.solved].join(" ");
  }
}
