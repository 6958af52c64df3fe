"""What the folders around images mean: parts to train and to test with, classes, masks, or nothing at all.

A folder's name alone decides nothing: a class of vehicles is called train, and one of dog tricks is called valid. So a
training part is one only where a test or validation part lies beside it, or nothing else does. Images that belong to
no part are left out, and that is said. Names are relative to the source, with forward slashes.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fabulate.data.listing import Label, natural

_ROLES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev"),
}
_THINGS = r"(?:sets?|data|datasets?|splits?|parts?|images?|imgs?|pictures?|photos?|seg)"
_ROLE = {
    role: re.compile(
        rf"(?:{_THINGS}[ _.-]?)?(?:{'|'.join(words)})(?:[ _.-]?{_THINGS})?(?:[ _.-]?[0-9]{{4}})?", re.IGNORECASE
    )
    for role, words in _ROLES.items()
}
_IMAGES = re.compile(
    r"(?:images?|imgs?|pictures?|photos?|jpe?g ?images|jpe?gs?|pngs?|data)", re.IGNORECASE
)  # no class is called so
_MASKS = re.compile(
    r"(?:ground[ _-]?truths?|gts?|masks?|labels?|annotations?|annots?|segmentations?(?:class|object)?|seg|anno)"
    r"(?:[ _-]?(?:masks?|images?|pngs?|maps?))?",
    re.IGNORECASE,
)
_MASK_OF = re.compile(
    r"(.+?)[ _-](?:mask|gt|seg|segmentation|groundtruth|ground_truth)(?:[ _-]?[0-9]+)?", re.IGNORECASE
)


@dataclass
class Layout:
    """The images of each part with their labels, in the order given, and what is worth saying of the rest."""

    train: dict[str, Label | None] = field(default_factory=dict)
    test: dict[str, Label | None] | None = None
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Names of images that belong to no part, by the reason."""
    warnings: list[str] = field(default_factory=list)


def role(folder: str) -> str | None:
    """The part whose name a folder bears: train, test or val.

    >>> [role(name) for name in ("Training_Set", "test", "seg_train", "val2017", "dev", "trains", "testicular")]
    ['train', 'test', 'train', 'val', 'val', None, None]
    """
    return next((part for part, words in _ROLE.items() if words.fullmatch(folder)), None)


def lay_out(names: Sequence[str]) -> Layout:
    """Parts and labels of images by the folders that they lie in."""
    layout = Layout()
    kept = _without_masks(names, layout)
    root = _descend("", kept, layout, part=False)
    roots = _parts(root, kept, layout)
    if roots is None:
        layout.train = _labelled(root, kept, layout, "train")
        return layout
    found = {}
    for part, where in roots.items():
        own = [name for name in kept if name.startswith(where)]
        found[part] = _labelled(_descend(where, own, layout, part=True), own, layout, part)
    layout.train, layout.test = found["train"], found.get("test")
    return layout


def _descend(root: str, names: list[str], layout: Layout, part: bool) -> str:
    """Go down through folders that only hold another one. In a part that one is a class, such as train/good, unless
    it is called images, or as the part is: training_set/training_set."""
    while True:
        folders, loose = _folders(root, names)
        if loose or len(folders) != 1:
            return root
        ((only, inner),) = folders.items()
        below = f"{root}{only}/"
        around = root.removesuffix("/").rsplit("/", 1)[-1].casefold()
        plain = _IMAGES.fullmatch(only) or (around and only.casefold() == around)
        deeper = all("/" in name[len(below) :] for name in inner)
        if not plain and (part or not (deeper or role(only))):
            return root
        if part or role(only) != "train":
            layout.notes.append(f"all images of {root or 'the folder'} lie in {below}, which is no class")
        root = below


def _parts(root: str, names: list[str], layout: Layout) -> dict[str, str] | None:
    """Where each part begins, as {"train": "train/", "test": "test/"}; None where there are no parts."""
    folders, loose = _folders(root, names)
    by_role: dict[str, list[str]] = {}
    for folder in sorted(folders, key=natural):
        by_role.setdefault(role(folder) or "", []).append(folder)
    others = by_role.pop("", [])
    if "train" not in by_role:
        return None
    train = by_role["train"][0]
    if len(by_role) == 1 and others:
        told = (
            f"{root}{train}/ is a class like {root}{others[0]}/, as there is no test or validation part beside it; "
            f"to train on it alone give the path of {train}"
        )
        deeper = any("/" in name.removeprefix(f"{root}{train}/") for name in folders[train])
        (layout.warnings if deeper else layout.notes).append(told)
        return None
    roots = {"train": train}
    held = next((part for part in ("test", "val") if part in by_role), None)
    if held is not None:
        roots["test"] = by_role[held][0]
        if held == "val":
            layout.notes.append(f"no test folder: {root}{roots['test']}/ is the test part")
    used = " and ".join(f"{root}{folder}/" for folder in roots.values())
    for folder, inner in folders.items():
        if folder not in roots.values():
            reason = f"{root}{roots['test']}/ is the test part" if role(folder) == "val" else f"the parts are {used}"
            layout.left_out.setdefault(reason, []).extend(inner)
    if loose:
        layout.left_out.setdefault(f"the parts are {used}", []).extend(loose)
    return {part: f"{root}{folder}/" for part, folder in roots.items()}


def _labelled(root: str, names: list[str], layout: Layout, part: str) -> dict[str, Label | None]:
    """The images of a part with the first folder below its root as label; training images have them all or none."""
    labels: dict[str, Label | None] = {
        name: folder if below else None for name in names for folder, below, _ in [name[len(root) :].partition("/")]
    }
    loose = [name for name, label in labels.items() if label is None]
    if part == "train" and 0 < len(loose) < len(labels):
        lie = "image lies" if len(loose) == 1 else "images lie"
        layout.warnings.append(f"no classes: {len(loose):,} {lie} outside class folders, such as {loose[0]}")
        return dict.fromkeys(labels)
    return labels


def _without_masks(names: Sequence[str], layout: Layout) -> list[str]:
    """The images without what tells of others: cat_mask.png beside cat.jpg, masks/ beside images/ or beside parts."""
    stems = {name.rpartition(".")[0] for name in names}
    beside: dict[str, set[str]] = {}  # the folders in each folder
    for name in names:
        for path in above(name):
            around, _, folder = path.rpartition("/")
            beside.setdefault(around, set()).add(folder)

    def of_others(siblings: set[str]) -> bool:
        parts = {role(sibling) for sibling in siblings} - {None}
        return any(map(_IMAGES.fullmatch, siblings)) or ("train" in parts and len(parts) > 1)

    masks = [
        f"{around}/{folder}".removeprefix("/")
        for around, own in beside.items()
        for folder in own
        if _MASKS.fullmatch(folder) and of_others(own - {folder})
    ]
    kept = []
    for name in names:
        path, slash, file = name.rpartition("/")
        marked = _MASK_OF.fullmatch(file.rpartition(".")[0])
        partner = marked is not None and path + slash + marked[1] in stems
        if partner or any(f"{name}/".startswith(f"{mask}/") for mask in masks):
            layout.left_out.setdefault("masks or labels of other images", []).append(name)
        else:
            kept.append(name)
    return kept


def _folders(root: str, names: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The names below a root by the first folder, and those in no folder."""
    folders: dict[str, list[str]] = {}
    loose = []
    for name in names:
        folder, below, _ = name[len(root) :].partition("/")
        if below:
            folders.setdefault(folder, []).append(name)
        else:
            loose.append(name)
    return folders, loose


def above(name: str) -> list[str]:
    """The folders that a file lies in.

    >>> above("train/cats/1.png")
    ['train', 'train/cats']
    """
    return [name[: slash.start()] for slash in re.finditer("/", name)]


def left_out(layout: Layout) -> str:
    """What was left out and why, in a sentence; "" for nothing."""
    told = []
    for reason, names in layout.left_out.items():
        within: Mapping[str, None] = dict.fromkeys(name.rpartition("/")[0] or name for name in names)
        places = ", ".join([*list(within)[:3], *(["..."] if len(within) > 3 else [])])
        told.append(f"{len(names):,} in {places} ({reason})")
    return f"images left out: {'; '.join(told)}" if told else ""
