"""Networks: shapes in, shapes out. No loss, no data, no device.

A network is chosen by its kind. Its spec makes modules for any image shape and number of classes: a `Network` encoders
and decoders, between images and vectors, and says whether it sees each image alone, or in training together with the
others of its batch; a `Backbone` denoisers, from an image and a time to an image. `Auto` stands where the images are to
choose.
"""

from typing import Annotated, Any, get_args

from pydantic import Field

from fabulate.nets.choice import Auto
from fabulate.nets.conv import Conv
from fabulate.nets.dcgan import DCGAN
from fabulate.nets.dit import DiT
from fabulate.nets.mlp import MLP
from fabulate.nets.unet import UNet

Network = Annotated[MLP | Conv | DCGAN, Field(discriminator="kind")]
NetworkOrAuto = Annotated[Auto | MLP | Conv | DCGAN, Field(discriminator="kind")]
Backbone = Annotated[UNet | DiT, Field(discriminator="kind")]

NETWORKS: dict[str, type[Any]] = {
    cls().kind: cls for union in (Network, Backbone) for cls in get_args(get_args(union)[0])
}

__all__ = ["DCGAN", "MLP", "NETWORKS", "Auto", "Backbone", "Conv", "DiT", "Network", "NetworkOrAuto", "UNet"]
