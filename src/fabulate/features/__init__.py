"""Features: fixed maps from images to the vectors in which they are compared.

`features_for` chooses and makes them for a data set; `train_classifier` is the small classifier behind most of them.
"""

from fabulate.features.base import Features, NetworkFeatures
from fabulate.features.choose import ClassifierFeatures, features_for
from fabulate.features.trained import Classifier, accuracy, predict, train_classifier, train_encoder

__all__ = [
    "Classifier",
    "ClassifierFeatures",
    "Features",
    "NetworkFeatures",
    "accuracy",
    "features_for",
    "predict",
    "train_classifier",
    "train_encoder",
]
