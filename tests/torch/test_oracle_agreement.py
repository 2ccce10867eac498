"""The PyTorch physics against the oracle, function by function, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ptycho_core.physics import forward, likelihood, patches, solver  # noqa: E402
from ptycho_core.stitching import probe_weights  # noqa: E402

twin = pytest.importorskip("ptycho_backend_torch.physics")

pytestmark = pytest.mark.torch

N, HEIGHT, WIDTH, J = 16, 29, 21, 5


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    """Two modes, sub-pixel rests at both ends of the interval, patches in the corners of a tall canvas."""
    rng = np.random.default_rng(7)

    def noise(*shape: int) -> np.ndarray:
        return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape))

    case = {
        "obj": 1 + 0.4 * noise(HEIGHT, WIDTH),
        "probe": noise(2, N, N) * np.hanning(N)[:, None] * np.hanning(N + 4)[None, 2:-2],
        "corners": np.array([[0, 0], [13, 5], [4, 5], [13, 0], [0, 5]]),
        "rest": np.array([[-0.5, 0.3], [0.49, -0.2], [0.0, 0.11], [0.37, 0.0], [-0.25, -0.41]]),
        "mask": rng.random((N, N)) > 0.2,
        "background": rng.uniform(0.1, 1, (N, N)),
        "scale": 1.9,
    }
    case["patches"] = patches.extract(case["obj"], case["corners"], N)
    rate = forward.expected_counts(case["patches"], case["probe"], case["rest"], 2.3, case["background"])
    case["counts"] = rng.poisson(rate).astype(float)
    case["counts"][1] = 0
    return case


def t(value: np.ndarray) -> Any:
    return torch.from_numpy(np.ascontiguousarray(value))


def agree(found: Any, wanted: np.ndarray) -> None:
    assert tuple(found.shape) == wanted.shape
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.spec("BE-7", "FM-2", "FM-4")
def test_shift_and_far_field(case: dict[str, Any]) -> None:
    agree(twin.shift_ramp(t(case["rest"]), N), forward.shift_ramp(case["rest"], N))
    shifted = forward.fourier_shift(case["probe"][None], case["rest"][:, None])
    agree(twin.fourier_shift(t(case["probe"])[None], t(case["rest"])[:, None]), shifted)
    agree(twin.far_field(t(shifted)), forward.far_field(shifted))
    agree(twin.far_field_adjoint(t(shifted)), forward.far_field_adjoint(shifted))


@pytest.mark.spec("BE-7", "FM-3", "FM-5")
def test_exit_waves_and_expected_counts(case: dict[str, Any]) -> None:
    names = ("patches", "probe", "rest")
    agree(twin.exit_waves(*(t(case[n]) for n in names)), forward.exit_waves(*(case[n] for n in names)))
    plain = forward.expected_counts(*(case[n] for n in names))
    agree(twin.expected_counts(*(t(case[n]) for n in names)), plain)
    full = forward.expected_counts(*(case[n] for n in names), 1.9, case["background"])
    agree(twin.expected_counts(*(t(case[n]) for n in names), 1.9, t(case["background"])), full)


@pytest.mark.spec("BE-7", "FM-1", "FM-7")
def test_patches_of_several_canvases_stay_apart(case: dict[str, Any]) -> None:
    objects = np.stack([case["obj"], case["obj"][::-1, ::-1] * 2j])
    corners = np.stack([case["corners"], case["corners"][::-1]])
    cut = np.stack([patches.extract(o, c, N) for o, c in zip(objects, corners, strict=True)])
    agree(twin.extract(t(objects), t(corners), N), cut)
    shape = (HEIGHT, WIDTH)
    added = np.stack([patches.accumulate(q, c, shape) for q, c in zip(cut, corners, strict=True)])
    agree(twin.accumulate(t(cut), t(corners), shape), added)
    weights = np.abs(cut) ** 2
    weights[:, :, :3] = 0
    merged = np.stack([patches.merge(q, w, c, shape) for q, w, c in zip(cut, weights, corners, strict=True)])
    agree(twin.merge(t(cut), t(weights), t(corners), shape), merged)


@pytest.mark.spec("BE-7", "FM-7")
def test_weights_of_patches(case: dict[str, Any]) -> None:
    shifted = twin.fourier_shift(t(case["probe"])[None], t(case["rest"])[:, None])
    wanted = probe_weights(case["probe"], case["rest"])
    np.testing.assert_allclose(twin.probe_weights(shifted).numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.spec("BE-7", "FM-8", "FM-9", "FM-10", "CONV-5")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_losses_and_their_gradients(case: dict[str, Any], loss: str) -> None:
    obj, probe = (t(case[n]).requires_grad_() for n in ("obj", "probe"))
    scale = torch.tensor(case["scale"], dtype=torch.float64, requires_grad=True)
    cut = twin.extract(obj[None], t(case["corners"])[None], N)[0]
    rate = twin.expected_counts(cut, probe, t(case["rest"]), scale, t(case["background"]))
    value = getattr(twin, f"{loss}_loss")(rate, t(case["counts"]), t(case["mask"]), 37.0)
    value.backward()
    wanted = likelihood.loss_and_gradient(
        case["obj"], case["probe"], case["corners"], case["rest"], case["counts"], loss,
        case["mask"], case["background"], case["scale"], 37.0,
    )  # fmt: skip
    assert value.item() == pytest.approx(wanted[0], rel=1e-12)
    agree(obj.grad, wanted[1])
    agree(probe.grad, wanted[2])
    assert scale.grad.item() == pytest.approx(wanted[3], rel=1e-9)


@pytest.mark.spec("BE-7", "FM-8", "FM-9")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_dark_pixels_are_clamped_alike(loss: str) -> None:
    rate, counts = np.array([[[0.0, 1e-9, 1e-8, 2.0]]]), np.array([[[3.0, 0.0, 1.0, 0.0]]])
    wanted = getattr(likelihood, f"{loss}_loss")(rate, counts, None, 2.0)
    assert getattr(twin, f"{loss}_loss")(t(rate), t(counts), None, 2.0).item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.spec("BE-7", "FM-16")
@pytest.mark.parametrize("with_extras", [False, True])
def test_solver_update(case: dict[str, Any], with_extras: bool) -> None:
    shifted = forward.fourier_shift(case["probe"][None], case["rest"][:, None])
    mask, level = (case["mask"], case["background"]) if with_extras else (None, None)
    wanted = solver.solver_update(case["patches"] * 1.1, shifted, case["counts"], mask, level, 1.9)
    found = twin.solver_update(
        t(case["patches"] * 1.1),
        t(shifted),
        t(case["counts"]),
        None if mask is None else t(mask),
        None if level is None else t(level),
        1.9,
    )
    assert twin.RELAXATION == solver.RELAXATION
    agree(found, wanted)
