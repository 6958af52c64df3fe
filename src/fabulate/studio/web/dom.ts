// Elements without markup: whatever the page shows of files, classes and errors goes through text nodes, never HTML.

export type Child = Node | string | number | null | undefined | false;
type Attributes = Record<string, unknown>;

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (functions are listeners, `true` a bare attribute) and children (texts are texts). */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K, attributes: Attributes = {}, ...children: Child[]
): HTMLElementTagNameMap[K] {
  return filled(document.createElement(tag), attributes, children);
}

/** As `el`, of a drawing. */
export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K, attributes: Attributes = {}, ...children: Child[]
): SVGElementTagNameMap[K] {
  return filled(document.createElementNS(SVG, tag) as SVGElementTagNameMap[K], attributes, children);
}

function filled<E extends Element>(element: E, attributes: Attributes, children: Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value as EventListener);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  put(element, ...children);
  return element;
}

/** Append children. */
export function put(parent: Node, ...children: Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    parent.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Put children in the place of those that are there. */
export function refill(parent: Element, ...children: Child[]): void {
  parent.replaceChildren();
  put(parent, ...children);
}

/** A section as the reports have them. */
export function section(title: string, ...children: Child[]): HTMLElement {
  return el("section", {}, title ? el("h2", {}, title) : null, ...children);
}

/** What stands above everything on a screen. */
export function heading(kind: string, title: string, ...under: Child[]): HTMLElement {
  return el("div", { class: "heading" }, el("p", { class: "eyebrow" }, kind), el("h1", {}, title), ...under);
}

/** Names with their values, as the reports show them. */
export function facts(pairs: [string, Child][]): HTMLElement {
  return el("dl", { class: "facts" }, ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** A button. */
export function button(words: string, press: () => unknown, kind = ""): HTMLButtonElement {
  return el("button", { class: `button ${kind}`, type: "button", click: () => void press() }, words);
}

/** A choice of one of several. */
export function select(options: [string, string][], chosen: string, changed: (value: string) => unknown): HTMLSelectElement {
  const element = el("select", { change: () => void changed(element.value) },
    ...options.map(([value, words]) => el("option", { value, selected: value === chosen }, words)));
  return element;
}

/** Something with its name above it. */
export function labelled(name: string, control: HTMLElement, help = ""): HTMLElement {
  const one = control.matches("input, select"); // a label around several controls would press the first
  if (!one) control.querySelector("input")?.setAttribute("aria-label", name);
  return el(one ? "label" : "div", { class: "field" }, el("span", { class: "name" }, name), control, help ? el("span", { class: "help" }, help) : null);
}

/** `call`, once it has not been asked for during so many milliseconds. */
export function settled(call: () => unknown, milliseconds: number): () => void {
  let timer = 0;
  return () => { clearTimeout(timer); timer = window.setTimeout(() => void call(), milliseconds); };
}
