"""Features: fixed maps from images to the vectors in which they are compared."""

from fabulate.features.base import Features

__all__ = ["Features"]
