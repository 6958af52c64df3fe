"""Recurrent networks between sequences of symbols and vectors: gated recurrent units (Cho et al. 2014,
https://arxiv.org/abs/1406.1078).

The encoder reads a sequence to its end; its last state becomes the vector. The decoder is autoregressive: its state at
a place knows the code and the symbols before,

    p(x | z) = prod_t p(x_t | x_1, ..., x_(t-1), z).

Such a decoder can do without the code, and then learns to: the posterior collapses. So in training some of the symbols
that it is shown are blanked out, and what they were it must hear from the code (word dropout: Bowman et al.,
"Generating sentences from a continuous space", 2016, https://arxiv.org/abs/1511.06349).

Legend: B batch, T places, K symbols, E numbers of an embedding, F features, Z code.
"""

from typing import Annotated, ClassVar, Literal

import torch
import tyro
from pydantic import Field
from torch import Tensor, nn

from fabulate.config import PositiveInt, spec
from fabulate.nets.blocks import pick, with_class
from fabulate.types import SequenceShape

SMALL = 0.1  # of numbers in tables of symbols, as they begin


@spec
class GRU:
    """Recurrent layers, for sequences."""

    per_sample: ClassVar[bool] = True
    kind: Annotated[Literal["gru"], tyro.conf.Suppress] = "gru"
    width: PositiveInt = 256
    """Features of the state."""
    word_dropout: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of the symbols that the decoder is not shown in training, against codes that go unused."""

    def encoder(self, shape: SequenceShape, outputs: int, classes: int = 0) -> nn.Module:
        """A network from symbols (B, ...) to vectors (B, outputs)."""
        return Reader(self, shape, outputs, classes)

    def decoder(self, inputs: int, shape: SequenceShape, classes: int = 0) -> nn.Module:
        """A network from vectors (B, inputs) to logits (B, ..., K) of symbols."""
        return Writer(self, inputs, shape, classes)


class Reader(nn.Module):
    """Sequences to vectors."""

    def __init__(self, config: GRU, shape: SequenceShape, outputs: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.symbols = nn.Parameter(SMALL * torch.randn(len(shape.symbols), config.width))
        self.layer = nn.GRU(config.width, config.width, batch_first=True)
        self.last = nn.Linear(config.width + classes, outputs)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        tokens = x.flatten(1).long()
        states, _ = self.layer(pick(self.symbols, tokens))  # (B, T, F)
        ends = ((tokens == 0).cumsum(1) == 0).sum(1).clamp_max(tokens.shape[1] - 1)
        return self.last(with_class(states[torch.arange(len(x), device=x.device), ends], y, self.classes))


class Writer(nn.Module):
    """Vectors to logits of symbols."""

    def __init__(self, config: GRU, inputs: int, shape: SequenceShape, classes: int) -> None:
        super().__init__()
        self.dims = shape.dims
        self.classes, self.places, self.count, self.dropped = (
            classes,
            shape.size,
            len(shape.symbols),
            config.word_dropout,
        )
        # Symbol K stands before the beginning, and for what is not shown.
        self.symbols = nn.Parameter(SMALL * torch.randn(self.count + 1, config.width))
        self.start = nn.Linear(inputs + classes, config.width)
        self.layer = nn.GRU(config.width + inputs + classes, config.width, batch_first=True)
        self.last = nn.Linear(config.width, self.count)

    def forward(self, z: Tensor, y: Tensor | None = None, x: Tensor | None = None) -> Tensor:
        """Logits (B, ..., K) at each place of sequences x; without them, of what it writes itself.

        Then each symbol is the likeliest one behind those before it, and its logits are those that chose it.
        """
        code = with_class(z, y, self.classes)
        state = torch.tanh(self.start(code))[None]  # (1, B, F)
        before = torch.full((len(z), 1), self.count, device=z.device)
        if x is not None:
            shown = torch.cat([before, x.flatten(1)[:, :-1].long()], 1)
            if self.training and self.dropped:
                shown = torch.where(torch.rand(shown.shape, device=z.device) < self.dropped, self.count, shown)
            return self.last(self.layer(self.heard(shown, code), state)[0]).view(-1, *self.dims, self.count)
        found = []
        for _ in range(self.places):
            hidden, state = self.layer(self.heard(before, code), state)
            found.append(self.last(hidden))
            before = found[-1].argmax(2)
        written = torch.cat(found, 1)
        return written.view(-1, *self.dims, self.count)

    def heard(self, tokens: Tensor, code: Tensor) -> Tensor:
        """What goes into the layer at each place (B, T, F + Z)."""
        return torch.cat([pick(self.symbols, tokens), code[:, None].expand(-1, tokens.shape[1], -1)], 2)
