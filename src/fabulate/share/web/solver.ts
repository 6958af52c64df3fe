// From noise to images by a denoiser, as src/fabulate/samplers.py does it; there are the formulas and their sources.
//
// With u an image plus s times noise, and D(u, s) the mean image behind it, du/ds = (u - D(u, s)) / s leads from the
// highest noise level to an image at level 0. The solver is iPNDM: Adams-Bashforth on the slope, of order 4 once four
// slopes are known (Liu et al. 2022, https://arxiv.org/abs/2202.09778; Zhang, Chen 2023, https://arxiv.org/abs/2204.13902).

export type Denoise = (u: Float32Array, level: number) => Promise<Float32Array>;

export interface Levels { lowest: number; highest: number; rho: number }

const WEIGHTS = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]];

/** Noise levels from the highest to the lowest, evenly in s^(1/rho), then 0. */
export function grid(steps: number, { lowest, highest, rho }: Levels): number[] {
  const [from, to] = [highest ** (1 / rho), lowest ** (1 / rho)];
  return [...Array.from({ length: steps }, (_, i) => (from + (i / Math.max(steps - 1, 1)) * (to - from)) ** rho), 0];
}

/** From N(0, 1) noise to an image of the space, in so many evaluations; `stop` tells that nobody wants it any more. */
export async function solve(denoise: Denoise, noise: Float32Array, steps: number, levels: Levels,
  done: (step: number) => void, stop: () => boolean): Promise<Float32Array | null> {
  const s = grid(steps, levels), u = noise.map((value) => value * levels.highest);
  let slopes: Float32Array[] = []; // the newest first
  for (let i = 0; i < steps; i++) {
    const [here, below] = [s[i]!, s[i + 1]!];
    const image = await denoise(u, here);
    if (stop()) return null;
    slopes = [u.map((value, k) => (value - image[k]!) / here), ...slopes].slice(0, 4);
    const weights = WEIGHTS[slopes.length - 1]!;
    for (let k = 0; k < u.length; k++) {
      let slope = 0;
      for (let j = 0; j < weights.length; j++) slope += weights[j]! * slopes[j]![k]!;
      u[k] = u[k]! + (below - here) * slope;
    }
    done(i + 1);
  }
  return u;
}
