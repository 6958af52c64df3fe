"""The U-Net of diffusion models: image and time (and class) in, an image of the same shape out.

Down a few scales with residual blocks, up again with the features of the way down beside them, attention where the grid
is small (Ho, Jain, Abbeel 2020, https://arxiv.org/abs/2006.11239). A patch stem folds p x p pixels into channels
first, which makes the whole network about p^2 times cheaper: images of 28x28 are worked on as grids of 7x7.

Any size works: sides are filled up to whole patches, a grid of odd side n halves to (n + 1) / 2, and the way up
enlarges to the size that was there on the way down.

With patch 1 it computes what diffusers' `UNet2DModel` computes, and its parts bear the same names, so weights are
copied key by key.

Legend: B batch, C H W image, F features of the grid, E numbers that tell time and class, K classes.
"""

from math import ceil
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from fabulate.config import PositiveInt, spec
from fabulate.nets.blocks import Condition, check_sides, patch_for
from fabulate.types import ImageShape

GROUPS = 8  # of channels normalised together; every width is a multiple of it
HEAD = 8  # channels of an attention head, UNet2DModel's default
ATTENTION_SIDE = 8  # attention where the grid's shorter side is at most this
OUTPUT_SCALE = 0.1  # of the last layer's first weights: begin near the target's mean


@spec
class UNet:
    """A U-Net with attention on its small grids."""

    kind: Annotated[Literal["unet"], tyro.conf.Suppress] = "unet"
    width: Annotated[int, Field(gt=0, multiple_of=GROUPS)] | None = None
    """Features on the largest grid, a multiple of 8, twice as many on the smaller ones (default: 32 up to 16
    pixels, 64 above)."""
    blocks: PositiveInt = 1
    """Residual blocks on each grid on the way down (one more on the way up)."""
    patch: PositiveInt | None = None
    """Side of the pixel patches folded into features (default: what makes a grid of at most 8 by 8)."""

    def denoiser(self, shape: ImageShape, classes: int = 0) -> "UNetDenoiser":
        """A network from images (B, C, H, W), times (B,) in [0, 1] and classes (B,) to images (B, C, H, W)."""
        return UNetDenoiser(self, shape, classes)

    def check(self, shape: ImageShape) -> None:
        """Errors: `ConfigError` for images that it takes no noise off."""
        check_sides(f"the {self.kind} network", shape)

    def patch_of(self, shape: ImageShape) -> int:
        """The side of a patch on images of this shape."""
        return self.patch or patch_for(shape, tokens=8)

    def widths(self, shape: ImageShape) -> list[int]:
        """Features of each grid, from the largest: at least two grids, halved until a side is at most 8.

        >>> UNet().widths(ImageShape(1, 28, 28)), UNet(width=48, patch=1).widths(ImageShape(3, 32, 32))
        ([64, 128], [48, 96, 96])
        """
        small = max(shape.height, shape.width) <= 16 and shape.channels <= 4
        width = self.width or (32 if small else 64)
        side = ceil(min(shape.height, shape.width) / self.patch_of(shape))
        halvings = max(1, ceil(side / ATTENTION_SIDE - 1).bit_length())
        return [width, *[2 * width] * halvings]


class UNetDenoiser(nn.Module):
    """See `UNet`."""

    def __init__(self, config: UNet, shape: ImageShape, classes: int) -> None:
        super().__init__()
        self.patch = config.patch_of(shape)
        widths, blocks = config.widths(shape), config.blocks
        pixels = shape.channels * self.patch**2
        embedding = 4 * widths[0]
        side = ceil(min(shape.height, shape.width) / self.patch)
        self.attends = [ceil(side / 2**level) <= ATTENTION_SIDE for level in range(len(widths))]
        self.condition = Condition(widths[0], embedding, classes)
        self.conv_in = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        skips, before = [widths[0]], widths[0]  # features that wait for the way up
        for level, width in enumerate(widths):
            last = level == len(widths) - 1
            self.down_blocks.append(Down(before, width, embedding, blocks, self.attends[level], halve=not last))
            skips += [width] * (blocks + (not last))
            before = width
        self.mid_block = Middle(before, embedding)
        self.up_blocks = nn.ModuleList()
        for level, width in reversed([*enumerate(widths)]):
            beside = [skips.pop() for _ in range(blocks + 1)]
            self.up_blocks.append(Up(before, width, beside, embedding, self.attends[level], double=level > 0))
            before = width
        self.conv_norm_out = nn.GroupNorm(GROUPS, before)
        self.conv_out = nn.Conv2d(before, pixels, 3, padding=1)
        with torch.no_grad():
            self.conv_out.weight.mul_(OUTPUT_SCALE)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % self.patch, 0, -height % self.patch))
        condition = self.condition(t, y).to(x.dtype)  # (B, E)
        x = self.conv_in(F.pixel_unshuffle(x, self.patch))
        x = x.contiguous(memory_format=torch.channels_last)  # before it, one channel has no order to hand on
        skips = [x]
        for down in self.down_blocks:
            x = down(x, condition, skips)
        x = self.mid_block(x, condition)
        for up in self.up_blocks:
            x = up(x, condition, skips)
        x = self.conv_out(F.silu(self.conv_norm_out(x)))
        return F.pixel_shuffle(x, self.patch)[:, :, :height, :width].contiguous()


class Residual(nn.Module):
    """Two convolutions beside a shortcut; time and class are added between them."""

    def __init__(self, before: int, after: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, after)
        self.norm2 = nn.GroupNorm(GROUPS, after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, after, 1) if before != after else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(condition))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """Each place of the grid looks at all others (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(GROUPS, width)
        self.to_q, self.to_k, self.to_v = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        places = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, H * W, F)
        q, k, v = (to(places).unflatten(2, (-1, HEAD)).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v))
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.to_out[0](seen).transpose(1, 2).unflatten(2, x.shape[2:])


class Sampler(nn.Module):
    """One convolution that halves a grid, or smooths it after it was enlarged."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Down(nn.Module):
    """Residual blocks on one grid, then half of it."""

    def __init__(self, before: int, width: int, embedding: int, blocks: int, attends: bool, halve: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(width if i else before, width, embedding) for i in range(blocks))
        self.attentions = nn.ModuleList(Attention(width) for _ in range(blocks * attends))
        self.downsamplers = nn.ModuleList(Sampler(width, stride=2) for _ in range(halve))

    def forward(self, x: Tensor, condition: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, condition)
            x = self.attentions[i](x) if self.attentions else x
            skips.append(x)
        for downsampler in self.downsamplers:
            x = downsampler(x)
            skips.append(x)
        return x


class Middle(nn.Module):
    """On the smallest grid: residual, attention, residual."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(width, width, embedding) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(width)])

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x, condition)), condition)


class Up(nn.Module):
    """Residual blocks on one grid, each beside features of the way down; then a larger grid."""

    def __init__(self, before: int, width: int, beside: list[int], embedding: int, attends: bool, double: bool) -> None:
        super().__init__()
        inputs = [(width if i else before) + skip for i, skip in enumerate(beside)]
        self.resnets = nn.ModuleList(Residual(each, width, embedding) for each in inputs)
        self.attentions = nn.ModuleList(Attention(width) for _ in range(len(inputs) * attends))
        self.upsamplers = nn.ModuleList(Sampler(width, stride=1) for _ in range(double))

    def forward(self, x: Tensor, condition: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), condition)
            x = self.attentions[i](x) if self.attentions else x
        for upsampler in self.upsamplers:
            x = upsampler(F.interpolate(x, size=skips[-1].shape[2:]))
        return x
