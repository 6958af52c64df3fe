// The command that a button runs, shown beside it to copy: nothing here that the command line cannot do.

import { Json, Refusal, post, tell } from "./api";
import { button, el, refill, settled } from "./dom";

/** A line of code with a button that copies it. */
export function code(text: string): HTMLElement {
  const words = el("code", {}, text);
  const copy = async () => {
    try { await navigator.clipboard.writeText(words.textContent ?? ""); tell("Copied."); }
    catch { getSelection()?.selectAllChildren(words); tell("Press Ctrl-C to copy."); }
  };
  return el("div", { class: "command" }, words, el("button", { class: "copy", type: "button", title: "copy", click: () => void copy() }, "copy"));
}

/** A button for a job, with its command below, which follows what is asked for; what cannot be is said there. */
export class Action {
  readonly element: HTMLElement;
  readonly press: HTMLButtonElement;
  private readonly line = code("");
  private readonly problem = el("p", { class: "problem", role: "alert" });
  private readonly soon: () => void;

  constructor(words: string, private readonly verb: string, private readonly asked: () => Json, begun: (job: Json) => void, kind = "primary") {
    this.press = button(words, async () => {
      this.press.disabled = true;
      try { begun(await post(`/api/jobs/${verb}`, this.asked())); }
      catch (error) { this.say(error); }
      this.press.disabled = false;
    }, kind);
    this.element = el("div", { class: "action" }, this.press, this.line, this.problem);
    this.soon = settled(() => this.refresh(), 120);
    void this.refresh();
  }

  /** What is asked for has changed. */
  changed(): void { this.soon(); }

  private say(error: unknown): void {
    this.problem.textContent = error instanceof Error ? error.message : String(error);
    this.press.disabled = error instanceof Refusal && error.status === 422;
  }

  async refresh(): Promise<void> {
    try {
      const { command } = await post(`/api/command/${this.verb}`, this.asked());
      refill(this.line.querySelector("code")!, command);
      this.problem.textContent = "";
      this.press.disabled = false;
    } catch (error) { this.say(error); }
  }
}
