"""What a generative model is, what it can do, and the families: one file each in `models/families/`."""

from fabulate.models.base import GenerativeModel
from fabulate.models.families import family, names

__all__ = ["GenerativeModel", "family", "names"]
