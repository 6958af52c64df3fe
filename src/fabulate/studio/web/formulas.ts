// The losses as formulas: TeX of a few words, drawn by the browser itself as MathML.

const MATH = "http://www.w3.org/1998/Math/MathML";
const NAMES: Record<string, string> = {
  E: "𝔼", N: "𝒩", alpha: "α", beta: "β", gamma: "γ", eps: "ε", mu: "μ", sigma: "σ", partial: "∂", nabla: "∇", sim: "∼", mid: "|", Vert: "‖", cdot: "·", to: "→",
};
const WORDS = new Set(["log", "exp", "det", "softplus", "KL", "mean"]);

interface Formula { lines: string[]; words: string }

/** The loss of each player of a family's preset. */
export const FORMULAS: Record<string, Record<string, Formula>> = {
  ae: { model: { lines: ["L = \\E[(x - d(e(x)))^2]"], words: "The error of a copy that went through the code e(x)." } },
  vae: { model: { lines: ["L = \\E_{q}[-\\log p(x \\mid z)] + \\beta \\KL(q(z \\mid x) \\Vert p(z))", "z = \\mu(x) + \\sigma(x) \\eps, \\quad \\eps \\sim \\N(0, 1)"], words: "What the copy misses, and what the code tells." } },
  "gan default": {
    critic: { lines: ["L_{D} = \\E[\\softplus(D(G(z)) - D(x))]", "+ \\frac{\\gamma}{2} \\E[\\Vert \\nabla D(x) \\Vert^2 + \\Vert \\nabla D(G(z)) \\Vert^2]"], words: "Each real point is to score higher than a fake, by a field that is not steep." },
    generator: { lines: ["L_{G} = \\E[\\softplus(D(x) - D(G(z)))]"], words: "Each fake is to score higher than a real point." },
  },
  "gan tutorial": {
    critic: { lines: ["L_{D} = -\\E[\\log \\sigma(D(x))] - \\E[\\log(1 - \\sigma(D(G(z))))]"], words: "Tell real points from fakes." },
    generator: { lines: ["L_{G} = -\\E[\\log \\sigma(D(G(z)))]"], words: "Be taken for real, anywhere." },
  },
  "flow default": { model: { lines: ["L = \\E[w_{t}^2 \\Vert f(x_{t}, t) - (a_{t} x + b_{t} \\eps) \\Vert^2]", "x_{t} = (1 - t) x + t \\eps, \\quad \\eps \\sim \\N(0, 1)"], words: "See the point behind its noise; w makes the error that of the velocity." } },
  "flow tutorial": { model: { lines: ["L = \\E[\\Vert f(x_{t}, t) - \\eps \\Vert^2]", "x_{t} = \\alpha_{t} x + \\sigma_{t} \\eps, \\quad \\eps \\sim \\N(0, 1)"], words: "See the noise in a noisy point." } },
  nf: { model: { lines: ["L = -\\E[\\log \\N(f(x); 0, 1) + \\log \\mid \\det \\frac{\\partial f}{\\partial x} \\mid]"], words: "Minus the log density of the data, exactly." } },
};

/** A player's formula. */
export function formula(family: string, preset: string, player: string): Formula {
  return (FORMULAS[`${family} ${preset}`] ?? FORMULAS[family])[player];
}

/** TeX as MathML: letters, digits, signs, \names, {groups}, _ and ^, \frac and \quad. */
export function math(tex: string): Element {
  const tokens = tex.match(/\\[a-zA-Z]+|[0-9.]+|\S/g) ?? [];
  let at = 0;
  const make = (tag: string, ...children: (Element | string)[]) => { const element = document.createElementNS(MATH, tag); element.append(...children); return element; };
  const group = (): Element => { // what stands in braces, or the next sign alone
    if (tokens[at] !== "{") return atom();
    at++;
    const row = make("mrow", ...until("}"));
    at++;
    return row;
  };
  const atom = (): Element => {
    const token = tokens[at++], name = token.slice(1);
    if (token === "\\frac") return make("mfrac", group(), group());
    if (token === "\\quad") { const space = make("mspace"); space.setAttribute("width", "1em"); return space; }
    if (token.startsWith("\\") && WORDS.has(name)) { const word = make("mi", name); word.setAttribute("class", "word"); return word; }
    const text = token.startsWith("\\") ? NAMES[name] : token === "-" ? "−" : token;
    if (/^[0-9.]+$/.test(text)) return make("mn", text);
    if (/^\p{L}$/u.test(text)) return make("mi", text);
    const sign = make("mo", text);
    if ("()[]|‖;,".includes(text)) sign.setAttribute("stretchy", "false");
    if ("|‖".includes(text)) { sign.setAttribute("lspace", ".1em"); sign.setAttribute("rspace", ".1em"); }
    return sign;
  };
  const until = (end: string): Element[] => {
    const found: Element[] = [];
    while (at < tokens.length && tokens[at] !== end) {
      let base = atom();
      while (tokens[at] === "_" || tokens[at] === "^") {
        const below = tokens[at++] === "_", other = group();
        base = base.localName === "msub" && !below ? make("msubsup", ...Array.from(base.children), other) : make(below ? "msub" : "msup", base, other);
      }
      found.push(base);
    }
    return found;
  };
  const whole = make("math", make("mrow", ...until("")));
  whole.setAttribute("display", "block");
  whole.setAttribute("aria-label", tex);
  return whole;
}
