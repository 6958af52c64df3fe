"""The media, one file each, by the names that shapes have for them.

`medium(shape)` gives the object that reads, writes and shows items of a shape.
"""

from fabulate.data.media.base import Heard, Medium
from fabulate.data.media.chords import ChordMedium
from fabulate.data.media.images import ImageMedium
from fabulate.data.media.texts import TextMedium
from fabulate.data.media.tunes import TuneMedium
from fabulate.types import Shape

__all__ = ["MEDIA", "Heard", "Medium", "by_ending", "medium"]

MEDIA: dict[str, Medium] = {its.name: its for its in (ImageMedium(), TuneMedium(), ChordMedium(), TextMedium())}


def medium(shape: Shape) -> Medium:
    """The medium of a shape."""
    return MEDIA[shape.medium]


def by_ending(ending: str) -> Medium:
    """The medium whose samples are files with this ending. Errors: `StopIteration` where none is."""
    return next(its for its in MEDIA.values() if its.ending == ending)
