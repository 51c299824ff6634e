"""A split of a data set, and its rows as batches that a network takes.

Owns how pixels are scaled and where they lie. Imports of the project pipeline.config alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.config import Pixels

BLOCK = 128  # rows that become floats together: large batches do it in the cache, not in memory


@dataclass(frozen=True)
class Split:
    """Some rows of memory-mapped images that all processes share.

    images (M, height, width, channels) uint8 and labels (M,) int64 hold all rows of their file,
    sorted by label; indices (n,) int64 says which of them belong to the split.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)


def scale_(pixels: Tensor, to: Pixels) -> Tensor:
    """Pixels in [0, 255] as a network takes them, float32 and in place."""
    return pixels.div_(255).sub_(0.5) if to is Pixels.centered else pixels


class Scaled(nn.Module):
    """Images as they are stored, (n, height, width, channels) uint8, as a network takes them."""

    def __init__(self, pixels: Pixels) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, images: Tensor) -> Tensor:
        return scale_(images.flatten(1).float(), self.pixels)  # a copy, as they are bytes


class Loader:
    """A split on `device`: iterating gives one pass of it, `load` the images of a batch.

    A pass yields row numbers (batch_size,), the last batch of what is left over, in a new order
    each time where there is a `generator`. `rows` (n,) are the split's own.
    """

    def __init__(
        self,
        split: Split,
        pixels: Pixels,
        device: torch.device,
        batch_size: int,
        generator: torch.Generator | None = None,
    ) -> None:
        self.rows, self.batch_size = split.indices.to(device), batch_size
        self._pixels, self._generator = pixels, generator
        # Here and nowhere else are images moved: on the CPU they stay the shared, mapped file.
        self._images, self._labels = split.images.flatten(1).to(device), split.labels.to(device)
        self._bytes = self._images.new_empty((BLOCK, self._images.shape[1]))
        self._floats = self._bytes.float()

    def __len__(self) -> int:
        """The images of the split."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Tensor]:
        rows = self.rows
        if self._generator is not None:
            # Drawn on the CPU, so that the order is the same on every device; moved once a pass.
            rows = rows[torch.randperm(len(rows), generator=self._generator).to(rows.device)]
        return iter(torch.split(rows, self.batch_size))

    def load(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images (b, pixels) float32 and labels (b,) of row numbers (b,).

        Images lie in a buffer of the loader's: they are valid until the next call.
        """
        if len(rows) > len(self._floats):
            self._floats = self._floats.new_empty((len(rows), self._floats.shape[1]))
        images = self._floats[: len(rows)]
        for floats, some in zip(torch.split(images, BLOCK), torch.split(rows, BLOCK), strict=True):
            chosen = self._bytes[: len(some)]
            # Two to three times faster than `images[rows]`, which allocates.
            torch.index_select(self._images, 0, some, out=chosen)
            scale_(floats.copy_(chosen), self._pixels)
        return images, torch.index_select(self._labels, 0, rows)
