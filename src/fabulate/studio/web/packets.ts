// The pictures of a lesson as they come: a length, JSON with its own length, points, arrows and a field (studio/learn/lesson.py).

import { Json } from "./api";

export interface Picture { told: Json; points: Float32Array; arrows: Float32Array; field: Uint8Array }

/** Read packets from a stream and tell each, but for the empty ones that only ask whether anybody reads. */
export async function packets(stream: ReadableStream<Uint8Array>, tell: (picture: Picture) => void): Promise<void> {
  const reader = stream.getReader();
  let rest = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const all = new Uint8Array(rest.length + value.length);
    all.set(rest);
    all.set(value, rest.length);
    let at = 0;
    while (all.length - at >= 4) {
      const length = new DataView(all.buffer, at).getUint32(0, true);
      if (all.length - at < 4 + length) break;
      if (length) tell(picture(all.slice(at + 4, at + 4 + length)));
      at += 4 + length;
    }
    rest = all.slice(at);
  }
}

function picture(body: Uint8Array): Picture {
  const about = new DataView(body.buffer).getUint32(0, true);
  const told = JSON.parse(new TextDecoder().decode(body.subarray(4, 4 + about))) as Json;
  const [points, arrows] = told.counts as [number, number], first = 4 + about, second = first + 8 * points, third = second + 16 * arrows;
  return { told, points: new Float32Array(body.buffer, first, 2 * points), arrows: new Float32Array(body.buffer, second, 4 * arrows), field: body.subarray(third) };
}
