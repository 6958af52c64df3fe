"""More images of rare classes: a model that knows the classes draws them, stated filters choose among them.

    fabulate augment path/to/images --out runs/more        # writes real, synthetic and test images apart, with a record
    fabulate prove path/to/images runs/more                # and this says whether they help

    from fabulate import GenerativeOverSampler             # the same as a step of an imbalanced-learn pipeline
    x, y = GenerativeOverSampler(image_shape=(1, 28, 28)).fit_resample(x, y)

    from fabulate.uses.augment import prove, verdict
    proof = prove(real, synthetic, test, classes)          # eight ways to train one classifier
    proof.difference("both", "balanced").value             # with its interval
    verdict(proof).sentences                               # "Synthetic images did not help here" among them

The cut that keeps a proof honest is in `folder`, what is kept of samples in `filters`.
"""

from fabulate.uses.augment.folder import Augmented, read, splits
from fabulate.uses.augment.page import prove_folder, verdict
from fabulate.uses.augment.pipeline import augment
from fabulate.uses.augment.proof import FREE, NAMES, Proof, prove

__all__ = ["FREE", "NAMES", "Augmented", "Proof", "augment", "prove", "prove_folder", "read", "splits", "verdict"]
