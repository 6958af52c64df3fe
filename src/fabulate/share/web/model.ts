// The model: its graphs, run by onnxruntime's WebAssembly in this page, by one thread, and what it is, in model.json.

import * as ort from "onnxruntime-web/wasm";
import { noise } from "./random";
import { solve, type Levels } from "./solver";

export interface Facts {
  title: string; about: string; family: string; version: string;
  shape: [number, number, number]; classes: string[]; codes: number;
  images: number; // in a grid
  prior: boolean; // whether codes are more than noise
  directions: { vectors: number[][]; spreads: number[]; shares: number[] } | null;
  steps: { usual: number; most: number; levels: Levels; space: number[] } | null; // of a model that evaluates its network many times
}

/** What was drawn, all that it came of with it. */
export interface Drawn {
  seed: number; steps: number; noise: Float32Array; choice: Float32Array; classes: number[]; codes: Float32Array; pixels: Float32Array;
}

type Feeds = Record<string, ort.Tensor>;

export class Model {
  private constructor(readonly facts: Facts, private readonly graphs: Map<string, ort.InferenceSession>) {}

  static async load(): Promise<Model> {
    const facts = await (await fetched("model.json")).json() as Facts;
    const names = ["decoder", ...(facts.prior ? ["prior"] : []), ...(facts.steps ? ["denoiser"] : [])];
    const [runtime, ...files] = await Promise.all([unpacked("runtime.bin"), ...names.map(async (name) => (await fetched(`${name}.onnx`)).arrayBuffer())]);
    ort.env.wasm.numThreads = 1; // more need headers that plain file servers do not send
    ort.env.wasm.wasmBinary = runtime;
    ort.env.logLevel = "error";
    const graphs = new Map<string, ort.InferenceSession>();
    for (const [i, name] of names.entries()) graphs.set(name, await ort.InferenceSession.create(new Uint8Array(files[i]!)));
    return new Model(facts, graphs);
  }

  /** Images 0 ... n - 1 of a seed; nothing where `stop` says that nobody wants them any more. */
  async draw(seed: number, classes: number[], steps: number, done: (step: number) => void, stop: () => boolean): Promise<Drawn | null> {
    const { facts } = this, n = classes.length, made = noise(seed, n, facts.codes);
    let codes = made.noise;
    if (facts.prior) {
      const feeds = { noise: numbers(codes, [n, facts.codes]), choice: numbers(made.choice, [n]) };
      codes = await this.run("prior", feeds, classes);
    }
    if (facts.steps) {
      const { levels, space } = facts.steps;
      const denoise = (u: Float32Array, level: number): Promise<Float32Array> =>
        this.run("denoiser", { noisy: numbers(u, [n, ...space]), level: numbers(new Float32Array(n).fill(level), [n]) }, classes);
      const images = await solve(denoise, made.noise, steps, levels, done, stop);
      if (!images) return null;
      codes = images;
    }
    return { seed, steps, ...made, classes, codes, pixels: await this.decode(codes, classes) };
  }

  /** The pixels in [0, 1] of codes, or of images of the space. */
  decode(codes: Float32Array, classes: number[]): Promise<Float32Array> {
    const { steps } = this.facts, n = classes.length;
    return steps ? this.run("decoder", { images: numbers(codes, [n, ...steps.space]) }, classes)
      : this.run("decoder", { codes: numbers(codes, [n, this.facts.codes]) }, classes);
  }

  private async run(name: string, feeds: Feeds, classes: number[]): Promise<Float32Array> {
    const graph = this.graphs.get(name)!;
    if (graph.inputNames.includes("class")) feeds["class"] = new ort.Tensor("int64", BigInt64Array.from(classes, BigInt), [classes.length]);
    const wanted = Object.fromEntries(Object.entries(feeds).filter(([input]) => graph.inputNames.includes(input)));
    const out = await graph.run(wanted);
    return out[graph.outputNames[0]!]!.data as Float32Array;
  }
}

const numbers = (data: Float32Array, dims: number[]): ort.Tensor => new ort.Tensor("float32", data, dims);

async function fetched(name: string): Promise<Response> {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response;
}

/** A file that was compressed, whatever the server thinks of its name. */
async function unpacked(name: string): Promise<ArrayBuffer> {
  const body = (await fetched(name)).body!;
  return new Response(body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
