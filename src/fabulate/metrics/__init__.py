"""Metrics: tensors in, numbers out, each with an interval where chance has a say.

Images are compared by features (N, D), in float64. `fidelity` computes the seven numbers most asked for in one go.
"""

from fabulate.metrics.classes import balanced_accuracy, class_shares, effective_classes, modes, nearest, recalls
from fabulate.metrics.copies import Memorisation, authenticity, exact_copies, memorisation
from fabulate.metrics.distances import Moments, frechet_distance, frechet_interval, frechet_warning, kernel_distance
from fabulate.metrics.images import mse, psnr, ssim
from fabulate.metrics.intervals import Estimate, checked
from fabulate.metrics.latent import Smoothness, active_dimensions, active_units, smoothness
from fabulate.metrics.manifold import DensityCoverage, PrecisionRecall, density_coverage, fidelity, precision_recall
from fabulate.metrics.sliced import monge_distance

__all__ = [
    "DensityCoverage",
    "Estimate",
    "Memorisation",
    "Moments",
    "PrecisionRecall",
    "Smoothness",
    "active_dimensions",
    "active_units",
    "authenticity",
    "balanced_accuracy",
    "checked",
    "class_shares",
    "density_coverage",
    "effective_classes",
    "exact_copies",
    "fidelity",
    "frechet_distance",
    "frechet_interval",
    "frechet_warning",
    "kernel_distance",
    "memorisation",
    "modes",
    "monge_distance",
    "mse",
    "nearest",
    "precision_recall",
    "psnr",
    "recalls",
    "smoothness",
    "ssim",
]
