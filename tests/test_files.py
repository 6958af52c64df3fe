"""Classes may be called anything; their folders may not."""

import random

from fabulate.files import LONGEST, folder_names

AWKWARD = [
    *("", " ", ".", "..", "...", "a.", "a ", ".hidden", "a/b", "a_b", "a\\b", "a:b", "Cat", "cat", "CAT", "CON", "con"),
    *("nul.txt", "com1", "LPT¹", "grid.png", "Grid.PNG", "manifest.json", "x" * 300, "x" * 299),
    *("é", "e\u0301", "ß", "ss"),
    *("a\nb", "\0", "\ud800", "名" * 100, "=1+1", "-n", "~", "%USERPROFILE%", "a*?", '"', "<b>", "|"),
]


def test_awkward_classes_have_folders_of_their_own(tmp_path):
    names = folder_names(AWKWARD, taken=["grid.png", "manifest.json"])
    assert list(names) == AWKWARD
    for name in names.values():
        (tmp_path / name).mkdir()  # a name that is taken, or no name, is an error
    assert len(list(tmp_path.iterdir())) == len(AWKWARD)
    assert len({name.casefold() for name in names.values()} | {"grid.png", "manifest.json"}) == len(AWKWARD) + 2
    assert all(names[name] == name for name in ("a_b", "Cat", "é", "=1+1")), "what is fine stays"


def test_any_classes_have_folders_that_every_system_takes():
    chance = random.Random(0)
    letters = "aAbB._ /:\\-é名\u0301\ud800\0" + "x" * 4
    for _ in range(300):
        labels = ["".join(chance.choices(letters, k=chance.choice([0, 1, 2, 3, 150]))) for _ in range(12)]
        names = list(folder_names(labels, taken=["grid.png"]).values())
        assert len({name.casefold() for name in [*names, "grid.png"]}) == len(set(labels)) + 1
        for name in names:
            assert 0 < len(name.encode()) <= LONGEST + 20
            assert not set(name) & set('<>:"/\\|?*') and min(name) >= " "
            assert not name.endswith((".", " ")) and not name.startswith(".")
