"""Spaces: what a flow works on. It learns p(u) of u = E(x), and an image is D(u).

In `pixels` u is the image, as it is up to 32 pixels a side unless another is asked for. In `pca` (`pca.py`) u holds the
principal components of the image's patches, in `vae` (`vae.py`) the latents of an autoencoder that is trained in the
first part of the same run. docs/LOG.md has the race.
"""

from typing import Annotated, Any

from pydantic import Field

from fabulate.models.spaces.base import Pixels, PixelSpace, Space
from fabulate.models.spaces.pca import PCA, PCASpace
from fabulate.models.spaces.vae import VAE, LatentSpace
from fabulate.nets import Auto
from fabulate.types import ImageShape

__all__ = ["PCA", "SPACES", "VAE", "LatentSpace", "PCASpace", "PixelSpace", "Pixels", "Space", "SpaceOrAuto"]
__all__ += ["reason", "space_for"]

LARGEST_PLAIN = 32  # pixels a side up to which images are worked on as they are

SpaceOrAuto = Annotated[Auto | Pixels | PCA | VAE, Field(discriminator="kind")]
SPACES: dict[str, type[Any]] = {cls().kind: cls for cls in (Pixels, PCA, VAE)}


def space_for(space: Auto | Pixels | PCA | VAE, image: ImageShape) -> Pixels | PCA | VAE:
    """The space as it is, or the one that suits images of a shape.

    >>> space_for(Auto(), ImageShape(3, 32, 32)).kind, space_for(Auto(), ImageShape(3, 64, 48)).kind
    ('pixels', 'pca')
    """
    if not isinstance(space, Auto):
        return space
    return Pixels() if max(image.height, image.width) <= LARGEST_PLAIN else PCA()


def reason(image: ImageShape) -> str:
    """Why images of a shape got the space that they got, in words."""
    if max(image.height, image.width) <= LARGEST_PLAIN:
        return f"{image}: up to {LARGEST_PLAIN} pixels a side nothing is gained by another"
    return f"{image}: above {LARGEST_PLAIN} pixels a side a network is further in the same time; or --space pixels"
