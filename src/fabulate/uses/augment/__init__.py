"""More images of rare classes: a model that knows the classes draws them, a stated rule chooses among them.

    fabulate augment path/to/images --out runs/more        # writes real, synthetic and test images apart, with a record
    fabulate prove path/to/images runs/more                # and this says whether they help

    from fabulate import GenerativeOverSampler             # the same as a step of an imbalanced-learn pipeline
    x, y = GenerativeOverSampler(image_shape=(1, 28, 28)).fit_resample(x, y)

The cut that keeps a proof honest is in `split`, the rule in `rules`.
"""

from fabulate.uses.augment.folder import Augmented, read
from fabulate.uses.augment.make import augment

__all__ = ["Augmented", "augment", "read"]
