"""Networks: shapes in, shapes out. They know no loss, no data and no device.

A network is chosen by its spec (`MLP`, `Conv`, `DCGAN`), which builds an encoder (images to vectors) and a decoder
(vectors to images) for any image shape and number of classes, and says whether it sees each image alone, or in training
together with the others of its batch.
"""

from typing import Annotated, get_args

from pydantic import Field

from fabulate.nets.conv import Conv
from fabulate.nets.dcgan import DCGAN
from fabulate.nets.mlp import MLP

Network = Annotated[MLP | Conv | DCGAN, Field(discriminator="kind")]

NETWORKS: dict[str, type[MLP] | type[Conv] | type[DCGAN]] = {cls().kind: cls for cls in get_args(get_args(Network)[0])}

__all__ = ["DCGAN", "MLP", "NETWORKS", "Conv", "Network"]
