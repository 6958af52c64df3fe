"""Files that the data tests make: sound images of every mode, and one of each kind of bad file."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fabulate.data import Data, Report
from fabulate.data.report import rows


def pixels(seed: int, height: int = 8, width: int = 8, channels: int = 1) -> np.ndarray:
    """Random uint8 pixels (H, W) or (H, W, C)."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(seed: int, height: int = 8, width: int = 8, channels: int = 1) -> Image.Image:
    return Image.fromarray(pixels(seed, height, width, channels))


def save(image: Image.Image, path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def fill(folder: Path, n: int, *, first: int = 0, **shape: int) -> Path:
    """A folder of n different gray PNGs."""
    for i in range(first, first + n):
        save(picture(i, **shape), folder / f"{i:03}.png")
    return folder


def encoded(image: Image.Image, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format)
    return buffer.getvalue()


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of a few bytes whose header promises far too many pixels, and holds none."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def parquet(path: Path, images: list[bytes], labels: list[int], names: list[str] | None = None) -> Path:
    """A parquet file in the hub's layout: image as bytes and path, label as a class label with names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "image": [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(images)],
            "label": pa.array(labels, pa.int64()),
        }
    )
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


def notes(data: Data) -> str:
    """What the report says beside its numbers, a line each."""
    return "\n".join((*data.report.notes, *data.report.warnings))


def lines(report: Report) -> list[str]:
    """The report as plain lines of text."""
    return [f"{heading} {text}" for heading, text in rows(report)]
