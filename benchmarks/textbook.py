"""The tutorial's own scripts, as people run them: python benchmarks/textbook.py ae|vae|gan IMAGES.npz [EPOCHS]

An autoencoder, a VAE and a GAN on MNIST with PyTorch and nothing else, each image turned into a tensor by itself, as
torchvision's MNIST and ToTensor do: an array becomes a PIL image, the image an array again, and that a float tensor. No
line of fabulate is used. Prints JSON: images per second of training, seconds of the training, and the last loss.
"""

import json
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset


class MNIST(Dataset):
    """torchvision.datasets.MNIST (0.29) with transforms.ToTensor(), in its own steps, without its checks."""

    def __init__(self, x, y):
        self.data, self.targets = torch.from_numpy(x), torch.from_numpy(y)  # (N, 28, 28) uint8, (N,) int64

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        image, target = self.data[index], int(self.targets[index])
        image = Image.fromarray(image.numpy())
        types = {"I": np.int32, "I;16": np.int16, "F": np.float32}
        tensor = torch.from_numpy(np.array(image, types.get(image.mode, np.uint8), copy=True))
        tensor = tensor.view(image.size[1], image.size[0], len(image.getbands()))
        tensor = tensor.permute((2, 0, 1)).contiguous()
        if isinstance(tensor, torch.ByteTensor):
            return tensor.to(dtype=torch.get_default_dtype()).div(255), target
        return tensor, target


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64))
        self.decoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 784), nn.Sigmoid())

    def forward(self, x):
        return self.decoder(self.encoder(x))


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(784, 128)
        self.mu, self.logvar = nn.Linear(128, 64), nn.Linear(128, 64)
        self.decoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 784), nn.Sigmoid())

    def forward(self, x):
        h = torch.relu(self.hidden(x))
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decoder(z), mu, logvar


def ae(loader, epochs):
    model = Autoencoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        total = 0.0
        for images, _ in loader:
            x = images.view(-1, 784)
            loss = F.mse_loss(model(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / len(loader)


def vae(loader, epochs):
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        total = 0.0
        for images, _ in loader:
            x = images.view(-1, 784)
            copy, mu, logvar = model(x)
            bce = F.binary_cross_entropy(copy, x, reduction="sum")
            kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
            loss = (bce + kl) / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / len(loader)


def gan(loader, epochs):
    generator = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 784), nn.Tanh())
    discriminator = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 1), nn.Sigmoid())
    criterion = nn.BCELoss()
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
    for _ in range(epochs):
        total = 0.0
        for images, _ in loader:
            real = images.view(-1, 784) * 2 - 1
            ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
            fake = generator(torch.randn(len(real), 64))
            d_loss = criterion(discriminator(real), ones) + criterion(discriminator(fake.detach()), zeros)
            d_optimizer.zero_grad()
            d_loss.backward()
            d_optimizer.step()
            g_loss = criterion(discriminator(generator(torch.randn(len(real), 64))), ones)
            g_optimizer.zero_grad()
            g_loss.backward()
            g_optimizer.step()
            total += d_loss.item()
    return total / len(loader)


if __name__ == "__main__":
    family, path, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10
    arrays = np.load(path)
    loader = DataLoader(MNIST(arrays["x"], arrays["y"]), batch_size=128, shuffle=True)
    began = time.perf_counter()
    loss = {"ae": ae, "vae": vae, "gan": gan}[family](loader, epochs)
    seconds = time.perf_counter() - began
    images = epochs * len(loader.dataset) / seconds
    print(json.dumps({"images_per_second": images, "seconds": seconds, "loss": loss}))
