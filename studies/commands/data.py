"""optstudy data [data=NAME] [overrides]

Find or download a data set, decode it once into the cache, and print what it is.

  optstudy data                                  CIFAR-10: data/cifar10, or a download
  optstudy data data.root=/images/cifar10        the same, from a folder of yours
  optstudy data data=image_folder data.root=DIR  your own images, DIR/train/CLASS/*
  optstudy data data=digits                      scikit-learn's; nothing is downloaded
"""

from pipeline.compose import compose, typed
from pipeline.data import prepare
from studies.commands.screen import describe


def main(arguments: list[str]) -> None:
    """Prepare a data set."""
    print(describe(prepare(typed(compose(arguments)).data)))
