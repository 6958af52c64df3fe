"""The cache: shown, cleared, kept within a limit; what is in use and what is not ours stays; without one all works."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_files import fill
from fabulate.cli import main
from fabulate.data import cache, load_data
from fabulate.errors import ConfigError

posix = pytest.mark.skipif(sys.platform == "win32", reason="this system has no such locks")


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FABULATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FABULATE_CACHE_LIMIT", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def filled(tmp_path, root):
    """Two data sets in the cache, the second used a day after the first."""
    for i, name in enumerate(["a", "b"]):
        fill(tmp_path / name, 12, first=20 * i)
        entry = root / "data" / load_data(tmp_path / name).fingerprint
        for path in (*entry.iterdir(), entry):
            os.utime(path, (1e9 + 86400 * i,) * 2)
    return tmp_path


def entries(root: Path) -> set[str]:
    return {path.name for path in (root / "data").iterdir()}


def test_the_verb_shows_and_clears(filled, root, capsys):
    main(["cache"])
    told = capsys.readouterr().out
    assert "decoded images" in told and str(root) in told and "50.0 GB" in told
    assert sum(item.nbytes for item in cache.items()) > 2 * 12 * 64
    main(["cache", "clear", "--kind", "features"])
    assert len(entries(root)) == 2
    main(["cache", "clear"])
    assert "2 items removed" in capsys.readouterr().out and entries(root) == set()
    assert len(load_data(filled / "a").train) == 11


def test_the_least_recently_used_goes_first(filled, root, monkeypatch):
    first, second = (load_data(filled / name).fingerprint for name in ("b", "a"))  # a is now the later one
    os.utime(root / "data" / first, (1e9, 1e9))
    size = max(item.nbytes for item in cache.items())
    main(["cache", "clear", "--limit", str(size)])
    assert entries(root) == {second}
    monkeypatch.setenv("FABULATE_CACHE_LIMIT", str(size))
    third = load_data(filled / "b").fingerprint  # stored, and the cache brought within its limit
    assert entries(root) == {third}


@pytest.mark.parametrize("words", ["much", "5XB", "-1GB", ""])
def test_a_limit_that_is_no_size_is_refused(words):
    with pytest.raises(ConfigError, match="a size is a number of bytes such as"):
        cache.nbytes(words)


def test_what_is_not_ours_stays_and_links_are_not_followed(filled, root, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    (root / "data" / "holiday").mkdir()
    (root / "data" / "holiday" / "photo.png").write_text("mine")
    (root / "data" / ("0" * 32)).symlink_to(precious)
    (root / "features").mkdir()
    (root / "features" / "notes.npz").write_text("mine")
    (root / "hub").mkdir()  # a folder of the user's own, which does not say that it is ours
    (root / "hub" / "page.html").write_text("mine")
    (root / "compiled").symlink_to(precious)
    (root / "elsewhere.txt").write_text("mine")
    entry = next(path for path in (root / "data").iterdir() if (path / "data.json").exists())
    (entry / "inner").symlink_to(precious)
    main(["cache", "clear"])
    assert (precious / "thesis.txt").read_text() == "years"
    assert entries(root) == {"holiday", "0" * 32}
    for name in ("data/holiday/photo.png", "features/notes.npz", "hub/page.html", "elsewhere.txt"):
        assert (root / name).read_text() == "mine"


def test_folders_of_our_own_are_cleared_whole(root):
    for kind in ("hub", "compiled"):
        (cache.folder(kind) / "fxgraph").mkdir()
        (cache.folder(kind) / "fxgraph" / "code").write_text("x")
    main(["cache", "clear"])
    assert cache.items() == [] and (root / "hub" / cache.OWNED).exists()


def test_revisions_of_the_hub_are_not_evicted(root):
    for name in ("owner--name.json", "parquet"):
        (cache.folder("hub") / name).write_text("{}")
    assert [item.path.name for item in cache.surplus(cache.items(), 0)] == ["parquet"]


@posix
def test_what_is_in_use_stays(filled, root, monkeypatch, capsys):
    monkeypatch.setattr(cache, "in_memory", lambda nbytes: False)
    mapped = load_data(filled / "a")
    assert isinstance(mapped.train.x, np.memmap)
    main(["cache", "clear"])
    assert "1 are in use" in capsys.readouterr().out and entries(root) == {mapped.fingerprint}
    script = "from fabulate.data import cache; print(len(cache.clear(cache.items())[1]))"
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "1"  # to another process too


HANGS = """
import sys, time
from fabulate.data import cache
with cache.workspace("0" * 32) as place:
    (place / "gray.npy").write_bytes(b"x" * 1000)
    print("ready", flush=True)
    time.sleep(600)
"""


@posix
def test_what_a_killed_decoding_left_is_removed_and_what_a_living_one_makes_is_not(filled, root):
    child = subprocess.Popen([sys.executable, "-c", HANGS], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline().strip() == "ready"
        (left,) = (path for path in (root / "data").iterdir() if "." in path.name)
        long_ago = time.time() - 7 * 86400
        os.utime(left, (long_ago, long_ago))
        with cache.workspace("1" * 32):
            assert left.exists()  # however old it is, its process lives
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert left.exists()
    os.utime(left, (long_ago, long_ago))
    with cache.workspace("1" * 32):
        assert not left.exists()
    assert len(entries(root)) == 2


@pytest.mark.parametrize("place", ["file", "name", "below", "nowhere"])
def test_a_cache_that_cannot_be_used_is_done_without(tmp_path, monkeypatch, place):
    fill(tmp_path / "a", 12)
    (tmp_path / "file").write_text("")
    where = {"file": tmp_path / "file", "name": tmp_path / ("n" * 300), "below": tmp_path / "file" / "deeper"}
    if place == "nowhere":  # a user without a home
        monkeypatch.delenv("FABULATE_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

        def nobody() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", nobody)
    else:
        monkeypatch.setenv("FABULATE_CACHE", str(where[place]))
    data = load_data(tmp_path / "a")
    assert len(data.train) == 11
    from fabulate import stats
    from fabulate.features import features_for

    assert stats.reference(data, "train", features=features_for(data, "pixels")).moments.n == 11
    compiled = cache.working_folder("compiled")  # somewhere else, for now
    assert compiled.is_dir() and os.access(compiled, os.W_OK)
    assert cache.items() == []


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "setuid"), reason="this system has no other users")
@pytest.mark.slow
def test_a_home_that_may_not_be_entered_is_done_without(tmp_path):
    """As another user where we are root, whom no permission stops."""
    home = tmp_path / "home"
    (home / "cache").mkdir(parents=True)
    home.chmod(0)
    script = f"""
import os
from pathlib import Path
from fabulate.data import cache, load_data
import sklearn.datasets
sklearn.datasets.load_digits()
if os.getuid() == 0:
    os.setuid(65534)
os.environ["FABULATE_CACHE"] = {str(home / "cache")!r}
print(len(load_data("digits").train), cache.working_folder("compiled").is_dir(), cache.items())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    home.chmod(0o700)
    assert (done.returncode, done.stdout.strip()) == (0, "1618 True []"), done.stderr
