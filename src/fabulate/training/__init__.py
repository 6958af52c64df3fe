"""Training: the loop, the run folder, checkpoints, guards, and what people see meanwhile."""

from fabulate.processes import launch
from fabulate.signals import InterruptedTraining
from fabulate.training.devices import pick_device
from fabulate.training.folder import is_run, load, own_data, read_config, read_log
from fabulate.training.session import best_look
from fabulate.training.train import choices, configure, default_out, run, train

__all__ = [
    "InterruptedTraining",
    "best_look",
    "choices",
    "configure",
    "default_out",
    "is_run",
    "launch",
    "load",
    "own_data",
    "pick_device",
    "read_config",
    "read_log",
    "run",
    "train",
]
