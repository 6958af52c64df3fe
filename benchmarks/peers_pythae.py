"""The VAE and the GAN here and in pythae; `python benchmarks/peers.py` runs this where pythae is installed.

The tutorial's models (docs/tutorial.md): equal networks, losses, batches and epochs, Adam at 1e-3, MNIST. Each in its
own trainer: `fabulate.train`, and pythae's BaseTrainer and AdversarialTrainer. Both are given images that are in
memory: ours as bytes, theirs as the floats that it takes.

Two rows for each. "steps": seconds in the steps alone, by our log; theirs are all of `trainer.train()`, which besides
the steps copies the model after an epoch and saves it once. "all": the whole call of `fabulate.train`, which besides
the steps tests, draws pictures, keeps checkpoints and writes the model; theirs with the making of the trainer.

pythae has no plain GAN. Its trainer for two players takes any model that gives two losses, so the tutorial's GAN is
written for it here, as its user would have to, with fresh noise for each player. Its trainer has both losses computed
before either player moves; ours moves the discriminator first, as the tutorial does.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, BaseAEConfig, VAEConfig
from pythae.models.base import BaseAE
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import AdversarialTrainer, AdversarialTrainerConfig, BaseTrainer, BaseTrainerConfig
from torch import nn

import fabulate
from fabulate.training import read_log

BATCH = 128


class Encoder(BaseEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.mu, self.logvar = nn.Linear(784, 128), nn.Linear(128, 64), nn.Linear(128, 64)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        h = torch.relu(self.hidden(x.flatten(1)))
        return ModelOutput(embedding=self.mu(h), log_covariance=self.logvar(h))


class Decoder(BaseDecoder):
    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 784), last)

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z).view(-1, 1, 28, 28))


class GAN(BaseAE):
    """The tutorial's GAN as a model of pythae: the generator is its decoder, and nothing is encoded."""

    def __init__(self) -> None:
        super().__init__(BaseAEConfig(input_dim=(1, 28, 28), latent_dim=64), decoder=Decoder(nn.Tanh()))
        self.model_name = "GAN"
        self.model_config.uses_default_encoder = True
        self.encoder = nn.Identity()
        self.discriminator = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 1), nn.Sigmoid())

    def forward(self, inputs: Any, **kwargs: Any) -> ModelOutput:
        real = 2 * inputs["data"] - 1
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)

        def generated() -> torch.Tensor:
            return self.decoder(torch.randn(len(real), 64)).reconstruction

        def judged(images: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return F.binary_cross_entropy(self.discriminator(images.flatten(1)), label)

        fake = generated()
        fools = judged(fake, ones)
        catches = judged(real, ones) + judged(generated().detach(), zeros)
        return ModelOutput(
            loss=fools + catches, autoencoder_loss=fools, discriminator_loss=catches, recon_loss=fools, recon_x=fake
        )


def theirs_vae(dataset: BaseDataset, epochs: int, folder: str) -> BaseTrainer:
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=64, reconstruction_loss="bce")
    training = BaseTrainerConfig(
        output_dir=folder, per_device_train_batch_size=BATCH, num_epochs=epochs, learning_rate=1e-3
    )
    return BaseTrainer(VAE(config, Encoder(), Decoder(nn.Sigmoid())), dataset, training_config=training)


def theirs_gan(dataset: BaseDataset, epochs: int, folder: str) -> AdversarialTrainer:
    training = AdversarialTrainerConfig(
        output_dir=folder,
        per_device_train_batch_size=BATCH,
        num_epochs=epochs,
        autoencoder_learning_rate=1e-3,
        discriminator_learning_rate=1e-3,
    )
    return AdversarialTrainer(GAN(), dataset, training_config=training)


def pair(
    name: str, make: Callable[..., Any], data: Any, dataset: BaseDataset, epochs: int
) -> list[tuple[float, float]]:
    """Seconds, theirs and ours: of the steps, and of all."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        trainer = make(dataset, epochs, folder)
        ready = time.perf_counter()
        trainer.train()
        ended = time.perf_counter()
        out = Path(folder) / "ours"
        fabulate.train(name, data, preset="tutorial", epochs=epochs, out=out, quiet=True)
        return [
            (ended - ready, read_log(out)[-1]["seconds"]),
            (ended - began, time.perf_counter() - ended),
        ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    logging.disable(logging.INFO)
    repeats, epochs = (2, 2) if flags.quick else (3, 10)
    data = fabulate.load_data("mnist")
    x = torch.from_numpy(data.train.x).float() / 255
    dataset = BaseDataset(x, torch.ones(len(x)))
    images = epochs * len(x)
    rows = []
    for name, make in (("vae", theirs_vae), ("gan", theirs_gan)):
        pairs = [pair(name, make, data, dataset, epochs) for _ in range(repeats)]
        for i, part in enumerate(("steps", "all")):
            seconds = [measured[i] for measured in pairs]
            speeds = {side: [images / each[j] for each in seconds] for j, side in enumerate(("theirs", "ours"))}
            rows.append({"what": f"train {name}, {part}", **speeds})
    notes = [f"Tutorial models, {epochs} epochs of MNIST. pythae has no plain GAN: the tutorial's, in its trainer."]
    flags.out.write_text(json.dumps({"peer": f"pythae {version('pythae')}", "rows": rows, "notes": notes}))


if __name__ == "__main__":
    main()
