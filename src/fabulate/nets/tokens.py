"""A small causal transformer: the probability of a sequence of codes, one code after the other.

    p(k_1, ..., k_T | y) = prod_t p(k_t | k_1, ..., k_(t-1), y)

(Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; normalised before each layer as in Radford et al. 2019, GPT-2).
A grid of codes is read row by row. Place t sees a start vector and the codes before it, never its own: attention is
masked, so all T conditionals of a known sequence are computed at once, and training is cross-entropy. A new sequence is
drawn code by code; keys and values of the places passed are kept, so each code costs one place, not t.

Legend: B batch, T places, K codes, F features, N samples, Y classes.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fabulate.config import PositiveInt, spec
from fabulate.nets.blocks import pick

HEAD = 32  # features of an attention head, or all where there are fewer
Memory = tuple[Tensor, Tensor]


@spec
class Transformer:
    """A causal transformer."""

    width: PositiveInt = 64
    """Features at each place."""
    layers: PositiveInt = 4
    """Layers of attention."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of features set to zero in training, against learning few images by heart."""


class Layer(nn.Module):
    """Attention to the places before and including one's own, then a two-layer network at each place."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        width = config.width
        self.heads = max(1, width // HEAD)
        self.before_attention, self.before_thought = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.thought = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """All places (B, T, F) at once, or with the memory of those before it the next one (B, 1, F)."""
        q, k, v = self.queries_keys_values(self.before_attention(x)).unflatten(2, (3, self.heads, -1)).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, F / heads)
        if memory is not None:
            k, v = torch.cat([memory[0], k], 2), torch.cat([memory[1], v], 2)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=memory is None)
        x = x + self.dropout(self.attended(seen.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.thought(self.before_thought(x))), (k, v)


class TokenTransformer(nn.Module):
    """p(k_1, ..., k_T | y) for codes 0..K-1."""

    def __init__(self, config: Transformer, codes: int, length: int, classes: int = 0) -> None:
        super().__init__()
        self.length = length
        self.codes = nn.Parameter(torch.randn(codes, config.width))
        self.places = nn.Parameter(torch.randn(length, config.width))
        self.start = nn.Parameter(torch.randn(config.width))
        self.classes = nn.Parameter(torch.randn(classes, config.width)) if classes else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, codes))

    def forward(self, tokens: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits (B, T, K) of each code of sequences (B, T), given the codes before it."""
        before = pick(self.codes, tokens[:, :-1])
        x = torch.cat([self.start.expand(len(tokens), 1, -1), before], dim=1) + self.places
        x = self.dropout(self.given(x, y))
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

    def sample(self, chance: Tensor, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """Sequences (N, T) from numbers (N, T) uniform in [0, 1): each code where they fall in its distribution."""
        memory: list[Memory | None] = [None] * len(self.layers)
        before = self.start.expand(len(chance), -1)  # (N, F)
        tokens = []
        for t in range(self.length):
            x = self.given((before + self.places[t])[:, None], y)
            for i, layer in enumerate(self.layers):
                x, memory[i] = layer(x, memory[i])
            p = torch.softmax(self.last(x)[:, 0].double() / temperature, dim=1)  # (N, K)
            cumulative = p.cumsum(1)
            here = chance[:, t, None].double() * cumulative[:, -1:]
            token = torch.searchsorted(cumulative, here, right=True)[:, 0].clamp_max(p.shape[1] - 1)
            before = self.codes[token]
            tokens.append(token)
        return torch.stack(tokens, dim=1)
