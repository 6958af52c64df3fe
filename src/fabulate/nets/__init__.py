"""Networks: shapes in, shapes out. No loss, no data, no device.

A network is chosen by its kind. Its spec makes modules for any image shape and number of classes: a `Network` encoders
and decoders, between images and vectors; a `Backbone` denoisers, from an image and a time to an image.
"""

from typing import Annotated, get_args

from pydantic import Field

from fabulate.nets.conv import Conv
from fabulate.nets.dit import DiT
from fabulate.nets.mlp import MLP
from fabulate.nets.unet import UNet

Network = Annotated[MLP | Conv, Field(discriminator="kind")]
Backbone = Annotated[UNet | DiT, Field(discriminator="kind")]

NETWORKS: dict[str, type[MLP] | type[Conv] | type[UNet] | type[DiT]] = {
    cls().kind: cls for union in (Network, Backbone) for cls in get_args(get_args(union)[0])
}

__all__ = ["MLP", "NETWORKS", "Backbone", "Conv", "DiT", "Network", "UNet"]
