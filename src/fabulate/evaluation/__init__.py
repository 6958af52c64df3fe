"""Evaluation: a run and real images in, a report out; several reports in, a comparison out."""

from fabulate.evaluation.compare import Comparison, compare
from fabulate.evaluation.evaluate import evaluate
from fabulate.evaluation.report import Report

__all__ = ["Comparison", "Report", "compare", "evaluate"]
