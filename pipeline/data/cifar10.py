"""CIFAR-10: torchvision's batches or class folders of images, else downloaded."""

from pipeline.data import image_folder, torchvision_files
from pipeline.data.source import Source, root_folder
from pipeline.errors import UserError

BATCHES = "cifar-10-batches-py"
FILES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]


def find(root: str | None, *, download: bool) -> Source:
    """Look in `root` for either layout, else download there.

    Raises DataUnavailable where that fails, UserError on a folder that can't be used.
    """
    folder = root_folder(root)
    batches = folder / BATCHES
    whole = all((batches / name).is_file() for name in FILES)
    if not whole and (folder / "train").is_dir():
        if not (folder / "test").is_dir():
            raise UserError(
                f"data.root={folder}: train/ without test/, and CIFAR-10 has its own test images; "
                "allowed is both, or data=image_folder, which holds out a tenth"
            )
        return image_folder.find(root, download=False)
    if not whole:
        ways = (
            f"put the images into {folder}, as {BATCHES}/ or as train/<class>/*.png and "
            "test/<class>/*.png; set data.root=DIR or CIFAR10_ROOT to where they are"
        )
        torchvision_files.fetch("CIFAR10", folder, download, ways)
    return torchvision_files.source("CIFAR10", folder, batches, FILES)
