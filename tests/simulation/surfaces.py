"""Studies that never trained: accuracies over a space of hyperparameters, and searches of it.

The numbers are those of the lecture's perceptron on CIFAR-10: seeds spread test accuracy by 0.42
points and validation accuracy by 0.6, a search of 16 trials its winner's by about 0.5.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

VALIDATION, TEST = 0.006, 0.0042  # standard deviations over seeds, of one run
IMAGES = 0.0028  # that of a difference of arms over draws of the test images
CHANCE = 0.1


@dataclass(frozen=True)
class Surface:
    """True accuracy over two hyperparameters in [0, 1]: a paraboloid, and where runs diverge."""

    peak: float = 0.52
    at: tuple[float, float] = (0.6, 0.4)
    curvature: tuple[float, float] = (0.35, 0.12)
    diverges: float = 0.9  # the first hyperparameter beyond which they do

    def __call__(self, x: FloatArray) -> FloatArray:
        """Accuracies of points (…, 2)."""
        fall = sum(c * (x[..., i] - self.at[i]) ** 2 for i, c in enumerate(self.curvature))
        return np.where(x[..., 0] > self.diverges, CHANCE, np.maximum(CHANCE, self.peak - fall))


def winners(
    surface: Surface, studies: int, searches: int, random: np.random.Generator, trials: int = 16
) -> FloatArray:
    """True accuracy of what each random search selects on validation, (studies, searches)."""
    x = random.random((studies, searches, trials, 2))
    true = surface(x)
    chosen = (true + random.normal(0, VALIDATION, true.shape)).argmax(axis=-1)
    return np.asarray(np.take_along_axis(true, chosen[..., None], axis=-1)[..., 0])


def retrained(true: FloatArray, finals: int, random: np.random.Generator) -> FloatArray:
    """Mean test accuracies of the winners' final runs, (studies, searches)."""
    return np.asarray(true + random.normal(0, TEST, (*true.shape, finals)).mean(axis=-1))


def expected(surface: Surface, random: np.random.Generator) -> float:
    """What a search of a surface comes to on average: the tuned arm's true accuracy."""
    return float(winners(surface, 200_000, 1, random).mean())


def levelled(surface: Surface, mean: float, random: np.random.Generator) -> Surface:
    """The same surface, raised or lowered until searches of it come to `mean` on average."""
    return replace(surface, peak=surface.peak + mean - expected(surface, random))
