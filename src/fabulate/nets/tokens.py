"""A small causal transformer: the probability of a sequence of codes, one code after the other.

    p(k_1, ..., k_T | y) = prod_t p(k_t | k_1, ..., k_(t-1), y)

(Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; normalised before each layer as in Radford et al. 2019, GPT-2).
A grid of codes is read row by row. Place t begins as a vector of its own plus one for each neighbour that was read
before, to the left and above: a masked convolution, as in PixelCNN (van den Oord et al. 2016,
https://arxiv.org/abs/1606.05328), which tells at once what attention would have to find out. Attention then sees all
places up to its own. No place sees its own code, so all T conditionals of a known sequence are computed at once, and
training is cross-entropy. A new sequence is drawn code by code; keys and values of the places passed are kept, so each
code costs one place, not t.

Sequences that are no grid, as long as they may be, have attention that knows how far apart places are
(`SequenceTransformer`); a place hears the last few symbols at once, which is the same idea in one dimension.

Legend: B batch, T places, K codes, F features, N samples, Y classes.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fabulate.config import PositiveInt, spec
from fabulate.nets.blocks import LONGEST, pick

HEAD = 32  # features of an attention head, or all where there are fewer
# Vectors of codes, places and classes begin small. Adam moves each number by at most the learning rate a step, so those
# that begin at 1 take hundreds of steps to turn; layers normalise, and what begins small is soon heard.
SMALL = 0.1
Memory = tuple[Tensor, Tensor]


@spec
class Transformer:
    """A causal transformer."""

    width: PositiveInt = 64
    """Features at each place."""
    layers: PositiveInt = 4
    """Layers of attention."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of what each layer adds that is left out at random in training, against overfitting (default: 0.2 of texts
    and music, 0 of images and their codes)."""


class Layer(nn.Module):
    """Attention to the places before and including one's own, then a two-layer network at each place."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        width = config.width
        self.heads = max(1, width // HEAD)
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(config.dropout or 0.0)

    def forward(
        self, x: Tensor, memory: Memory | None = None, turned: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Memory]:
        """All places (B, T, F) at once, or with the memory of those before it the next one (B, 1, F).

        `turned`: what tells queries and keys their place.
        """
        q, k, v = self.queries_keys_values(self.before_attention(x)).unflatten(2, (3, self.heads, -1)).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, F / heads)
        if turned is not None:
            q, k = turned(q), turned(k)
        if memory is not None:
            k, v = torch.cat([memory[0], k], 2), torch.cat([memory[1], v], 2)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=memory is None)
        x = x + self.drop(self.attended(seen.transpose(1, 2).flatten(2)))
        return x + self.drop(self.mlp(self.before_mlp(x))), (k, v)


class TokenTransformer(nn.Module):
    """p(k_1, ..., k_T | y) for codes 0..K-1."""

    def __init__(self, config: Transformer, codes: int, grid: tuple[int, int], classes: int = 0) -> None:
        super().__init__()
        height, width = grid
        self.length = height * width
        # How far back the neighbours are: left, above right, above, above left; in a narrow grid some are the same.
        self.steps = sorted({step for step in (1, width - 1, width, width + 1) if 0 < step < self.length})
        self.neighbours = nn.ParameterList(SMALL * torch.randn(codes, config.width) for _ in self.steps)
        self.positions = nn.Parameter(SMALL * torch.randn(self.length, config.width))
        self.classes = nn.Parameter(SMALL * torch.randn(classes, config.width)) if classes else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.last = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, codes))

    def forward(self, tokens: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits (B, T, K) of each code of sequences (B, T), given the codes before it."""
        x: Tensor = self.positions
        for step, table in zip(self.steps, self.neighbours, strict=True):
            x = x + F.pad(pick(table, tokens[:, :-step]), (0, 0, step, 0))  # (B, T, F), zero where there is none
        x = self.given(x, y)
        for layer in self.layers:
            x, _ = layer(x)
        return self.last(x)

    def given(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Let the class in at each place: (B, T, F) -> (B, T, F)."""
        if self.classes is None:
            return x
        assert y is not None, "a class-conditional network was called without classes"
        return x + pick(self.classes, y)[:, None]

    def log_prob(self, tokens: Tensor, y: Tensor | None = None) -> Tensor:
        """log p of sequences (B, T), in nats: (B,)."""
        logits = self.forward(tokens, y)
        return -F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").sum(1)

    def sample(self, uniform: Tensor, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """Sequences (N, T) from numbers (N, T) uniform in [0, 1): each code where they fall in its distribution."""
        memory: list[Memory | None] = [None] * len(self.layers)
        tokens: list[Tensor] = []
        for t in range(self.length):
            x = self.positions[t].expand(len(uniform), -1)  # (N, F)
            for step, table in zip(self.steps, self.neighbours, strict=True):
                x = x + table[tokens[t - step]] if step <= t else x
            x = self.given(x[:, None], y)
            for i, layer in enumerate(self.layers):
                x, memory[i] = layer(x, memory[i])
            p = torch.softmax(self.last(x)[:, 0].double() / temperature, dim=1)  # (N, K)
            cumulative = p.cumsum(1)
            here = uniform[:, t, None].double() * cumulative[:, -1:]
            tokens.append(torch.searchsorted(cumulative, here, right=True)[:, 0].clamp_max(p.shape[1] - 1))
        return torch.stack(tokens, dim=1)


def rotary(places: Tensor, features: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, F / 2) of the angles by which features turn at each place (T,).

    Then a product of a query and a key depends on how far apart they are, and on no place (Su et al., "RoFormer", 2021,
    https://arxiv.org/abs/2104.09864).
    """
    half = features // 2
    frequencies = LONGEST ** -(torch.arange(half, dtype=torch.float64, device=places.device) / max(half, 1))
    angles = places.double()[:, None] * frequencies
    return angles.cos(), angles.sin()


def turn(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn features (B, heads, T, F) in pairs, the first half with the second."""
    cos, sin = (part.to(x.dtype) for part in angles)
    half = cos.shape[1]
    a, b = x[..., :half], x[..., half : 2 * half]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, x[..., 2 * half :]], -1)


class SequenceTransformer(nn.Module):
    """Features at each place of a sequence of symbols 0..K-1, of the symbols before it: what its distribution is of.

    `steps`: how far back are the symbols that a place hears at once, without attention: 1 is the one before. `length`:
    places that have a vector of their own, again and again in longer sequences; 0 for those whose places tell nothing.
    """

    def __init__(
        self, config: Transformer, symbols: int, steps: Sequence[int], length: int = 0, classes: int = 0
    ) -> None:
        super().__init__()
        self.steps, self.symbols = sorted(steps), symbols
        # Symbol K stands before the beginning.
        self.before = nn.ParameterList(SMALL * torch.randn(symbols + 1, config.width) for _ in self.steps)
        self.positions = nn.Parameter(SMALL * torch.randn(length, config.width)) if length else None
        self.classes = nn.Parameter(SMALL * torch.randn(classes, config.width)) if classes else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor, y: Tensor | None = None, memory: list[Memory] | None = None) -> Tensor:
        """Features (B, T, F) at each place of sequences (B, T), given the symbols before it.

        With the `memory` of the places before, of the last place alone, (B, 1, F): its own symbol is not looked at, and
        the memory is brought up to date.
        """
        places = tokens.shape[1]
        first = places - 1 if memory is not None and places > 1 else 0
        x = torch.zeros((), device=tokens.device)
        for step, table in zip(self.steps, self.before, strict=True):
            heard = F.pad(tokens[:, : max(places - step, 0)], (min(step, places), 0), value=self.symbols)
            x = x + pick(table, heard[:, first:])
        if self.positions is not None:
            x = x + self.positions[torch.arange(first, places, device=tokens.device) % len(self.positions)]
        if self.classes is not None:
            assert y is not None, "a class-conditional network was called without classes"
            x = x + pick(self.classes, y)[:, None]
        features = x.shape[-1] // max(1, x.shape[-1] // HEAD)
        angles = rotary(torch.arange(first, places, device=tokens.device), features)
        for i, layer in enumerate(self.layers):
            seen = memory[i] if memory is not None and first else None
            x, kept = layer(x, seen, lambda part: turn(part, angles))
            if memory is not None:
                memory[i : i + 1] = [kept]
        return self.norm(x)
