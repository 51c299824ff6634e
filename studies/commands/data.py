"""optstudy data [data=NAME] [overrides]

Find or download a data set, decode it once into the cache, and print what it is.

  optstudy data                                  CIFAR-10: data/cifar10, or a download
  optstudy data data.root=/images/cifar10        the same, from a folder of yours
  optstudy data data=image_folder data.root=DIR  your own images, DIR/train/CLASS/*
  optstudy data data=digits                      scikit-learn's; nothing is downloaded
"""

from pipeline.compose import compose, typed
from studies.commands.screen import loading


def main(arguments: list[str]) -> None:
    """Prepare a data set; print its source, sizes, classes, channel statistics, fingerprint."""
    config = typed(compose(arguments)).data
    with loading("torch"):
        from pipeline.data import prepare
    dataset = prepare(config)
    height, width, channels = dataset.shape
    pairs = zip(dataset.channel_mean, dataset.channel_std, strict=True)
    statistics = ", ".join(f"{mean:.5f} ± {std:.5f}" for mean, std in pairs)
    print(
        f"{dataset.name}: {dataset.source}\n"
        f"images       {dataset.train_size} for training and validation, {dataset.test_size} for "
        f"testing, {height}×{width}, {channels} channel{'s' if channels > 1 else ''}\n"
        f"classes      {len(dataset.classes)}: {', '.join(dataset.classes)}\n"
        f"mean ± std   {statistics} (training pixels, of 1)\n"
        f"fingerprint  {dataset.fingerprint}\n"
        f"cache        {dataset.folder}"
    )
