"""The diffusion transformer: image and time (and class) in, an image of the same shape out.

Patches of p x p pixels become tokens; blocks of attention and fully connected layers work on them, each shifted, scaled
and gated by time and class (Peebles, Xie, "Scalable diffusion models with transformers", 2023,
https://arxiv.org/abs/2212.09748: adaLN-Zero). Where a token stands is told by sinusoidal embeddings of its row and its
column. It is nothing but matrix products, which processors and GPUs with units for them do fastest.

Legend: B batch, C H W image, T tokens, F features of a token, E numbers that tell time and class.
"""

from math import ceil
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from fabulate.config import PositiveInt, spec
from fabulate.nets.blocks import TIME_SCALE, Condition, check_sides, patch_for, sinusoidal
from fabulate.types import ImageShape

HEAD = 32  # features of an attention head
GATE = 0.1  # scale of the first weights of what gates the blocks: each begins near the identity


@spec
class DiT:
    """A transformer over patches."""

    kind: Annotated[Literal["dit"], tyro.conf.Suppress] = "dit"
    width: Annotated[int, Field(gt=0, multiple_of=HEAD)] = 128
    """Features of a token, a multiple of 32."""
    depth: PositiveInt = 6
    """Blocks."""
    patch: PositiveInt | None = None
    """Side of the pixel patches that become tokens (default: what makes at most 8 by 8 of them)."""

    def denoiser(self, shape: ImageShape, classes: int = 0) -> "DiTDenoiser":
        """A network from images (B, C, H, W), times (B,) in [0, 1] and classes (B,) to images (B, C, H, W)."""
        return DiTDenoiser(self, shape, classes)

    def check(self, shape: ImageShape) -> None:
        """Errors: `ConfigError` for images that it takes no noise off."""
        check_sides(f"the {self.kind} network", shape)


class DiTDenoiser(nn.Module):
    """See `DiT`."""

    positions: Tensor

    def __init__(self, config: DiT, shape: ImageShape, classes: int) -> None:
        super().__init__()
        self.patch = config.patch or patch_for(shape, tokens=8)
        self.rows, self.columns = ceil(shape.height / self.patch), ceil(shape.width / self.patch)
        pixels, width = shape.channels * self.patch**2, config.width
        self.condition = Condition(width, width, classes)
        self.first = nn.Linear(pixels, width)
        self.register_buffer("positions", positions(self.rows, self.columns, width), persistent=False)  # (T, F)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.depth))
        self.modulation = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, pixels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        gates = [
            self.modulation,
            self.last,
            *(module.modulation for module in self.modules() if isinstance(module, Block)),
        ]
        with torch.no_grad():
            for gate in gates:
                gate.weight.mul_(GATE)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % self.patch, 0, -height % self.patch))
        tokens = F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)  # (B, T, C * p * p)
        condition = F.silu(self.condition(t, y))  # (B, E)
        tokens = self.first(tokens) + self.positions
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=2)
        tokens = self.last(modulate(tokens, shift, scale))
        x = tokens.transpose(1, 2).unflatten(2, (self.rows, self.columns))
        return F.pixel_shuffle(x, self.patch)[:, :, :height, :width].contiguous()


class Block(nn.Module):
    """Attention, then two fully connected layers, each normalised, modulated and gated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, dim=2)  # (B, 1, F)
        x = x + gate * self.attend(modulate(x, shift, scale))
        return x + gate2 * self.narrow(F.gelu(self.wide(modulate(x, shift2, scale2)), approximate="tanh"))

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (-1, HEAD)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise each token, then scale and shift it."""
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Where each token of a grid stands, as sinusoidal embeddings of its row and column: (rows * columns, width)."""
    of_rows = sinusoidal((torch.arange(rows) + 1) / TIME_SCALE, width // 2)
    of_columns = sinusoidal((torch.arange(columns) + 1) / TIME_SCALE, width // 2)
    grid = torch.cat(
        [of_rows[:, None].expand(-1, columns, -1), of_columns[None].expand(rows, -1, -1)],
        dim=2,
    )
    return grid.flatten(0, 1)
