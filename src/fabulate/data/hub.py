"""Data sets on the Hugging Face hub: their parquet files, streamed, or downloaded once and kept in the cache.

A data set keeps the revision first seen: what a run was trained on does not change under it, and a second load needs no
network. Of a data set in another format the hub keeps parquet files on a branch of their own.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import Any, cast

from fabulate.config import spec, to_json
from fabulate.data import cache
from fabulate.data.listing import Contents, Listing
from fabulate.data.parquet import Shard, contents, reason_of, split_of
from fabulate.errors import DataError, RunError
from fabulate.files import place_file, read_json, write_json

_CONVERTED = "refs/convert/parquet"  # https://huggingface.co/docs/dataset-viewer/parquet
_ONLINE = (
    "Check the name and the connection. Offline, put the parquet files of a data set called NAME into a folder NAME "
    "and set FABULATE_DATA to the folder around it, or give the path of a local folder."
)


def hub(name: str) -> Listing:
    """List a data set on the hub, OWNER/NAME. Errors: `DataError` when it cannot be reached or does not exist."""
    revision = revision_of(name)

    @contextmanager
    def opened() -> Iterator[Contents]:
        with _downloads(name, revision) as place:
            shards = [replace(shard, open=_kept(shard, place)) for shard in on_hub(name)]
            with contents(shards, name) as found:
                yield found

    return Listing(name.split("/")[1], f"hub 2 {name} {revision}", opened)


def on_hub(name: str) -> list[Shard]:
    """The parquet files of a hub data set at the revision first seen, and its README; none is fetched."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # requests' or httpx's, by its version

    system, root = HfFileSystem(), f"datasets/{name}@{revision_of(name)}"
    try:
        found = cast(dict[str, Any], system.glob(f"{root}/**/*.parquet", detail=True))
        found |= cast(dict[str, Any], system.glob(f"{root}/README.md", detail=True))
    except (HTTPError, OSError, ValueError) as error:
        raise _failed(name, error) from error
    tables = [path.removeprefix(root) for path in found if path.endswith(".parquet")]
    if not tables:
        raise DataError(f"{name} holds no parquet files; download it, and give the folder it is in")
    folders = {str(PurePosixPath(path).parent) for path in tables if split_of(path) == "train"}
    if len(folders) > 1:
        raise DataError(
            f"{name} holds several data sets: {', '.join(sorted(folders))}; download one and give its folder"
        )

    def opener(path: str) -> Callable[[], Any]:
        return lambda: system.open(path, "rb", cache_type="none")  # ranges are asked for as they are, not read ahead

    return [
        Shard(path.removeprefix(root + "/"), int(about["size"]), opener(path)) for path, about in sorted(found.items())
    ]


@contextmanager
def _downloads(name: str, revision: str) -> Iterator[Path]:
    """Where downloads are kept: in the cache, so that another size needs no network; else only for now."""
    kept = cache.folder("hub")
    if kept is not None:
        with cache.held(kept):
            yield kept / name.replace("/", "--") / revision
    else:
        with TemporaryDirectory(prefix="fabulate-", ignore_cleanup_errors=True) as copy:
            yield Path(copy)


def _kept(shard: Shard, place: Path) -> Callable[[], Any]:
    """A file of the hub, downloaded whole before it is opened for the first time."""

    def opened() -> Any:
        path = place / shard.name
        if not path.is_file() or path.stat().st_size != shard.nbytes:
            path.parent.mkdir(parents=True, exist_ok=True)
            with shard.open() as source:
                place_file(path, lambda out: copyfileobj(source, out, 1 << 24))
        return path.open("rb")

    return opened


@spec
class Revision:
    """What is kept of a hub data set."""

    revision: str


def revision_of(name: str) -> str:
    """The revision of a hub data set that was seen first. Errors: `DataError`, as `hub`."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise DataError(f"a hub data set is hf:OWNER/NAME, such as hf:ylecun/mnist; given: hf:{name}")
    known = cache.root() / "hub" / f"{name.replace('/', '--')}.json"
    try:
        return str(read_json(known, Revision, 1 << 16).revision)
    except (OSError, RunError):
        pass  # first time here, no cache, or a damaged one
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # as in `on_hub`

    try:
        info = HfApi().dataset_info(name, timeout=20)
        if not any(file.rfilename.endswith(".parquet") for file in info.siblings or ()):
            info = HfApi().dataset_info(name, revision=_CONVERTED, timeout=20)
    except (HTTPError, OSError, ValueError) as error:
        raise _failed(name, error) from error
    if cache.folder("hub") is not None:
        with suppress(OSError):  # it is asked for again the next time
            write_json(known, to_json(Revision(revision=str(info.sha))))
    return str(info.sha)


def _failed(name: str, error: BaseException) -> DataError:
    return DataError(f"the data set {name} on the Hugging Face hub cannot be loaded: {reason_of(error)}. {_ONLINE}")
