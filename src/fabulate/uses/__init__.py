"""What samples and scores are good for: each use with a number that proves or refutes it."""

from fabulate.uses import rare

__all__ = ["rare"]
