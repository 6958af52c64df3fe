"""Training: the loop, the run folder, checkpoints, guards, and what people see meanwhile."""

from fabulate.processes import launch
from fabulate.signals import InterruptedTraining
from fabulate.training.devices import pick_device
from fabulate.training.folder import is_run, load, own_data, read_config, read_log, recorded
from fabulate.training.progress import scalars, summary_writer
from fabulate.training.session import best_samples
from fabulate.training.train import choices, configure, default_out, finish, fit, run, steps, train

__all__ = [
    "InterruptedTraining",
    "best_samples",
    "choices",
    "configure",
    "default_out",
    "finish",
    "fit",
    "is_run",
    "launch",
    "load",
    "own_data",
    "pick_device",
    "read_config",
    "read_log",
    "recorded",
    "run",
    "scalars",
    "steps",
    "summary_writer",
    "train",
]
