"""What goes wrong for users: each error says what was wrong, what was given and what to do."""


class FabulateError(ValueError):
    """An error in what the user gave; the command line prints it as one clear line, without a traceback."""


class DataError(FabulateError):
    """A source that cannot be read, or images that cannot be trained on as they are."""


class MixedSizesError(DataError):
    """Images of several sizes and no size to bring them to; `size` is one that would suit them."""

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class ConfigError(FabulateError):
    """A hyperparameter, a label or a name that does not fit."""


class CapabilityError(FabulateError):
    """Something was asked of a model that its family cannot do."""


class RunError(FabulateError):
    """A run folder or a model folder that cannot be written, read or continued."""


class DivergedError(FabulateError):
    """Training met a loss or a gradient that is not finite; nothing was updated with it."""
