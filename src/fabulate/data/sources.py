"""From the string a user gives to the listing of a source.

`digits`; `mnist`, `fashion_mnist` and `cifar10`, in `$FABULATE_DATA/NAME` or else on the hub; `hf:OWNER/NAME`; a folder
of images or of parquet files; an `.npz` file.
"""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from fabulate.config import nearest
from fabulate.data.arrays import digits, npz
from fabulate.data.folder import EXTENSIONS, folder, scan
from fabulate.data.hub import hub, on_hub
from fabulate.data.listing import Listing
from fabulate.data.parquet import Shards, images_in, in_folder, parquet, read_footers
from fabulate.errors import DataError

ON_THE_HUB = {
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
}
NAMED = ("digits", *ON_THE_HUB)


def find(source: str) -> Listing:
    """List the source a string names.

    Errors: `DataError` that says what was looked for, with the nearest known name or file when there is one.

    >>> find("digits").name
    'digits'
    """
    if source == "digits":
        return digits()
    where = place(source)
    if isinstance(where, str):
        return hub(where)
    if where.is_dir():
        return _folder(where)
    if where.suffix.lower() == ".npz" and where.exists():
        return npz(where)
    raise _nothing(where)


def find_stream(source: str) -> tuple[str, Shards]:
    """The name and the parquet files of a source that is to be streamed.

    Errors: `DataError` when there are none, when they cannot be read, or when they hold no images.
    """
    where = place(source)
    if isinstance(where, str):
        return where.split("/")[-1], read_footers(on_hub(where), where)
    if not where.is_dir():
        raise _nothing(where)
    tables = scan(where).tables
    if not tables:
        raise DataError(
            f"there are no parquet files in {where}, which stream: reads; a folder of images is read without it: "
            f"--data {where}"
        )
    return where.resolve().name or "data", read_footers(in_folder(where, tables), source)


def place(source: str) -> Path | str:
    """Where a source lies: at a path, or on the hub as OWNER/NAME.

    >>> place("hf:uoft-cs/cifar10"), place("photos").name
    ('uoft-cs/cifar10', 'photos')
    """
    if source.startswith("hf:"):
        return source.removeprefix("hf:")
    if source in ON_THE_HUB:
        around = os.environ.get("FABULATE_DATA")
        here = Path(around).expanduser() / source if around else None
        return here if here and here.is_dir() else ON_THE_HUB[source]
    return Path(source).expanduser()


def _folder(path: Path) -> Listing:
    """A folder of images or of parquet files that hold them; of one with both, whichever holds more."""
    scanned = scan(path)
    if not scanned.tables:
        return folder(path, scanned)
    if not scanned.images:
        return parquet(path, scanned.tables)
    in_tables, files = 0, len(scanned.images)
    for table in scanned.tables:
        with suppress(DataError):  # a damaged one beside images is what any other file beside them is
            in_tables += images_in(table)
    if in_tables > files:
        told = f"image files left out: {files:,}, beside parquet files that hold more images"
        return parquet(path, scanned.tables, (told,))
    listing = folder(path, scanned)
    ignored = {**listing.ignored, ".parquet": len(scanned.tables)}
    if not in_tables:
        return replace(listing, ignored=ignored)
    told = f"images in parquet files left out: {in_tables:,}, beside more image files"
    return replace(listing, ignored=ignored, warnings=(*listing.warnings, told))


def _nothing(path: Path) -> DataError:
    """The error for a path where no source is, with the nearest name."""
    if path.exists():
        what = "one image" if path.suffix.lower() in EXTENSIONS else "a file of an unknown kind"
        return DataError(f"{path} is {what}: give the folder around it, or an .npz file")
    hint = nearest(str(path), list(NAMED))
    if not hint and path.parent.is_dir():
        siblings = [other.name for other in path.parent.iterdir() if other.is_dir() or other.suffix.lower() == ".npz"]
        hint = nearest(path.name, siblings)
    return DataError(f"there is no file or folder {str(path)!r}{hint} (known names: {', '.join(NAMED)}, hf:OWNER/NAME)")
