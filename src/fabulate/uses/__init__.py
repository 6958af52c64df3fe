"""What samples and scores are good for: each use with a number that proves or refutes it."""

from fabulate.uses import outliers, rare
from fabulate.uses.outliers import OutlierDetector

__all__ = ["OutlierDetector", "outliers", "rare"]
