"""A family is an `nn.Module`: use it in a training loop of your own, without fabulate's.

python examples/own_loop.py
"""

import torch

import fabulate
from fabulate.types import Batch


def main(steps: int = 300) -> float:
    torch.manual_seed(0)
    data = fabulate.load_data("digits")
    images = fabulate.to_float(torch.from_numpy(data.train.x))  # (1618, 1, 8, 8) in [-1, 1]

    family = fabulate.family("vae")
    model = family(family.Config(latent_dim=8, beta=0.5), data.shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    for step in range(steps):
        x = images[torch.randint(len(images), (64,))]
        terms = model.loss(Batch(x))  # {"loss": ..., "reconstruction": ..., "kl": ..., "active_units": ...}
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: " + ", ".join(f"{name} {float(value.detach()):.2f}" for name, value in terms.items()))

    model.fit_latents(data.train)  # fits what is fitted last: the mixture that codes are drawn from
    print(f"samples: {tuple(model.sample(16).shape)}")
    return float(terms["loss"].detach())


if __name__ == "__main__":
    main()
