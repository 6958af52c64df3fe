"""What the base of all models does whatever the family: classes, counts, model folders, hyperparameters, walks."""

import json
from dataclasses import fields, replace

import pytest
import torch

from fabulate.config import DataSpec, Training, from_json, override, to_json
from fabulate.errors import CapabilityError, ConfigError, RunError
from fabulate.models import GenerativeModel
from fabulate.models.base import TILE, Conditional
from fabulate.models.capabilities import PATHS
from fabulate.models.contract import helped
from fabulate.models.families import families
from fabulate.nets import NETWORKS
from fabulate.types import ImageShape
from tiny import CLASSES, SHAPES, SMALL, cases, make

UNCONDITIONAL, CONDITIONAL = (next(case for case in cases() if bool(case.classes) == told) for told in (False, True))
FAMILIES = [pytest.param(cls, id=name) for name, cls in families().items()]
PRESETS = [(name, preset) for name, cls in families().items() for preset in cls.presets]
SPECS = [*(cls.Config for cls in families().values()), *NETWORKS.values(), Training, DataSpec]

over = pytest.mark.parametrize


def test_fewer_of_large_images_are_computed_together():
    model, rows = make(UNCONDITIONAL), []
    for side in (8, 32, 64, 256):
        model.shape = ImageShape(3, side, side)
        rows.append(model.rows)
    assert rows == [2 * TILE, 2 * TILE, TILE, TILE]


@over(("n", "start"), [(0, 0), (3, -1)])
def test_no_images_or_a_negative_start_are_refused(n, start):
    with pytest.raises(ConfigError, match=f"given n={n}, start={start}"):
        make(UNCONDITIONAL).sample(n, start=start)


@over("path", PATHS)
def test_paths_do_not_turn_around_and_parallel_codes_are_joined_straight(path):
    a, t = torch.tensor([[3.0, 4.0]], dtype=torch.float64), torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    torch.testing.assert_close(PATHS[path](a, 3 * a, t), a * (1 + 2 * t))
    torch.testing.assert_close(PATHS[path](a, -a, t), a * (1 - 2 * t))
    b = torch.tensor([[-4.0, 3.0]], dtype=torch.float64)  # as long as a, at a right angle
    lengths = PATHS[path](a, b, t).norm(dim=1)
    if path == "spherical":
        torch.testing.assert_close(lengths, torch.full_like(lengths, 5.0))
    with pytest.raises(ConfigError, match="at least 2 steps, given 1"):
        make(UNCONDITIONAL).interpolate(a.float(), b.float(), steps=1)


# Classes


@over(
    ("y", "numbers"),
    [
        ("dog", [1, 1, 1, 1]),
        (2, [2, 2, 2, 2]),
        (["dog", 0, "horse", 2], [1, 0, 2, 2]),
        (("cat", "cat", "dog", "dog"), [0, 0, 1, 1]),
        (torch.tensor([2, 1, 0, 2]), [2, 1, 0, 2]),
        (None, [0, 1, 2, 0]),
    ],
)
def test_classes_are_given_by_name_or_number_or_taken_in_turn(y, numbers):
    model = make(CONDITIONAL)
    assert model.labels(y, 4).tolist() == numbers
    assert torch.equal(model.sample(4, y), model.sample(4, torch.tensor(numbers)))
    assert model.labels(None, 5, start=4).tolist() == [1, 2, 0, 1, 2]  # across calls


@over(
    ("y", "words"),
    [
        ("hors", "there is no class 'hors'; did you mean 'horse'\\? \\(classes: cat, dog, horse\\)"),
        (3, "there is no class 3"),
        (-1, "there is no class -1"),
        (["cat", "cow", "dog", "cat"], "there is no class 'cow'"),
        (["cat", "dog"], "4 images need 4 classes, and 2 were given"),
    ],
)
def test_classes_that_do_not_fit_are_refused_in_words(y, words):
    with pytest.raises(ConfigError, match=words):
        make(CONDITIONAL).sample(4, y)


def test_a_class_asked_of_an_unconditional_model_is_refused():
    with pytest.raises(ConfigError, match="learnt no classes; train it with conditional=True"):
        make(UNCONDITIONAL).sample(4, 0)


def test_only_conditional_families_take_classes():
    class Plain(GenerativeModel):
        family = "plain"  # not registered

        def players(self):
            return {}

        def draw(self, tiles, y):
            return torch.zeros(TILE * len(tiles), *self.shape)

    assert Plain(None, SMALL).classes == ()
    able = ", ".join(name for name, cls in families().items() if issubclass(cls, Conditional))
    with pytest.raises(CapabilityError, match=f"plain cannot learn p.x . class.; families that can: {able}"):
        Plain(None, SMALL, CLASSES)


# On disk


@pytest.fixture
def saved(tmp_path):
    """A model's folder."""
    model = make(CONDITIONAL)
    model.record = {"data": "waves", "steps": 1, "test": {"loss": 0.5}}
    model.save_pretrained(tmp_path)
    return tmp_path


def test_a_model_folder_holds_a_card_a_picture_json_and_no_pickle(saved):
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors", "README.md", "samples.png"}
    config = json.loads((saved / "config.json").read_text())
    assert (config["family"], config["record"]["test"]) == (CONDITIONAL.family, {"loss": 0.5})
    assert CONDITIONAL.family in (saved / "README.md").read_text()
    assert (saved / "samples.png").read_bytes().startswith(b"\x89PNG")
    # A pickle begins with \x80, torch.save's archive with PK; safetensors with the length of a JSON header.
    weights = (saved / "model.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert header.keys() >= make(CONDITIONAL).state_dict().keys()


def changed(name, change):
    """Damage to a file: its bytes changed, or the file gone."""

    def damage(folder):
        data = (folder / name).read_bytes()
        (folder / name).unlink()
        if change is not None:
            (folder / name).write_bytes(change(data))

    return damage


WEIGHTS, CONFIG = "model.safetensors", "config.json"


@over(
    ("damage", "words"),
    [
        (changed(WEIGHTS, lambda data: data[: len(data) // 2]), "model.safetensors is damaged"),
        (changed(WEIGHTS, lambda data: b"\xff" * 100), "model.safetensors is damaged"),
        (changed(CONFIG, lambda data: b"{}"), "config.json is damaged or of another form: format: Field required"),
        (changed(CONFIG, lambda data: b'{"format": 1, "fam'), "config.json is damaged"),
        (changed(WEIGHTS, None), "model.safetensors is missing"),
        (changed(CONFIG, None), "no model could be read at"),
    ],
)
def test_a_damaged_model_folder_is_refused_in_words(saved, damage, words):
    damage(saved)
    with pytest.raises(RunError, match=words):
        GenerativeModel.from_pretrained(str(saved))


def test_a_missing_model_folder_is_refused_in_words(tmp_path):
    with pytest.raises(RunError, match="no model could be read at"):
        GenerativeModel.from_pretrained(str(tmp_path / "missing" / "deeper"))


@over("case", [case for case in cases() if not case.classes], ids=str)
def test_weights_of_another_size_and_models_of_another_family_are_refused(case, tmp_path):
    for name, shape in (("one", SMALL), ("other", SHAPES[1])):
        make(case, shape).save_pretrained(tmp_path / name)
    others = [cls for name, cls in families().items() if name != case.family]
    with pytest.raises(RunError, match=f"holds a model of the family '{case.family}', not '{others[0].family}'"):
        others[0].from_pretrained(str(tmp_path / "one"))
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")
    with pytest.raises(RunError, match="of another model"):
        GenerativeModel.from_pretrained(str(tmp_path / "one"))


FORMERLY = [name for name, cls in families().items() if cls.renamed]


@over("name", FORMERLY)
def test_models_saved_under_former_names_come_back(name):
    """Hyperparameters and weights have been renamed; what was saved before is read all the same."""
    cls = families()[name]
    model = make(next(case for case in cases() if case.family == name))
    former = {new: old for old, new in cls.renamed.items()}
    assert former
    state = {".".join(former.get(part, part) for part in key.split(".")): v for key, v in model.state_dict().items()}
    assert state.keys() != model.state_dict().keys()
    again = make(next(case for case in cases() if case.family == name), seed=1)
    again.load_state_dict(state)
    assert again.weights_hash() == model.weights_hash()
    config = {former.get(key, key): value for key, value in to_json(model.config).items()}
    assert from_json(cls.Config, cls.current(config)) == model.config


# Hyperparameters


@over(("name", "preset"), PRESETS)
def test_unknown_hyperparameters_are_refused_by_name(name, preset):
    for value in families()[name].presets[preset]:
        with pytest.raises(ConfigError, match="no_such_thing"):
            from_json(type(value), {**to_json(value), "no_such_thing": 1})
        with pytest.raises(ConfigError, match="unknown hyperparameter 'no_such_thing'"):
            override(value, {"no_such_thing": 1})


@over("cls", FAMILIES)
def test_our_families_have_the_default_and_the_tutorial_preset(cls):
    assert {"default", "tutorial"} <= cls.presets.keys()


@over("spec", SPECS, ids=lambda spec: spec.__name__)
def test_specs_have_defaults_and_help_and_cannot_be_changed(spec):
    value = spec()
    assert replace(value) == value
    names = {field.name for field in fields(spec)}
    assert names - {"kind"} == helped(spec) - {"kind"} != set()
    for name in names:
        with pytest.raises(AttributeError):
            setattr(value, name, None)
