"""A study as most people write it: Optuna, a DataLoader, a plain loop, MLflow's fluent API.

    python plain_pipeline.py transforms TASK.json

The peer that test_study.py measures optstudy against, in a process of its own and in one alone;
it takes nothing from the project. TASK.json names the images (an .npz, already decoded), where runs
are logged, how many epochs, and the configurations; `transforms` or `tensors` is how images get
into batches. Prints the seconds of the search and each configuration's best validation accuracy.
"""

import json
import sys
import time
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import optuna
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms


class Images(Dataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR10: an image becomes a PIL image, and that a tensor, when asked for."""

    def __init__(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        self.images, self.labels = images, labels.tolist()
        centered = transforms.Normalize((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
        self.transform = transforms.Compose([transforms.ToTensor(), centered])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def loaders(task: dict[str, Any], kind: str) -> tuple[DataLoader[Any], DataLoader[Any]]:
    stored = np.load(task["images"])
    splits: list[Dataset[Any]] = []
    for rows in (stored["train"], stored["validation"]):
        images, labels = stored["images"][rows], stored["labels"][rows]
        if kind == "tensors":
            floats = torch.from_numpy(images).float() / 255 - 0.5
            splits.append(TensorDataset(floats, torch.from_numpy(labels)))
        else:
            splits.append(Images(images, labels))
    return DataLoader(splits[0], batch_size=128, shuffle=True), DataLoader(splits[1], 128)


def mlp(batchnorm: bool) -> nn.Module:
    normalised = [nn.BatchNorm1d(100)] if batchnorm else []
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3072, 100), nn.ReLU(), *normalised, nn.Linear(100, 10)
    )


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader[Any]) -> tuple[float, float]:
    model.eval()
    loss, correct, seen = 0.0, 0, 0
    for images, labels in loader:
        logits = model(images)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
    return loss / seen, correct / seen


def train_one_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[Any]
) -> tuple[float, float]:
    model.train()
    loss_sum, correct, seen = 0.0, 0, 0
    for images, labels in loader:
        optimizer.zero_grad()
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
    return loss_sum / seen, correct / seen


def main(kind: str, file: str) -> None:
    with open(file) as opened:
        task = json.load(opened)
    train, validation = loaders(task, kind)
    mlflow.set_tracking_uri(task["tracking"])
    mlflow.set_experiment(kind)

    def objective(trial: optuna.Trial) -> float:
        batchnorm = trial.suggest_categorical("batchnorm", [False, True])
        lr = trial.suggest_float("lr", 1e-9, 1.0, log=True)
        momentum = trial.suggest_float("momentum", 0.0, 0.99)
        torch.manual_seed(trial.number)
        model = mlp(batchnorm)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
        best = 0.0
        with mlflow.start_run():
            mlflow.log_params(trial.params)
            for epoch in range(task["epochs"]):
                loss, accuracy = train_one_epoch(model, optimizer, train)
                val_loss, val_accuracy = evaluate(model, validation)
                mlflow.log_metric("train/loss", loss, epoch)
                mlflow.log_metric("train/accuracy", accuracy, epoch)
                mlflow.log_metric("val/loss", val_loss, epoch)
                mlflow.log_metric("val/accuracy", val_accuracy, epoch)
                best = max(best, val_accuracy)
        return best

    study = optuna.create_study(direction="maximize")
    for configuration in task["configurations"]:
        study.enqueue_trial(configuration)
    began = time.perf_counter()
    study.optimize(objective, n_trials=len(task["configurations"]))
    accuracies = [trial.value for trial in study.trials]
    print(json.dumps({"seconds": time.perf_counter() - began, "accuracies": accuracies}))


if __name__ == "__main__":
    main(*sys.argv[1:])
