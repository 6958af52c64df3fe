"""Metrics: tensors in, numbers out."""

from fabulate.metrics.shares import class_shares, nearest

__all__ = ["class_shares", "nearest"]
