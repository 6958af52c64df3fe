"""Networks: shapes in, shapes out. No loss, no data, no device.

A network is chosen by its kind. Its spec makes modules for any image shape and number of classes: a `Network` encoders
and decoders, between images and vectors, and says whether it works on each image by itself (`per_sample`), or in
training on the whole batch; a `Backbone` denoisers, from an image and a time to an image. `Projected` is for GANs:
its encoder is a critic of many judges. `GRU` is for sequences of symbols, between them and vectors.

`Auto` stands where the images are to choose. Fully connected layers know nothing of which pixels lie side by side and
must learn it, from many images, with weights for each pixel. Small gray images leave them little to learn, and they are
the fastest there. Above that convolutions, which know it, are better after the same time on every kind of image that
was tried; docs/LOG.md has the race. The choice is made as a model is made; its hyperparameters then name the network.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import tyro
from pydantic import Field

from fabulate.config import spec
from fabulate.nets.blocks import SMALLEST_SIDE
from fabulate.nets.conv import Conv
from fabulate.nets.dcgan import DCGAN
from fabulate.nets.dit import DiT
from fabulate.nets.gru import GRU
from fabulate.nets.mlp import MLP
from fabulate.nets.projected import Projected
from fabulate.nets.unet import UNet
from fabulate.types import ImageShape, SequenceShape

T = TypeVar("T")

LARGEST_SIMPLE = 16 * 16  # pixels of a gray image up to which fully connected layers are chosen


@spec
class Auto:
    """Chosen by the size of the images, which is told as the training begins."""

    kind: Annotated[Literal["auto"], tyro.conf.Suppress] = "auto"


Network = Annotated[MLP | Conv | DCGAN, Field(discriminator="kind")]
NetworkOrAuto = Annotated[Auto | MLP | Conv | DCGAN, Field(discriminator="kind")]
CodesOrAuto = Annotated[Auto | MLP | Conv | DCGAN | GRU, Field(discriminator="kind")]
GameOrAuto = Annotated[Auto | MLP | Conv | DCGAN | Projected, Field(discriminator="kind")]
Backbone = Annotated[UNet | DiT | MLP, Field(discriminator="kind")]

NETWORKS: dict[str, type[Any]] = {cls().kind: cls for cls in (UNet, DiT, MLP, Conv, DCGAN, Projected)}  # of images

__all__ = ["DCGAN", "GRU", "MLP", "NETWORKS", "Auto", "Backbone", "CodesOrAuto", "Conv", "DiT", "GameOrAuto", "Network"]
__all__ += ["NetworkOrAuto", "Projected", "UNet", "network_for", "reason"]


def simple(shape: ImageShape) -> bool:
    """Whether images are left to fully connected layers.

    >>> simple(ImageShape(1, 16, 16)), simple(ImageShape(1, 28, 28)), simple(ImageShape(3, 8, 8))
    (True, False, True)
    """
    return shape.size <= LARGEST_SIMPLE or min(shape.height, shape.width) < SMALLEST_SIDE


def network_for(network: Auto | T, shape: ImageShape, networks: Mapping[str, T]) -> T:
    """The network as it is, or the one of `networks`, by kind, that suits the images."""
    if not isinstance(network, Auto):
        return network
    return networks["mlp" if simple(shape) else "conv"]


def reason(shape: ImageShape | SequenceShape) -> str:
    """Why the items got the network that they got, in words."""
    if isinstance(shape, SequenceShape):
        return f"{shape}: recurrent layers read sequences of any length"
    if shape.size <= LARGEST_SIMPLE:
        return f"{shape}: fully connected layers are the fastest up to 16x16 gray"
    if simple(shape):
        return f"{shape}: convolutions need sides of {SMALLEST_SIDE} or more"
    return f"{shape}: fully connected layers blur images above 16x16 gray; --network mlp to have them"
