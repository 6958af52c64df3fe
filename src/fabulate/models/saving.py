"""A model on disk: a folder with config.json, model.safetensors, samples.png and a model card; never a pickle.

`save_pretrained`, `from_pretrained` and `push_to_hub` come from huggingface_hub's mixin, so such a folder is also a
repository on the Hugging Face hub.
"""

import json
import re
from html import escape
from pathlib import Path
from typing import Any, Literal, NotRequired, Self

import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from huggingface_hub.errors import HFValidationError
from pydantic import ConfigDict, with_config
from torch import Tensor
from typing_extensions import TypedDict

from fabulate.config import Channels, PositiveInt, from_json, to_json
from fabulate.errors import ConfigError, RunError
from fabulate.files import read_json, read_weights, tensors_hash, write_file, write_json, write_weights
from fabulate.types import Shape, shape_of

CONFIG, WEIGHTS, CARD, PICTURE = "config.json", "model.safetensors", "README.md", "samples.png"
FORMAT = 1  # of the model folder; raised when a newer fabulate could misread an older folder


@with_config(ConfigDict(extra="ignore"))
class Description(TypedDict):
    """A model folder's config.json: enough to build the model again, and how it was trained."""

    format: Literal[1]
    family: str
    shape: tuple[Channels, PositiveInt, PositiveInt] | tuple[PositiveInt, list[str], PositiveInt, str]
    classes: list[str]
    model: dict[str, Any]
    record: dict[str, Any]
    defined_in: NotRequired[str]
    """The file or module of a family that is not fabulate's own."""


class Saved(ModelHubMixin, library_name="fabulate", tags=["image-generation", "generative-model"]):
    """Adds `save_pretrained`, `from_pretrained` and `push_to_hub` to a model."""

    def save_pretrained(self, save_directory: str | Path, **hub: Any) -> str | None:
        """Write the model as a folder; with `push_to_hub=True` (and `repo_id`) also to the Hugging Face hub.

        The mixin's own would delete a config.json before it writes, whosever it is.
        Errors: `RunError` when files of our names lie there that are no model of fabulate's.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        refuse_others(folder)
        self._save_pretrained(folder)
        if not hub.pop("push_to_hub", False):
            return None
        hub.pop("config", None)
        return self.push_to_hub(repo_id=hub.pop("repo_id", None) or folder.name, **hub)

    def _save_pretrained(self, save_directory: Path) -> None:
        model: Any = self  # a GenerativeModel: this class is one of its bases
        from fabulate.pictures import save_png

        write_json(save_directory / CONFIG, description(model))  # first: it says whose the folder is
        write_weights(save_directory / WEIGHTS, model.state_dict())
        save_png(model.show(), save_directory / PICTURE)
        write_file(save_directory / CARD, lambda file: file.write(card(model).encode()))

    @property
    def about(self) -> str:
        """What the model is, in a few words: its family, and the images it was trained on where that is known."""
        model: Any = self  # a GenerativeModel: this class is one of its bases
        return f"{model.family} on {model.record['data']}" if "data" in model.record else model.family

    def weights_hash(self) -> str:
        """The hexadecimal SHA-256 of all weights, in a fixed order: what a manifest names a model by."""
        model: Any = self  # a GenerativeModel: this class is one of its bases
        return tensors_hash(model.state_dict())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **hub: Any) -> Self:
        """The model of a folder or of a hub repository (OWNER/NAME); called on `GenerativeModel`, of any family.

        `hub`: what huggingface_hub's `hf_hub_download` takes, such as `revision`, `token` and `local_files_only`.
        The mixin's own would read config.json unchecked.
        Errors: `RunError` when there is no model or it is damaged, saying what was found.
        """
        where = str(pretrained_model_name_or_path)

        def find(name: str) -> Path:
            if Path(where).is_dir():
                return Path(where) / name
            return Path(hf_hub_download(where, name, **hub))

        try:
            return build(read_json(find(CONFIG), Description), find(WEIGHTS), where=where, expected=cls)
        except (OSError, HFValidationError) as error:
            raise RunError(
                f"no model could be read at {where!r}: {error}. "
                f"Give a run folder, a model folder ({CONFIG} and {WEIGHTS}) or the OWNER/NAME of a model on the hub"
            ) from error


def refuse_others(folder: Path) -> None:
    """Stop before files of the same names that are no model of ours are replaced. Errors: `RunError`."""
    taken = [name for name in (CONFIG, WEIGHTS, CARD, PICTURE) if (folder / name).exists()]
    if not taken:
        return
    try:
        read_json(folder / CONFIG, Description)
    except (FileNotFoundError, RunError) as error:
        raise RunError(
            f"{folder} holds {', '.join(taken)}, and is not a model folder of fabulate's; give a folder of its own"
        ) from error


def description(model: Any) -> dict[str, Any]:
    """What config.json says, see `Description`."""
    from fabulate.models.families import defined_in

    return {
        "format": FORMAT,
        "family": model.family,
        "shape": list(model.shape),
        "classes": list(model.classes),
        "model": to_json(model.config),
        "record": model.record,
        **({} if (place := defined_in(type(model))) is None else {"defined_in": place}),
    }


def build(config: Description, weights: Path, where: str, expected: type[Any]) -> Any:
    """The model that a config.json and a safetensors file describe.

    Errors: `RunError` when the folder is of another family than `expected`, or damaged.
    """
    from fabulate.models.families import family

    cls = family(config["family"], config.get("defined_in"))
    if not issubclass(cls, expected):
        raise RunError(f"{where} holds a model of the family {cls.family!r}, not {expected.family!r}")
    state, _ = read_weights(weights)
    model = restored(cls, config["model"], shape_of(config["shape"]), config["classes"], state, where)
    model.record = dict(config["record"])
    return model


def restored(
    cls: Any, model: dict[str, Any], shape: Shape, classes: list[str], state: dict[str, Tensor], where: str
) -> Any:
    """A model of the class `cls` with these hyperparameters and weights, which lie in the folder `where`.

    Errors: `RunError` when they do not fit together; no memory is taken before it is known that they do.
    """
    try:
        hyperparameters, state = from_json(cls.Config, cls.current(model, shape)), cls.current(state)
        with torch.device("meta"):  # takes no memory, however large the sizes are that a damaged file gives
            wanted = cls(hyperparameters, shape, classes).state_dict()
    except ConfigError as error:
        raise RunError(f"{where}: {CONFIG} is damaged: {error}") from error
    changed = [
        name
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape and not name.startswith(tuple(cls.sized_by_data))
    ]
    if changed:
        raise RunError(
            f"{where}: its weights are of another model than {CONFIG} tells: {changed[0]} is "
            f"{tuple(state[changed[0]].shape)}, and {tuple(wanted[changed[0]].shape)} is told"
        )
    found = cls(hyperparameters, shape, classes)
    try:
        found.load_state_dict(state)
    except RuntimeError as error:
        told = " ".join(str(error).split())[:300]
        raise RunError(f"{where}: its weights are of another model than {CONFIG} tells: {told}") from error
    return found.eval().requires_grad_(False)  # as training returns it: gradients asked for change the rounding


def card(model: Any) -> str:
    """The model card, README.md, in the hub's form: a picture, the numbers and how to use the model."""
    record, classes = model.record, [plain(name) for name in model.classes]
    data = plain(record.get("data", f"{model.shape.medium} of the author's own"))
    kind = (type(model).__doc__ or model.family).split("(")[0].strip().rstrip(".")
    conditional = ", class-conditional" if model.classes else ""
    rows = [f"| {plain(name)} | {value:.5g} |" for name, value in record.get("test", {}).items()]
    numbers = (
        ["", f"Measured on test {model.shape.medium} it was not trained on:", "", "| | |", "|---|---|", *rows]
        if rows
        else []
    )
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
        f"{kind}{conditional}, of {model.shape.medium} ({model.shape}), trained on {data}{steps} with fabulate.",
        f"It has {sum(p.numel() for p in model.parameters()):,} parameters.",
        "",
        f"![samples, drawn with seed 0]({PICTURE})",
        *numbers,
        *(["", f"Classes: {', '.join(classes)}."] if classes else []),
        "",
        "```python",
        "import fabulate",
        "",
        'model = fabulate.load("path/to/this/folder")',
        f"x = model.sample(64{', y=' + repr(model.classes[0]) if model.classes else ''}, seed=1)  # (64, "
        f"{', '.join(map(str, model.shape.dims))})",
        f"{model.shape.medium} = model.items(x)  # as people have them",
        "```",
        "",
        "```json",
        json.dumps(to_json(model.config), indent=2),
        "```",
        "",
    ]
    return "\n".join(lines)


def plain(text: object) -> str:
    """A text as Markdown shows it letter by letter, on one line: neither HTML nor a link, a picture or a table.

    >>> plain("<b>*cat*</b>|dog")
    '&lt;b&gt;\\\\*cat\\\\*&lt;/b&gt;\\\\|dog'
    """
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", escape(" ".join(str(text).split()), quote=False))
