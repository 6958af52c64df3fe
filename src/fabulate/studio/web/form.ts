// A form made from the JSON Schema of a spec: its bounds, its help and its defaults; nothing of it is written here.

import { Json } from "./api";
import { el, labelled, select } from "./dom";

/** A part of a training: fields by name; `changed` gives what differs from what the form began with. */
export class Form {
  readonly element: HTMLElement;
  private readonly values: Json = {};
  private readonly controls: Record<string, HTMLElement> = {};

  constructor(
    private readonly schema: Json, private readonly defaults: Json, private readonly told: () => void,
    private readonly kinds: Record<string, Json> = {}, names: string[] = Object.keys(schema.properties ?? {}),
    private readonly within = "",
  ) {
    this.element = el("div", { class: "form" }, ...names.map((name) => (this.controls[name] = this.field(name))));
  }

  /** What was changed, as nested values. */
  changed(): Json { return structuredClone(this.values); }

  private set(name: string, value: unknown): void {
    if (JSON.stringify(value) === JSON.stringify(this.defaults[name] ?? null)) delete this.values[name];
    else this.values[name] = value;
    this.told();
  }

  private field(name: string): HTMLElement {
    const schema = this.resolved(this.schema.properties[name]);
    const value = this.defaults[name] ?? null;
    const title = name.replaceAll("_", " ");
    const help = schema.description ?? this.schema.properties[name].description ?? "";
    if (schema.oneOf) return this.choice(name, schema, help);
    if (schema.type === "boolean") {
      const box = el("input", { type: "checkbox", name: this.within + name, checked: value === true, change: () => this.set(name, box.checked) });
      return el("label", { class: "field check" }, box, el("span", { class: "name" }, title), el("span", { class: "help" }, help));
    }
    if (schema.enum) {
      const words = schema.enum.map((each: unknown) => [String(each), String(each)] as [string, string]);
      const options: [string, string][] = schema.optional ? [["", "as usual"], ...words] : words;
      const back = (text: string) => (text === "" ? null : schema.enum.find((each: unknown) => String(each) === text));
      const control = select(options, value === null ? "" : String(value), (text) => this.set(name, back(text)));
      control.name = this.within + name;
      return labelled(title, control, help);
    }
    const list = schema.type === "array";
    const numeric = schema.type === "integer" || schema.type === "number";
    const input: HTMLInputElement = el("input", {
      type: numeric ? "number" : "text", name: this.within + name, value: value === null ? "" : list ? value.join(" ") : value,
      placeholder: schema.optional ? "as usual" : "", autocomplete: "off",
      step: schema.type === "integer" ? 1 : numeric ? "any" : null,
      min: schema.minimum ?? (schema.exclusiveMinimum !== undefined && schema.type === "integer" ? schema.exclusiveMinimum + 1 : schema.exclusiveMinimum),
      max: schema.maximum ?? schema.exclusiveMaximum,
      input: () => this.set(name, parsed(input.value, schema, list)),
    });
    return labelled(title, input, help);
  }

  /** One of several specs, told apart by their kind, whose own fields follow. */
  private choice(name: string, schema: Json, help: string): HTMLElement {
    const specs = Object.fromEntries(schema.oneOf.map((each: Json) => {
      const spec = this.resolved(each);
      return [spec.properties.kind.const, spec];
    }));
    const usual = this.defaults[name];
    const below = el("div", { class: "nested" });
    let own: Form | null = null;
    const told = (kind: string) => {
      const values = own?.changed() ?? {};
      if (kind === usual.kind && !Object.keys(values).length) delete this.values[name];
      else this.values[name] = { kind, ...values };
      this.told();
    };
    const show = (kind: string) => {
      const filled = kind === usual.kind ? usual : this.kinds[name]?.[kind] ?? {};
      const names = Object.keys(specs[kind].properties).filter((each) => each !== "kind");
      own = new Form({ ...specs[kind], $defs: this.schema.$defs }, filled, () => told(kind), {}, names, `${this.within}${name}.`);
      below.replaceChildren(own.element);
      below.hidden = !names.length;
    };
    const control = select(Object.keys(specs).map((kind) => [kind, kind]), usual.kind, (kind) => { show(kind); told(kind); });
    control.name = this.within + name;
    show(usual.kind);
    return el("div", { class: "field wide-field" }, labelled(name.replaceAll("_", " "), control, help), below);
  }

  /** A field's schema, with references followed and `null` told as `optional`. */
  private resolved(schema: Json): Json {
    if (schema.$ref) return { ...this.resolved((this.schema.$defs ?? {})[schema.$ref.split("/").pop()]), ...without(schema, "$ref") };
    if (schema.anyOf) {
      const some = schema.anyOf.filter((each: Json) => each.type !== "null");
      const one = some.length === 1 ? this.resolved(some[0]) : { type: "string", free: true };
      return { ...one, ...without(schema, "anyOf"), optional: some.length < schema.anyOf.length };
    }
    return schema;
  }
}

function without(schema: Json, name: string): Json {
  const { [name]: _, ...rest } = schema;
  return rest;
}

/** What was typed; what is no number stays as it is, so that the server says what is wrong with it. */
function parsed(text: string, schema: Json, list: boolean): unknown {
  const words = text.trim();
  if (words === "") return null;
  const number = (word: string) => (word !== "" && Number.isFinite(Number(word)) ? Number(word) : word);
  if (list) return words.split(/[\s,]+/).map(number);
  if (schema.type === "integer" || schema.type === "number") return number(words);
  return schema.free && /^\d+$/.test(words) ? Number(words) : words;
}
