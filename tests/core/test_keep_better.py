"""Which of two images is kept: that which explains the held-out frames better, in the loss that was refined with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from run_engine import CONFIG, Engine, make_scan
from test_score import image_of

from ptycho_core.api.refine import chosen_loss, refine
from ptycho_core.api.score import heldout_loss, score
from ptycho_core.config import RefinementConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.results import Refined, Scored
from ptycho_core.errors import BackendProtocolError


@pytest.fixture
def faint() -> PtychoDataContainer:
    """Frames of a tenth of a count a pixel, where an amplitude loss likes an image that is too dark."""
    return PtychoDataContainer.of(make_scan(photons=100.0), heldout=np.arange(0, 54, 4))


def as_truth(scan: PtychoDataContainer) -> Scored:
    return score(image_of(scan), scan, "stub")


def too_dark(scan: PtychoDataContainer) -> Scored:
    return score(image_of(scan, factor=0.85), scan, "stub")


def refined_to(wanted: Scored, initial: Scored, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Refined:
    monkeypatch.setattr(Engine, "refined", staticmethod(lambda image: wanted.image))
    config = replace(CONFIG, refinement=RefinementConfig(epochs=1, **changes))
    return refine(initial, config, backend=Engine())


@pytest.mark.spec("BE-18")
@pytest.mark.usefixtures("stub")
def test_a_lower_poisson_loss_is_kept_though_every_amplitude_figure_rises(faint, monkeypatch) -> None:
    dark, right = too_dark(faint), as_truth(faint)
    assert heldout_loss(right, "poisson") < heldout_loss(dark, "poisson")
    assert right.heldout.fourier_error > dark.heldout.fourier_error
    assert right.train.fourier_error > dark.train.fourier_error
    done = refined_to(right, dark, monkeypatch)
    assert done.kept
    assert done.best.image is right.image
    assert done.initial is dark


@pytest.mark.spec("BE-18")
@pytest.mark.usefixtures("stub")
def test_a_higher_poisson_loss_is_discarded_though_every_amplitude_figure_falls(faint, monkeypatch) -> None:
    dark, right = too_dark(faint), as_truth(faint)
    with pytest.warns(UserWarning, match="discarded: the loss of the validation frames did not fall") as caught:
        done = refined_to(dark, right, monkeypatch)
    assert not done.kept
    assert done.best is right
    before, after = (heldout_loss(image, "poisson") for image in (right, dark))
    assert done.note.endswith(f"(summed deviance {after:.7g}, before {before:.7g})")
    assert done.note in str(caught[0].message)


@pytest.mark.spec("BE-18")
@pytest.mark.usefixtures("stub")
def test_refined_with_amplitudes_it_is_judged_by_amplitudes(faint, monkeypatch) -> None:
    dark, right = too_dark(faint), as_truth(faint)
    assert refined_to(dark, right, monkeypatch, loss="amplitude").kept
    with pytest.warns(UserWarning, match=r"\(summed squared error of amplitudes .*, before "):
        assert not refined_to(right, dark, monkeypatch, loss="amplitude").kept


@pytest.mark.spec("BE-17", "BE-18")
@pytest.mark.usefixtures("stub")
def test_training_frames_have_no_say_where_frames_are_held_out(monkeypatch) -> None:
    """A scan whose held-out frames are those of another object: what is right for the others is wrong for them."""
    raw = make_scan()
    counts = raw.read_counts(np.arange(54)).copy()
    held = np.arange(0, 54, 4)
    counts[held] *= 4
    scan = PtychoDataContainer.of(replace(raw, frames=type(raw.frames)(counts)), heldout=held)
    right, bright = (score(image_of(scan, factor=f), scan, "stub") for f in (1.0, 1.9))
    assert right.train.deviance < bright.train.deviance
    assert refined_to(bright, right, monkeypatch).kept
    alone = PtychoDataContainer.of(raw)
    right, bright = (score(image_of(alone, factor=f), alone, "stub") for f in (1.0, 1.9))
    with pytest.warns(UserWarning, match="discarded: the loss of the frames did not fall"):
        assert not refined_to(bright, right, monkeypatch).kept


@pytest.mark.usefixtures("stub")
def test_the_losses_of_every_epoch_are_kept(faint, monkeypatch) -> None:
    monkeypatch.setattr(Engine, "refined", staticmethod(lambda image: as_truth(faint).image))
    config = replace(CONFIG, refinement=RefinementConfig(epochs=3))
    seen: list[float] = []
    done = refine(
        too_dark(faint), config, backend=Engine(), progress=lambda event: seen.append(event.metrics["test_loss"])
    )
    losses = {name: values for name, values in done.history.items() if name.endswith("_loss")}
    assert losses == {"train_loss": [1.0, 0.9, 0.8], "test_loss": seen}
    assert len(seen) == 3


class AmplitudeOnly(Engine):
    """It has both losses, and settings that leave it one of them to refine with."""

    allowed: tuple[str, ...] = ("amplitude",)

    def losses_for(self, config):
        return self.allowed


@pytest.mark.spec("BE-18")
@pytest.mark.usefixtures("stub")
def test_what_an_engine_refines_with_is_what_core_judges_by(faint, monkeypatch) -> None:
    """An engine of both losses whose settings allow one: Poisson would discard what it was right to make."""
    dark, right = too_dark(faint), as_truth(faint)
    monkeypatch.setattr(Engine, "refined", staticmethod(lambda image: dark.image))
    config = replace(CONFIG, refinement=RefinementConfig(epochs=1))
    assert refine(right, config, backend=AmplitudeOnly()).kept
    assert Engine.calls[-1][2].refinement.loss == "amplitude"
    with pytest.warns(UserWarning, match="discarded"):
        assert not refine(right, config, backend=Engine()).kept
    assert Engine.calls[-1][2].refinement.loss == "poisson"


@pytest.mark.spec("BE-18")
@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize("allowed", [(), ("amplitude", "huber")])
def test_losses_that_an_engine_has_not_are_its_fault(allowed, monkeypatch) -> None:
    monkeypatch.setattr(AmplitudeOnly, "allowed", allowed)
    with pytest.raises(BackendProtocolError, match=r"'stub': losses_for\(config\) gave .* of amplitude, poisson only"):
        chosen_loss(CONFIG, AmplitudeOnly())
