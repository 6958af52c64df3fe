"""A model on disk: a folder with config.json, model.safetensors, samples.png and a model card; never a pickle.

`save_pretrained`, `from_pretrained` and `push_to_hub` come from huggingface_hub's mixin, so such a folder is also a
repository on the Hugging Face hub.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelHubMixin, hf_hub_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from fabulate.config import from_json, to_json
from fabulate.errors import RunError
from fabulate.files import read_json, write_file, write_json
from fabulate.types import ImageShape, to_uint8

CONFIG, WEIGHTS, CARD, PICTURE = "config.json", "model.safetensors", "README.md", "samples.png"
FORMAT = 1  # of the model folder; raised when a newer fabulate could misread an older folder


class Saved(ModelHubMixin, library_name="fabulate", tags=["image-generation", "generative-model"]):
    """Adds `save_pretrained`, `from_pretrained` and `push_to_hub` to a model."""

    def _save_pretrained(self, save_directory: Path) -> None:
        model: Any = self  # a GenerativeModel: this class is one of its bases
        from fabulate.pictures import grid, save_png

        state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        write_file(save_directory / WEIGHTS, lambda file: file.write(save_safetensors(state)))
        write_json(save_directory / CONFIG, description(model))
        save_png(grid(to_uint8(model.sample(64)).cpu().numpy(), columns=16), save_directory / PICTURE)
        write_file(save_directory / CARD, lambda file: file.write(card(model).encode()))

    def weights_hash(self) -> str:
        """The hexadecimal SHA-256 of all weights, in a fixed order: what a manifest names a model by."""
        model: Any = self  # a GenerativeModel: this class is one of its bases
        digest = hashlib.sha256()
        for name, value in sorted(model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """The model of a folder or of a hub repository (OWNER/NAME); called on `GenerativeModel`, of any family.

        Errors: `RunError` when there is no model or it is damaged, saying what was found.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunError(f"{pretrained_model_name_or_path}: {CONFIG} is damaged: {error}") from error
        except (OSError, HFValidationError) as error:
            raise RunError(
                f"no model could be read at {str(pretrained_model_name_or_path)!r}: {error}. "
                f"Give a run folder, a model folder ({CONFIG} and {WEIGHTS}) or the OWNER/NAME of a model on the hub"
            ) from error

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_: Any,
    ) -> Self:
        def find(name: str) -> Path:
            if Path(model_id).is_dir():
                return Path(model_id) / name
            return Path(
                hf_hub_download(
                    model_id,
                    name,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )

        return build(read_json(find(CONFIG)), find(WEIGHTS).read_bytes(), where=model_id, expected=cls)


def description(model: Any) -> dict[str, Any]:
    """What config.json says: enough to build the model again, and how it was trained."""
    return {
        "format": FORMAT,
        "family": model.family,
        "shape": list(model.shape),
        "classes": list(model.classes),
        "model": to_json(model.config),
        "record": model.record,
    }


def build(config: Mapping[str, Any], weights: bytes, where: str, expected: type[Any]) -> Any:
    """The model that a config.json and the bytes of a safetensors file describe.

    Errors: `RunError` when the folder is of a newer format, another family than `expected`, or damaged.
    """
    from fabulate.models import family

    if not isinstance(config, Mapping) or config.get("format") != FORMAT:
        raise RunError(f"{where} is not a model folder this version of fabulate reads (format {FORMAT} expected)")
    cls = family(config["family"])
    if not issubclass(cls, expected):
        raise RunError(f"{where} holds a model of the family {cls.family!r}, not {expected.family!r}")
    model = cls(from_json(cls.Config, config["model"]), ImageShape(*config["shape"]), config["classes"])
    try:
        model.load_state_dict(load_safetensors(weights))
    except (SafetensorError, RuntimeError) as error:
        raise RunError(f"{where}: {WEIGHTS} is damaged or of another model: {error}") from error
    model.record = dict(config["record"])
    return model.eval().requires_grad_(False)  # as training returns it: gradients asked for change the rounding


def card(model: Any) -> str:
    """The model card, README.md, in the hub's form: a picture, the numbers and how to use the model."""
    record = model.record
    data = record.get("data", "images of the author's own")
    kind = (type(model).__doc__ or model.family).split("(")[0].strip().rstrip(".")
    conditional = ", class-conditional" if model.classes else ""
    rows = [f"| {name} | {value:.5g} |" for name, value in record.get("test", {}).items()]
    numbers = ["", "Measured on test images it was not trained on:", "", "| | |", "|---|---|", *rows] if rows else []
    steps = f" for {record['steps']:,} steps" if "steps" in record else ""
    lines = [
        "---",
        "library_name: fabulate",
        "pipeline_tag: unconditional-image-generation",
        f"tags: [fabulate, {model.family}]",
        "---",
        "",
        f"# {model.family} on {data}",
        "",
        f"{kind}{conditional}, of {model.shape} images, trained on {data}{steps} with fabulate.",
        f"It has {sum(p.numel() for p in model.parameters()):,} parameters.",
        "",
        f"![64 samples, drawn with seed 0]({PICTURE})",
        *numbers,
        *(["", f"Classes: {', '.join(model.classes)}."] if model.classes else []),
        "",
        "```python",
        "import fabulate",
        "",
        'model = fabulate.load("path/to/this/folder")',
        f"images = model.sample(64{', y=' + repr(model.classes[0]) if model.classes else ''}, seed=1)  # (64, "
        f"{', '.join(map(str, model.shape))}), floats in [-1, 1]",
        "```",
        "",
        "```json",
        json.dumps(to_json(model.config), indent=2),
        "```",
        "",
    ]
    return "\n".join(lines)
