// Random numbers that are addressed: image i of a seed is the same in any grid, in every browser.
//
// Each image has a generator of its own, sfc32 (Chris Doty-Humphrey's PractRand), begun at (seed, image).

/** Uniform numbers in [0, 1), 32 bits each. */
export function generator(seed: number, image: number): () => number {
  let a = seed | 0, b = Math.floor(seed / 2 ** 32) | 0, c = image | 0, counter = 1;
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 15; i++) next(); // until every bit of the seed is everywhere
  return next;
}

/** What images first ... first + n - 1 of a seed are made of: z N(0, 1) numbers each, and one uniform in [0, 1). */
export function noise(seed: number, n: number, z: number): { noise: Float32Array; choice: Float32Array } {
  const made = { noise: new Float32Array(n * z), choice: new Float32Array(n) };
  for (let i = 0; i < n; i++) {
    const uniform = generator(seed, i);
    made.choice[i] = Math.min(uniform(), 1 - 2 ** -24); // a float32 below 1
    for (let j = 0; j < z; j += 2) { // Box, Muller 1958
      const radius = Math.sqrt(-2 * Math.log(1 - uniform())), angle = 2 * Math.PI * uniform();
      made.noise[i * z + j] = radius * Math.cos(angle);
      if (j + 1 < z) made.noise[i * z + j + 1] = radius * Math.sin(angle);
    }
  }
  return made;
}
