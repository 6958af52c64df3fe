"""The multi-scale flow: images to codes of as many numbers, and back.

    while both sides are even and stay at least 4:
        couplings on a chessboard (as many as asked for)
        squeeze: 2x2 blocks become four channels
        steps of flow: scale, mix the channels, couple their halves
        half of the channels are done and leave as codes, unless this was the last size

28x28 goes 28 -> 14 -> 7. An image with an odd side is never squeezed, and is coupled on the chessboard throughout. The
last step before channels leave is the one that scales and shifts just them, given those that stay: together a learned
p(leaving | staying), as in Glow.

To leave early saves work and gives each size codes of its own (Dinh et al. 2017, https://arxiv.org/abs/1605.08803,
section 3.6; Kingma, Dhariwal 2018, https://arxiv.org/abs/1807.03039).

Legend: B batch, C H W image, Z = C H W.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from fabulate.nets.couplings import Coupling, channels, chessboard
from fabulate.nets.invertible import Chain, Invertible, Mix, Scale, Squeeze
from fabulate.types import ImageShape

SMALLEST = 4  # a side that is not halved further

Mixing = Literal["rotate", "swap"]


def halves(shape: ImageShape) -> bool:
    """Whether images of this shape are squeezed.

    >>> [halves(ImageShape(1, side, side)) for side in (28, 14, 7)]
    [True, True, False]
    """
    _, height, width = shape
    return height % 2 == width % 2 == 0 and min(height, width) >= 2 * SMALLEST


class MultiScale(Invertible):
    """A flow from images (B, C, H, W) to codes (B, Z).

    `depth` steps at each size; `boards` couplings on the chessboard before each squeeze, and one more than that at the
    end; networks of `width` channels and `hidden` units; `mixing` of the channels before a coupling: rotate them by a
    learned matrix, or only swap which half passes.
    """

    def __init__(
        self, shape: ImageShape, depth: int, boards: int, width: int, hidden: int, mixing: Mixing, classes: int
    ) -> None:
        super().__init__()

        def step(mask: Tensor) -> list[Invertible]:
            here = ImageShape(*mask.shape)
            mix = [Mix(here)] if mixing == "rotate" and here.channels > 1 else []
            return [Scale(here), *mix, Coupling(mask, width, hidden, classes)]

        levels: list[list[Invertible]] = []
        self.leaving: list[ImageShape] = []  # of the codes, level by level
        while halves(shape):
            layers = [layer for i in range(boards) for layer in step(chessboard(shape, i % 2))]
            layers.append(Squeeze())
            shape = ImageShape(4 * shape.channels, shape.height // 2, shape.width // 2)
            layers += [layer for i in reversed(range(depth)) for layer in step(channels(shape, i % 2))]
            levels.append(layers)
            if halves(shape) or boards:
                shape = ImageShape(shape.channels // 2, *shape[1:])
                self.leaving.append(shape)
        last = boards + 1 if boards else 2 * depth * (not levels)
        if last:
            levels.append([layer for i in range(last) for layer in step(chessboard(shape, i % 2))])
        levels[-1].append(Scale(shape))
        self.leaving.append(shape)
        self.levels = nn.ModuleList(Chain(layers) for layers in levels)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        codes: list[Tensor] = []
        total = x.new_zeros(len(x))
        for level in self.levels:
            x, logdet = level(x, y)
            total = total + logdet
            if len(codes) < len(self.levels) - 1:
                x, leaving = x.chunk(2, dim=1)
                codes.append(leaving.flatten(1))
        return torch.cat([*codes, x.flatten(1)], dim=1), total

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        parts = torch.split(z, [shape.size for shape in self.leaving], dim=1)
        *codes, x = (part.reshape(-1, *shape) for part, shape in zip(parts, self.leaving, strict=True))
        for level in reversed(self.levels):
            assert isinstance(level, Chain)
            x = level.inverse(x, y)
            x = torch.cat([x, codes.pop()], dim=1) if codes else x
        return x
