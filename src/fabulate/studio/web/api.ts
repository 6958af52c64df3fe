// Asking the server; what it refuses is an error with its words.

import { el } from "./dom";

export type Json = Record<string, any>;

export class Refusal extends Error {
  constructor(readonly status: number, words: string) { super(words); }
}

async function answered(path: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...init });
  } catch (error) {
    if (error instanceof DOMException) throw error; // nobody waits for it any more
    throw new Refusal(0, "The studio does not answer. If it was closed, start it again and open its new address; trainings go on meanwhile.");
  }
  if (response.ok) return response;
  const text = await response.text();
  let words = text;
  try { words = JSON.parse(text).error ?? text; } catch { /* plain words */ }
  throw new Refusal(response.status, words || `error ${response.status}`);
}

export function query(path: string, values: Record<string, string | number | null | undefined>): string {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given.map(([k, v]) => [k, String(v)]))}` : path;
}

export async function get<T = Json>(path: string, values: Record<string, string | number | null | undefined> = {}): Promise<T> {
  return (await answered(query(path, values))).json();
}

function body(value: unknown, signal?: AbortSignal): RequestInit {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value), signal };
}

export async function post<T = Json>(path: string, value: unknown = {}, signal?: AbortSignal): Promise<T> {
  return (await answered(path, body(value, signal))).json();
}

export async function postForBlob(path: string, value: unknown, signal?: AbortSignal): Promise<{ blob: Blob; headers: Headers }> {
  const response = await answered(path, body(value, signal));
  return { blob: await response.blob(), headers: response.headers };
}

export async function upload<T = Json>(path: string, file: Blob): Promise<T> {
  return (await answered(path, { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file })).json();
}

/** Bytes, as they come. */
export async function stream(path: string, value: unknown, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
  return (await answered(path, body(value, signal))).body!;
}

/** Lines of JSON, as they come. */
export async function lines(path: string, value: unknown, told: (line: Json) => void, signal?: AbortSignal): Promise<void> {
  const reader = (await answered(path, body(value, signal))).body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value: text } = await reader.read();
    if (done) return;
    const parts = (rest + text).split("\n");
    rest = parts.pop()!;
    for (const part of parts) if (part) told(JSON.parse(part));
  }
}

/** Tell people something for a few seconds, or until they close it. */
export function tell(words: string, poor = false): void {
  const place = document.getElementById("told")!;
  const note = el("div", { class: poor ? "note poor" : "note" }, el("span", {}, words),
    el("button", { class: "close", type: "button", "aria-label": "close", click: () => note.remove() }, "×"));
  place.replaceChildren(note);
  if (!poor) window.setTimeout(() => note.remove(), 5000);
}

/** Do something; what goes wrong is told. */
export async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") return undefined;
    tell(error instanceof Error ? error.message : String(error), true);
    return undefined;
  }
}
