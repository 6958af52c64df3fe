"""Images held where the model is, so that a batch is gathered there and nothing travels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fabulate.data.images import Images
from fabulate.types import Batch, BatchSource


@dataclass(frozen=True, eq=False)
class Resident(BatchSource):
    """A `BatchSource` of images x, uint8 (N, C, H, W), and classes y, int64 (N,) or None, both on one device.

    >>> Resident(torch.zeros(10, 1, 8, 8, dtype=torch.uint8)).batch(torch.tensor([3, 1])).x.shape
    torch.Size([2, 1, 8, 8])
    """

    x: Tensor
    y: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def stored(self, indices: Tensor) -> Batch:
        """The images at `indices` (B,), on the device."""
        here = indices.to(self.x.device, non_blocking=True)
        return Batch(self.x.index_select(0, here), None if self.y is None else self.y.index_select(0, here))


def resident(images: BatchSource, device: torch.device) -> BatchSource:
    """The images on a GPU when they fit in half of its free memory; else, and on a CPU, as they are."""
    if device.type != "cuda" or type(images) is not Images:  # its subclasses read in ways of their own
        return images
    if images.x.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return images
    x, y = torch.tensor(images.x), None if images.y is None else torch.tensor(images.y)
    return Resident(x.to(device), None if y is None else y.to(device))
