"""Data: sources, intake, and images that batches are sliced from.

`load_data` turns a source (digits, a hub name, a folder, an `.npz`, an array) into `Data`: every image is decoded and
checked first, and `data.report` says what was found, converted and set aside.
"""

from fabulate.data.images import Data, Images, Resident, resident
from fabulate.data.loading import image_names, load_data, load_spec, read_image, read_once
from fabulate.data.report import Report, render

__all__ = [
    "Data",
    "Images",
    "Report",
    "Resident",
    "image_names",
    "load_data",
    "load_spec",
    "read_image",
    "read_once",
    "render",
    "resident",
]
