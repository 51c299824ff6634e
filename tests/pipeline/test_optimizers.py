"""conf/optimizer against the updates of Goodfellow et al., Deep Learning (2016), chapter 8.

Written in its letters: θ parameters, g gradient, ε learning rate, α momentum, v velocity,
r accumulated squares, s first moment, δ the small constant. Where torch deviates, both updates
are here and the tests say what is equal.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from omegaconf import DictConfig

from pipeline import train
from pipeline.compose import compose, typed
from pipeline.options import options

Vector = npt.NDArray[np.float64]
Rule = Callable[[Sequence[float], DictConfig], Vector]

# f(θ) = θᵀAθ/2 − bᵀθ, whose gradient is Aθ − b.
A = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.25], [0.0, 0.25, 0.5]])
B = np.array([1.0, -2.0, 0.5])
START = np.array([1.0, 1.5, -1.0])

CONSTANT = [0.1] * 7
DECAYING = [0.1, 0.08, 0.08, 0.03, 0.02, 0.005, 0.001]
# Large constants, so that where they stand shows.
SETTINGS: dict[str, list[str]] = {
    "momentum": ["optimizer.momentum=0.8"],
    "nesterov": ["optimizer.momentum=0.8"],
    "adagrad": ["optimizer.eps=0.05"],
    "adagrad_textbook": ["optimizer.eps=0.05"],
    "rmsprop": ["optimizer.rho=0.7", "optimizer.eps=0.05"],
    "rmsprop_textbook": ["optimizer.rho=0.7", "optimizer.eps=0.05"],
    "adam": ["optimizer.beta1=0.8", "optimizer.beta2=0.95", "optimizer.eps=0.05"],
}


def gradient(theta: Vector) -> Vector:
    slope: Vector = A @ theta - B
    return slope


def sgd(rates: Sequence[float], settings: DictConfig) -> Vector:
    """Algorithm 8.1."""
    theta, path = START, []
    for epsilon in rates:
        theta = theta - epsilon * gradient(theta)
        path.append(theta)
    return np.array(path)


def momentum(rates: Sequence[float], settings: DictConfig) -> Vector:
    """Algorithm 8.2: v ← αv − εg; θ ← θ + v."""
    theta, v, path = START, np.zeros(3), []
    for epsilon in rates:
        v = settings.momentum * v - epsilon * gradient(theta)
        theta = theta + v
        path.append(theta)
    return np.array(path)


def nesterov(rates: Sequence[float], settings: DictConfig) -> Vector:
    """Algorithm 8.3: as 8.2, with the gradient at the interim point θ + αv."""
    return _nesterov(rates, settings)[0]


def nesterov_interim(rates: Sequence[float], settings: DictConfig) -> Vector:
    """The interim points θ + αv of algorithm 8.3, each after its update."""
    return _nesterov(rates, settings)[1]


def _nesterov(rates: Sequence[float], settings: DictConfig) -> tuple[Vector, Vector]:
    theta, v, path, interim = START, np.zeros(3), [], []
    for epsilon in rates:
        v = settings.momentum * v - epsilon * gradient(theta + settings.momentum * v)
        theta = theta + v
        path.append(theta)
        interim.append(theta + settings.momentum * v)
    return np.array(path), np.array(interim)


def adagrad(rates: Sequence[float], settings: DictConfig) -> Vector:
    """Algorithm 8.4: r ← r + g²; θ ← θ − ε g / (δ + √r)."""
    theta, r, path = START, np.zeros(3), []
    for epsilon in rates:
        g = gradient(theta)
        r = r + g**2
        theta = theta - epsilon * g / (settings.eps + np.sqrt(r))
        path.append(theta)
    return np.array(path)


def rmsprop(rates: Sequence[float], settings: DictConfig) -> Vector:
    """Algorithm 8.5: r ← ρr + (1 − ρ)g²; θ ← θ − ε g / √(δ + r)."""
    theta, r, path = START, np.zeros(3), []
    for epsilon in rates:
        g = gradient(theta)
        r = settings.rho * r + (1 - settings.rho) * g**2
        theta = theta - epsilon * g / np.sqrt(settings.eps + r)
        path.append(theta)
    return np.array(path)


def adam(rates: Sequence[float], settings: DictConfig) -> Vector:
    """Algorithm 8.7, which is algorithm 1 of Kingma & Ba: both moments corrected, then δ added."""
    theta, s, r, path = START, np.zeros(3), np.zeros(3), []
    for t, epsilon in enumerate(rates, 1):
        g = gradient(theta)
        s = settings.beta1 * s + (1 - settings.beta1) * g
        r = settings.beta2 * r + (1 - settings.beta2) * g**2
        s_hat, r_hat = s / (1 - settings.beta1**t), r / (1 - settings.beta2**t)
        theta = theta - epsilon * s_hat / (np.sqrt(r_hat) + settings.eps)
        path.append(theta)
    return np.array(path)


def torch_momentum(rates: Sequence[float], settings: DictConfig) -> Vector:
    """torch keeps ε out of the velocity: v ← αv + g; θ ← θ − εv."""
    theta, v, path = START, np.zeros(3), []
    for epsilon in rates:
        v = settings.momentum * v + gradient(theta)
        theta = theta - epsilon * v
        path.append(theta)
    return np.array(path)


def torch_nesterov(rates: Sequence[float], settings: DictConfig) -> Vector:
    """torch's parameters are the interim points: v ← αv + g; θ ← θ − ε(g + αv)."""
    theta, v, path = START, np.zeros(3), []
    for epsilon in rates:
        g = gradient(theta)
        v = settings.momentum * v + g
        theta = theta - epsilon * (g + settings.momentum * v)
        path.append(theta)
    return np.array(path)


def torch_rmsprop(rates: Sequence[float], settings: DictConfig) -> Vector:
    """torch adds δ outside the root: θ ← θ − ε g / (√r + δ)."""
    theta, r, path = START, np.zeros(3), []
    for epsilon in rates:
        g = gradient(theta)
        r = settings.rho * r + (1 - settings.rho) * g**2
        theta = theta - epsilon * g / (np.sqrt(r) + settings.eps)
        path.append(theta)
    return np.array(path)


def adam_efficient(rates: Sequence[float], settings: DictConfig) -> Vector:
    """Kingma & Ba, end of section 2 (TensorFlow's): δ joins √r before r is corrected."""
    theta, s, r, path = START, np.zeros(3), np.zeros(3), []
    for t, epsilon in enumerate(rates, 1):
        g = gradient(theta)
        s = settings.beta1 * s + (1 - settings.beta1) * g
        r = settings.beta2 * r + (1 - settings.beta2) * g**2
        rate = epsilon * np.sqrt(1 - settings.beta2**t) / (1 - settings.beta1**t)
        theta = theta - rate * s / (np.sqrt(r) + settings.eps)
        path.append(theta)
    return np.array(path)


TEXTBOOK: dict[str, Rule] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "adagrad_textbook": adagrad,
    "rmsprop": rmsprop,
    "rmsprop_textbook": rmsprop,
    "adam": adam,
}


def composed(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """conf/optimizer/<name>.yaml, with the settings of this file."""
    return compose([f"optimizer={name}", *SETTINGS.get(name, []), *overrides])


def path_of(config: DictConfig, rates: Sequence[float] | None = None) -> Vector:
    """θ after every step of the optimizer the configuration builds, in float64."""
    theta = torch.nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = train.build("optimizer", typed(config).optimizer, [theta])
    a, b, path = torch.from_numpy(A), torch.from_numpy(B), []
    for epsilon in rates if rates is not None else [None] * 7:
        if epsilon is not None:
            optimizer.param_groups[0]["lr"] = epsilon  # as a scheduler does it
        optimizer.zero_grad()
        (theta @ a @ theta / 2 - b @ theta).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        path.append(theta.detach().numpy().copy())
    return np.array(path)


def equal(actual: Vector, expected: Vector) -> bool:
    return np.allclose(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", TEXTBOOK)
def test_every_textbook_optimizer_has_its_yaml(name: str) -> None:
    # The converse is no rule: a YAML of one's own is held by the tests below that read options().
    assert name in options("optimizer")


@pytest.mark.parametrize("rates", [CONSTANT, DECAYING], ids=["constant", "decaying"])
@pytest.mark.parametrize("name", ["sgd", "adagrad", "adagrad_textbook", "rmsprop_textbook", "adam"])
def test_the_update_is_the_textbooks(name: str, rates: list[float]) -> None:
    config = composed(name)
    assert equal(path_of(config, rates), TEXTBOOK[name](rates, config.optimizer))


@pytest.mark.parametrize(("name", "delta"), [("adagrad", 1e-7), ("rmsprop", 1e-6)])
def test_the_small_constant_is_the_textbooks(name: str, delta: float) -> None:
    assert compose([f"optimizer={name}_textbook"]).optimizer.eps == delta


def test_momentum_is_the_textbooks_at_a_constant_rate() -> None:
    config = composed("momentum")
    assert equal(path_of(config, CONSTANT), momentum(CONSTANT, config.optimizer))


def test_momentum_deviates_by_a_velocity_without_rate_when_the_rate_changes() -> None:
    config = composed("momentum")
    path = path_of(config, DECAYING)
    assert equal(path, torch_momentum(DECAYING, config.optimizer))
    assert not np.allclose(path, momentum(DECAYING, config.optimizer), rtol=1e-2)


def test_nesterov_deviates_by_storing_the_textbooks_interim_point() -> None:
    config = composed("nesterov")
    path = path_of(config, CONSTANT)
    assert equal(path, nesterov_interim(CONSTANT, config.optimizer))
    assert not np.allclose(path, nesterov(CONSTANT, config.optimizer), rtol=1e-2)


def test_nesterov_deviates_from_the_interim_point_too_when_the_rate_changes() -> None:
    config = composed("nesterov")
    path = path_of(config, DECAYING)
    assert equal(path, torch_nesterov(DECAYING, config.optimizer))
    assert not np.allclose(path, nesterov_interim(DECAYING, config.optimizer), rtol=1e-2)


@pytest.mark.parametrize("rates", [CONSTANT, DECAYING], ids=["constant", "decaying"])
def test_rmsprop_deviates_by_delta_outside_the_root(rates: list[float]) -> None:
    config = composed("rmsprop")
    path = path_of(config, rates)
    assert equal(path, torch_rmsprop(rates, config.optimizer))
    assert not np.allclose(path, rmsprop(rates, config.optimizer), rtol=1e-3)


def test_rmsprop_is_the_textbooks_where_delta_is_negligible() -> None:
    config = composed("rmsprop", ["optimizer.eps=1e-12"])
    assert np.allclose(
        path_of(config, DECAYING), rmsprop(DECAYING, config.optimizer), rtol=1e-9, atol=0
    )


def test_adam_adds_delta_after_the_bias_correction() -> None:
    config = composed("adam")
    different = adam_efficient(DECAYING, config.optimizer)
    assert not np.allclose(path_of(config, DECAYING), different, rtol=1e-3)


@pytest.mark.parametrize("name", options("optimizer"))
def test_the_rate_of_the_yaml_is_the_rate_of_the_update(name: str) -> None:
    config = composed(name, ["optimizer.lr=0.0123"])
    assert equal(path_of(config), path_of(config, [0.0123] * 7))


@pytest.mark.parametrize("name", options("optimizer"))
def test_every_setting_of_the_yaml_changes_the_update(name: str) -> None:
    config = composed(name)
    numbers: dict[str, Any] = {
        str(key): value
        for key, value in config.optimizer.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    assert "lr" in numbers
    for key, value in numbers.items():
        changed = config.copy()
        changed.optimizer[key] = value / 2
        assert not np.array_equal(path_of(changed), path_of(config)), key


@pytest.mark.parametrize("name", options("optimizer"))
def test_a_small_first_step_descends(name: str) -> None:
    first = path_of(composed(name, ["optimizer.lr=1e-4"]))[0]
    assert first @ A @ first / 2 - B @ first < START @ A @ START / 2 - B @ START
