"""What the images of a data set are called, in the order in which it holds them.

Names are not kept with the pixels; a folder is listed again, and what intake did with it is done to its names.
"""

from pathlib import Path

from fabulate.data import sources
from fabulate.data.assembly import held_out
from fabulate.data.loading import Data


def image_names(data: Data) -> tuple[str, ...]:
    """The name of each image, training images first: its file in a folder, else its part and number.

    >>> from fabulate.data import load_data
    >>> image_names(load_data("digits"))[1617:1619]
    ('train[1617]', 'test[0]')
    """
    if Path(data.spec.source).is_dir():
        found = _files(data)
        assert len(found) == len(data.train) + (len(data.test) if data.test is not None else 0)
        return found
    named = (("train", data.train), ("test", data.test))
    return tuple(f"{part}[{i}]" for part, images in named if images is not None for i in range(len(images)))


def _files(data: Data) -> tuple[str, ...]:
    unread = {name for name, _ in data.report.set_aside}
    with sources.find(data.spec.source).open() as contents:
        both = [part for part in (contents.train, contents.test) if part is not None]
        train, *test = [[name for name in part.names if name not in unread] for part in both]
    if not any(test):
        kept, held = held_out(len(train))
        train, test = [train[i] for i in kept], [[train[i] for i in held]]
    return (*train, *(name for part in test for name in part))
