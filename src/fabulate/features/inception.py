"""The Inception-v3 of published Fréchet distances: 2,048 features of images enlarged to 299x299.

Numbers of papers were computed with one certain network, TensorFlow's of 2015-12-05, and compare only with its weights
and its ways (Heusel et al. 2017, https://arxiv.org/abs/1706.08500; Parmar et al. 2022, https://arxiv.org/abs/2104.11222,
measured what other ways do to them). It is not quite the paper's (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567):

* images are enlarged as TensorFlow 1 did it: pixel i of 299 lies at i * side / 299, not half a pixel further on;
* pixels are (p - 128) / 128; gray is repeated three times;
* average pools divide by the pixels inside the image only, and the last block's pool takes the maximum.

The network is a table. A block is paths side by side, whose results are put one after the other; a path is a row of
steps, each a convolution, a pool, or a fork: two convolutions of the same input. Names are those of the weights file,
which torch-fidelity converted (Obukhov et al. 2020, https://github.com/toshas/torch-fidelity).

Legend: N images, C H W image.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fabulate.data.cache import working_folder
from fabulate.errors import ConfigError
from fabulate.types import to_uint8

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SIDE = 299


class Conv(NamedTuple):
    """A convolution, a batch normalisation and a ReLU; padded to keep the size where the stride is 1."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


Pool = Callable[[Tensor], Tensor]
Steps = list["Conv | tuple[Conv, Conv] | Pool"]

AVERAGE: Pool = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
MAXIMUM: Pool = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
HALVE: Pool = partial(F.max_pool2d, kernel_size=3, stride=2)
SQUARE, WIDE, ROW, COLUMN = (3, 3), (5, 5), (1, 7), (7, 1)


def chain(name: str, *layers: tuple[int, tuple[int, int]], stride: int = 1) -> Steps:
    """Convolutions NAME_1, NAME_2, ... of (channels, kernel); the stride is the last one's."""
    last = len(layers)
    return [Conv(f"{name}_{i}", *layer, stride if i == last else 1) for i, layer in enumerate(layers, 1)]


def block_a(pooled: int) -> list[Steps]:
    """35x35, small kernels."""
    return [
        [Conv("branch1x1", 64)],
        chain("branch5x5", (48, (1, 1)), (64, WIDE)),
        chain("branch3x3dbl", (64, (1, 1)), (96, SQUARE), (96, SQUARE)),
        [AVERAGE, Conv("branch_pool", pooled)],
    ]


def block_c(narrow: int) -> list[Steps]:
    """17x17, rows and columns of seven."""
    ends = (192, ROW)
    doubled = [(narrow, kernel) for kernel in ((1, 1), COLUMN, ROW, COLUMN)]
    return [
        [Conv("branch1x1", 192)],
        chain("branch7x7", (narrow, (1, 1)), (narrow, ROW), (192, COLUMN)),
        chain("branch7x7dbl", *doubled, ends),
        [AVERAGE, Conv("branch_pool", 192)],
    ]


def block_e(pool: Pool) -> list[Steps]:
    """8x8, forks into a row and a column of three."""
    forks = [
        (Conv(f"{name}a", 384, (1, 3)), Conv(f"{name}b", 384, (3, 1))) for name in ("branch3x3_2", "branch3x3dbl_3")
    ]
    return [
        [Conv("branch1x1", 320)],
        [Conv("branch3x3_1", 384), forks[0]],
        [*chain("branch3x3dbl", (448, (1, 1)), (384, SQUARE)), forks[1]],
        [pool, Conv("branch_pool", 192)],
    ]


BLOCKS: dict[str, list[Steps]] = {
    "Mixed_5b": block_a(32),
    "Mixed_5c": block_a(64),
    "Mixed_5d": block_a(64),
    "Mixed_6a": [
        [Conv("branch3x3", 384, SQUARE, 2)],
        chain("branch3x3dbl", (64, (1, 1)), (96, SQUARE), (96, SQUARE), stride=2),
        [HALVE],
    ],
    "Mixed_6b": block_c(128),
    "Mixed_6c": block_c(160),
    "Mixed_6d": block_c(160),
    "Mixed_6e": block_c(192),
    "Mixed_7a": [
        chain("branch3x3", (192, (1, 1)), (320, SQUARE), stride=2),
        chain("branch7x7x3", (192, (1, 1)), (192, ROW), (192, COLUMN), (192, SQUARE), stride=2),
        [HALVE],
    ],
    "Mixed_7b": block_e(AVERAGE),
    "Mixed_7c": block_e(MAXIMUM),
}


class ConvNorm(nn.Module):
    """relu(bn(conv(x)))."""

    def __init__(self, before: int, after: int, kernel: tuple[int, int], stride: int, padding: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Block(nn.Module):
    """Paths side by side; `channels` goes in, `self.channels` comes out."""

    def __init__(self, channels: int, paths: list[Steps]) -> None:
        super().__init__()
        self.paths, self.channels = paths, 0
        for path in paths:
            width = channels
            for step in path:
                convolutions = [step] if isinstance(step, Conv) else step if isinstance(step, tuple) else []
                for conv in convolutions:
                    padding = (conv.kernel[0] // 2, conv.kernel[1] // 2) if conv.stride == 1 else (0, 0)
                    self.add_module(conv.name, ConvNorm(width, conv.channels, conv.kernel, conv.stride, padding))
                width = sum(conv.channels for conv in convolutions) or width
            self.channels += width

    def forward(self, x: Tensor) -> Tensor:
        results = []
        for path in self.paths:
            y = x
            for step in path:
                if isinstance(step, Conv):
                    y = self.get_submodule(step.name)(y)
                elif isinstance(step, tuple):
                    y = torch.cat([self.get_submodule(conv.name)(y) for conv in step], 1)
                else:
                    y = step(y)
            results.append(y)
        return torch.cat(results, 1)


class Inception(nn.Module):
    """Images (N, 1 or 3, H, W), uint8 or floats in [-1, 1], of any size, to features (N, 2048).

    Floats are rounded to the 256 values of a pixel first, as images in files are.
    """

    dim = 2048

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, SQUARE, 2, (0, 0))  # 149x149
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, SQUARE, 1, (0, 0))  # 147x147
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, SQUARE, 1, (1, 1))
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, (1, 1), 1, (0, 0))  # 73x73, halved
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, SQUARE, 1, (0, 0))  # 71x71
        channels = 192  # 35x35, halved
        for name, paths in BLOCKS.items():
            block = Block(channels, paths)
            self.add_module(name, block)
            channels = block.channels
        assert channels == self.dim

    def forward(self, x: Tensor) -> Tensor:
        x = (enlarge(to_uint8(x).to(self.Conv2d_1a_3x3.conv.weight)) - 128) / 128
        x = x.expand(-1, 3, -1, -1)
        x = HALVE(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = HALVE(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def enlarge(x: Tensor) -> Tensor:
    """Images (N, C, H, W) to (N, C, 299, 299) as TensorFlow 1 did it, bilinear: pixel i lies at i * side / 299."""
    for dim in (3, 2):
        side = x.shape[dim]
        places = torch.arange(SIDE, device=x.device, dtype=torch.float32) * (side / SIDE)
        low = places.long()
        after = (places - low).to(x.dtype)[:, None] if dim == 2 else (places - low).to(x.dtype)
        first, second = x.index_select(dim, low), x.index_select(dim, (low + 1).clamp(max=side - 1))
        x = first + (second - first) * after
    return x


def inception(path: str | Path | None = None) -> Inception:
    """The network with the weights of a file, or of the one torch-fidelity published, downloaded into the cache once.

    Errors: `ConfigError` when they cannot be read or fetched, saying how to name a file.
    """
    network = Inception()
    state = _download() if path is None else _read(Path(path).expanduser())
    where = URL if path is None else path
    if not isinstance(state, dict):
        raise ConfigError(f"{where} is no file of weights: it holds a {type(state).__name__}, not a dictionary")
    weights = {
        name: value for name, value in state.items() if not str(name).startswith("fc.")
    }  # of the ImageNet classes
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reasons = str(error).splitlines()[1:3]
        raise ConfigError(
            f"{where} does not hold the weights of the Inception of Fréchet distances ({URL}): "
            + " ".join(reason.strip()[:200] for reason in reasons)
        ) from error
    return network.eval().requires_grad_(False)


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"no weights could be read at {path}: {reason}. Give the file of {URL} as inception:PATH"
        ) from error


def _download() -> Any:
    try:
        return torch.hub.load_state_dict_from_url(
            URL, str(working_folder("features")), map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        raise ConfigError(
            f"the weights of Inception could not be downloaded ({error}). Fetch {URL} on a machine that can, "
            "and name the file: inception:PATH"
        ) from error
