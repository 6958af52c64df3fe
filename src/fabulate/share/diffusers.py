"""Diffusion models as folders of diffusers, so that its pipelines sample what was trained here.

A pipeline folder holds a network (`UNet2DModel`) and a scheduler: the discrete path, as betas, and what the network
predicts. Our U-Net computes what diffusers' does and names its parts alike, so the weights are copied key by key; our
times of the steps i = 0..999 are (i + 1) / 1001. Nothing here needs diffusers: a folder is JSON and safetensors.

https://huggingface.co/docs/diffusers/api/pipelines/ddpm
"""

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors

from fabulate.errors import ConfigError
from fabulate.files import vacant_folder, write_file, write_json
from fabulate.models import GenerativeModel
from fabulate.models.families.flow import Flow
from fabulate.models.spaces import Pixels
from fabulate.nets import UNet
from fabulate.nets.unet import GROUPS, HEAD, UNetDenoiser
from fabulate.paths import PATHS, STEPS

PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x": "sample"}  # our targets in diffusers' words
TRAIN_SO = "train it with --preset diffusers"
WEIGHTS = "diffusion_pytorch_model.safetensors"
OURS = "fabulate.json"  # what diffusers has no place for: the path that the betas are of, and the classes' names


def to_diffusers(model: GenerativeModel, folder: str | Path, overwrite: bool = False) -> Path:
    """Write a flow model as a folder that diffusers' DDPM, DDIM and DPMSolver pipelines load.

    Its path must be variance-preserving (cosine, ddpm), its target eps, v or x, its network a U-Net with patch 1 on
    images whose sides its scales halve evenly. A conditional model's network takes `class_labels`, with the number of
    classes for "any"; diffusers' own pipelines give none, so it is for use in loops of one's own.

    Errors: `ConfigError` naming what does not fit and how to train a model that does; `RunError` when the folder
    holds something, unless told to overwrite.
    """
    folder = Path(folder)
    network = _network(model)
    assert isinstance(model, Flow) and isinstance(model.network, UNetDenoiser)
    vacant_folder(folder, overwrite)
    names = {"down": [], "up": []}  # type: dict[str, list[str]]
    for attends in model.network.attends:
        names["down"].append("AttnDownBlock2D" if attends else "DownBlock2D")
        names["up"].insert(0, "AttnUpBlock2D" if attends else "UpBlock2D")
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler").mkdir(exist_ok=True)
    write_json(
        folder / "unet" / "config.json",
        {
            "_class_name": "UNet2DModel",
            "sample_size": [model.shape.height, model.shape.width],
            "in_channels": model.shape.channels,
            "out_channels": model.shape.channels,
            "down_block_types": names["down"],
            "up_block_types": names["up"],
            "block_out_channels": network.widths(model.shape),
            "layers_per_block": network.blocks,
            "norm_num_groups": GROUPS,
            "attention_head_dim": HEAD,
            "num_class_embeds": len(model.classes) + 1 if model.classes else None,
        },
    )
    state = {
        name.removeprefix("condition."): value.detach().cpu().contiguous()
        for name, value in model.network.state_dict().items()
    }
    data = save_safetensors(state, metadata={"format": "pt"})
    write_file(folder / "unet" / WEIGHTS, lambda file: file.write(data))
    write_json(
        folder / "scheduler" / "scheduler_config.json",
        {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": STEPS,
            "trained_betas": betas(model.config.path),
            "prediction_type": PREDICTIONS[model.config.target],
            "clip_sample": False,
            "timestep_spacing": "trailing",
        },
    )
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "DDPMPipeline",
            "unet": ["diffusers", "UNet2DModel"],
            "scheduler": ["diffusers", "DDPMScheduler"],
        },
    )
    write_json(folder / OURS, {"path": model.config.path, "classes": list(model.classes)})
    return folder


def _network(model: GenerativeModel) -> UNet:
    """The U-Net of a model that diffusers can run."""
    if not isinstance(model, Flow):
        raise ConfigError(f"diffusers runs diffusion models, and this is a {model.family}; train a flow")
    config, shape = model.config, model.shape
    if config.path == "linear" or config.target not in PREDICTIONS:
        raise ConfigError(
            f"diffusers' schedulers know the paths cosine and ddpm with the targets eps, v and x; this model has the "
            f"path {config.path} with the target {config.target}; {TRAIN_SO}"
        )
    if not isinstance(config.network, UNet) or config.network.patch_of(shape) != 1:
        patch = f" with patch {config.network.patch_of(shape)}" if isinstance(config.network, UNet) else ""
        raise ConfigError(
            f"diffusers' UNet2DModel is a unet with patch 1, and this is a {config.network.kind}{patch}; {TRAIN_SO}"
        )
    if not isinstance(config.space, Pixels):
        raise ConfigError(f"diffusers' pipelines work on pixels, and this flow on {config.space.kind}; {TRAIN_SO}")
    halvings = 2 ** (len(config.network.widths(shape)) - 1)
    if shape.height % halvings or shape.width % halvings:
        raise ConfigError(
            f"UNet2DModel needs sides that are multiples of {halvings}, and the images are {shape}; use --size"
        )
    return config.network


def betas(path: str) -> list[float]:
    """The path in DDPM's words: beta_i = 1 - (alpha_i / alpha_(i-1))^2 of its 1,000 steps, from alpha = 1."""
    times = torch.arange(STEPS + 1, dtype=torch.float64) / (STEPS + 1)  # 0, then the times of the steps
    kept = PATHS[path].level(times).alpha.square().tolist()
    return [1 - after / before for before, after in pairwise(kept)]
