"""What goes wrong for users: each error says what was wrong, what was given and what to do."""

from typing import Any


class FabulateError(ValueError):
    """An error in what the user gave; the command line prints it as one clear line, without a traceback."""


class DataError(FabulateError):
    """A source that cannot be read, or images that cannot be trained on as they are."""


class UndecidedError(DataError):
    """Images that can be read in several ways, and nobody said in which; `options` are some that would suit them."""

    def __init__(self, message: str, **options: Any) -> None:
        super().__init__(message)
        self.options = options


class MixedSizesError(UndecidedError):
    """Images of several sizes and no size to bring them to."""


class DarkError(UndecidedError):
    """Images that would all be black, or nearly: their values are a small part of the range they are held in."""


class ConfigError(FabulateError):
    """A hyperparameter, a label or a name that does not fit."""


class CapabilityError(FabulateError):
    """Something was asked of a model that its family cannot do."""


class RunError(FabulateError):
    """A run folder or a model folder that cannot be written, read or continued."""


class DivergedError(FabulateError):
    """Training met a loss or a gradient that is not finite; nothing was updated with it."""
