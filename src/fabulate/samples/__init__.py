"""Samples: drawn by number, written to disk, and parts of many machines joined.

Sample i of a seed is the same in any batch and on any machine of a kind. So forty machines share four million images
without knowing of each other: each draws a part (`--start 300000 -n 100000`), and `join` puts the parts together once
it has seen that none is missing, overlapping, or drawn by another model.
"""

from fabulate.samples.order import ENOUGH_CALLS, Order, Places, faster
from fabulate.samples.writing import Manifest, join, write_npz, write_samples

__all__ = ["ENOUGH_CALLS", "Manifest", "Order", "Places", "faster", "join", "write_npz", "write_samples"]
