"""fabulate: deep generative models for your own images.

    import fabulate

    data = fabulate.load_data("digits")                 # look at the images first: print(data.report)
    model = fabulate.train("vae", data, out="runs/vae", steps=2000)
    images = model.sample(64, seed=1)                   # (64, 1, 8, 8), floats in [-1, 1]
    model = fabulate.load("runs/vae")                   # tomorrow

Names are imported when they are first used, so that `import fabulate` is instant.
"""

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fabulate import metrics, stats
    from fabulate.data import Data, Images, load_data
    from fabulate.errors import FabulateError
    from fabulate.evaluation import compare, evaluate
    from fabulate.features import features_for
    from fabulate.models import GenerativeModel, family
    from fabulate.models.families import families
    from fabulate.samples import write_samples
    from fabulate.training import load, steps, train
    from fabulate.types import Batch, ImageShape, to_float, to_uint8
    from fabulate.uses import rare
    from fabulate.uses.augment.sampler import GenerativeOverSampler
    from fabulate.uses.debias import Debiaser
    from fabulate.uses.outliers import OutlierDetector

# Intel's mathematics library, which torch calls, rounds a product by where its factors lie in memory, unless it is told
# before its first product not to: one image of a batch would not be what it is alone, nor a run what it is repeated.
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = version("fabulate")

_HOMES = {
    "Batch": "types",
    "Data": "data",
    "Debiaser": "uses.debias",
    "FabulateError": "errors",
    "GenerativeModel": "models",
    "GenerativeOverSampler": "uses.augment.sampler",
    "ImageShape": "types",
    "Images": "data",
    "OutlierDetector": "uses.outliers",
    "compare": "evaluation",
    "evaluate": "evaluation",
    "families": "models.families",
    "family": "models",
    "features_for": "features",
    "load": "training",
    "load_data": "data",
    "steps": "training",
    "to_float": "types",
    "to_uint8": "types",
    "train": "training",
    "write_samples": "samples",
}
_ROOMS = {"metrics": "metrics", "rare": "uses.rare", "stats": "stats"}  # as they are: fabulate.metrics.psnr(...)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"fabulate.{_ROOMS[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module 'fabulate' has no attribute {name!r}")
    return getattr(import_module(f"fabulate.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_ROOMS])


__all__ = [
    "Batch",
    "Data",
    "Debiaser",
    "FabulateError",
    "GenerativeModel",
    "GenerativeOverSampler",
    "ImageShape",
    "Images",
    "OutlierDetector",
    "compare",
    "evaluate",
    "families",
    "family",
    "features_for",
    "load",
    "load_data",
    "metrics",
    "rare",
    "stats",
    "steps",
    "to_float",
    "to_uint8",
    "train",
    "write_samples",
]
