"""What a comparison owes to the test images: other ones could have been drawn.

Pure functions of which images each final run got right; imports nothing of the project.
"""

import numpy as np
import numpy.typing as npt

Right = npt.NDArray[np.bool_]


def variance(a: Right, b: Right) -> float:
    """Variance that the difference of two arms' accuracies has over draws of the test images.

    `a` (runs of A, images) and `b` (runs of B, images) say which images each run got right. The
    difference of an image is that of the shares of runs that got it right; its variance over the
    images, less what the runs' own luck with each image adds to it (seeds × images, which the
    spread between searches holds already), divided by the number of images. In squared accuracy,
    at least 0. Without a second run of an arm its luck is unknown, and nothing is taken off.
    """
    images: int = a.shape[1]
    if images < 2 or not len(a) or not len(b):
        return 0.0
    apart = a.mean(axis=0) - b.mean(axis=0)
    luck = sum(float(x.var(axis=0, ddof=1).mean()) / len(x) for x in (a, b) if len(x) > 1)
    return max(0.0, float(apart.var(ddof=1)) - luck) / int(images)
