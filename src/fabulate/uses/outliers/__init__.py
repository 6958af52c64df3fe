"""Which of these do not belong? Detectors that learn normals only, and promise a rate of false alarms.

    from fabulate import OutlierDetector

    detector = OutlierDetector(false_alarm=0.01).fit(normals)       # images (N, C, H, W) or rows (N, D)
    detector.score_samples(others)                                  # higher = more normal
    detector.predict(others)                                        # -1 outlier, 1 normal
    detector.false_alarm_                                           # the rate to expect, with its interval
    detector.heat_maps(others)                                      # where an image is strange

What there is to score by stands in `scores`; how scores become p-values and a threshold in `conformal`.
"""

from fabulate.uses.outliers.detector import OutlierDetector
from fabulate.uses.outliers.ranking import run
from fabulate.uses.outliers.saving import load_detector, save_detector
from fabulate.uses.outliers.scores import SCORES

__all__ = ["SCORES", "OutlierDetector", "load_detector", "run", "save_detector"]
