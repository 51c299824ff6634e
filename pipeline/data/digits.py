"""scikit-learn's embedded digits: 1 797 images, 8×8 grey; needs no download."""

from importlib.metadata import version

import numpy as np

from pipeline.data.source import Arrays, Part, Source, hold_out

TEST_SHARE = 0.2


def find(*, download: bool) -> Source:
    """The digits; `download` changes nothing, as they come with scikit-learn."""
    return Source("scikit-learn's digits", f"scikit-learn {version('scikit-learn')}", _decode)


def _decode() -> Arrays:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)  # 0…16 becomes 0…255
    part = Part(images[..., np.newaxis], digits.target.astype(np.int64))
    return Arrays(tuple(str(name) for name in digits.target_names), *hold_out(part, TEST_SHARE))
