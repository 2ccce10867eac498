"""What an option is given: huge numbers, NaN, other kinds, names of nothing; one line, and nothing begun."""

from __future__ import annotations

import pytest
from refusals import refused, refused_in_child

pytestmark = pytest.mark.hostile

DIGITS = "9" * 5000
HUGE = "1" + "0" * 30
MILLION_DIGITS = "9" * 100_000
"""A word of a command line has 128 kB at most."""

RUN = ["run", "scan.npz", "--out", "new", "--backend", "numpy"]
NUMBERS = ("", "-1", "0", "nan", "inf", "-inf", "1e400", DIGITS, HUGE, "1.5", "two", "[1]", "{a: 1}", "²", "٣٣", "0x10")
"""Of which each option accepts those that are said of it."""

WHOLE: dict[str, set[str]] = {
    "--epochs": {"٣٣"},
    "--batch_size": {"٣٣"},
    "--seed": {"0", "٣٣"},
    "--probe_modes": {"٣٣"},
    "--n_subsample": {"٣٣"},
    "--threads": {"٣٣"},
    "--devices": set(),
    "--num_workers": {"0", "٣٣"},
    "--frames_at_once": {"٣٣"},
    "--refinement.epochs": {"٣٣"},
    "--refinement.patience": {"٣٣"},
    "--refinement.batch_size": {"٣٣"},
}
"""Option → values that are whole numbers in its range; each makes a run that is not made here."""

REAL = {
    "--test_fraction": {"0"},
    "--learning_rate": {"1.5"},
    "--weight_decay": {"0", "1.5"},
    "--weight_average": {"0"},
    "--nphotons": {"1.5"},
    "--collapse_threshold": {"0", "1.5", HUGE},
    "--refinement.position_limit_px": {"1.5"},
    "--refinement.probe_support": set(),
}

CASES = [
    (option, value)
    for option, accepted in (WHOLE | REAL).items()
    for value in NUMBERS
    if value not in accepted and not (option in REAL and value in (HUGE, "٣٣"))
]


@pytest.mark.spec("CMD-12")
@pytest.mark.parametrize(("option", "value"), CASES, ids=lambda text: text[:20] or "nothing")
def test_a_number_that_is_none_or_out_of_range_is_refused(sound, option, value):
    refused([*RUN, f"{option}={value}"], sound, option.lstrip("-").rpartition(".")[2])


READING = {
    "--measurement": ("photons", "", DIGITS),
    "--propagation": ("near_field", "near_field:nan", "near_field:0", "near_field:-1", "near_field:1e400", "far", ":"),
    "--dialect": ("nobody", "../npz", "__init__"),
    "--entry": ("99", "-1", DIGITS, "nowhere"),
    "--scan_index": ("-1", "1.5", "²", "٣", DIGITS, HUGE, "99"),
    "--frames": ("a:b", "0:0", "5:2", "::0", "::-0", "99:100", f"{DIGITS}:", "1:2:3:4", ":::", "²:"),
    "--position_unit": ("parsec", "m m", "\x1b[2J"),
    "--raster": ("5", "5,4,1", "5,-4", "-5,-4", "0,0", f"{DIGITS},1", f"{HUGE},{HUGE}", "nan,nan", "1.5,2", ","),
    "--scan_step": ("nan", "-5nm", "0", "1e400m", "5parsec", "1nm,2nm,3nm", ",", "inf", DIGITS),
    "--orientation": ("upside_down", "flip_y+flip_y", "+", "auto+flip_y", "transpose+" * 1000),
    "--rotate": ("nan", "inf", "north", DIGITS, "1e400"),
    "--energy_eV": ("nan", "0", "-8keV", "1e400", "8 parsec", "inf", DIGITS, "8keV keV"),
    "--distance_m": ("nan", "0", "-2", "1e400", "inf", DIGITS, "2 cats"),
    "--detector_pixel_size_m": ("nan", "0", "-2", "1e400", "inf", DIGITS),
    "--pixel_size_m": ("nan", "0", "-2", "1e400", "inf", DIGITS),
    "--radiation": ("neutron", ""),
    "--crop": ("0", "-8", "1.5", "3", "²", DIGITS, HUGE, "1000000"),
    "--pad": ("0", "-8", "8", "1.5", "3", "²", DIGITS, HUGE, "1000000"),
    "--bin": ("0", "-2", "3", "1.5", "²", DIGITS, HUGE, "1000000"),
    "--centre": ("8", "8,8,8", "nan,nan", "inf,8", "-1e300,8", f"{DIGITS},8", "1e400,8", "99,99", ","),
    "--mask_polarity": ("evil", ""),
    "--background": ("-1", "nan", "inf", "1e400", "-inf", DIGITS),
    "--offset": ("nan", "0", "-1", "inf", "1e400", DIGITS),
    "--gain": ("nan", "0", "-1", "inf", "1e400", "low", DIGITS),
    "--probe": (
        "aperture()", "aperture(radius=nan)", "aperture(radius=-5)", "aperture(radius=0)", "aperture(radius=1e400)",
        "aperture(radius=5, inner=9)", "aperture(radius=5, defocus_px2=nan)", "aperture(radius=5, radius=6)",
        "disc()", "disc(radius=0)", "disc(radius=-1)", "disc(radius=nan)", "disc(radius=1e9)", "disc(size=5)",
        "aperture(" * 1000, "aperture(radius=" + "9" * 5000 + ")", "aperture(semi_angle=1mrad)", "disc(radius=1um)",
    ),
    "--map": ("[1]",),
    "--max_memory": ("0", "-1", "nan", "inf", "1e400", "much", DIGITS),
    "--max_seconds": ("0", "-1", "nan", "inf", "1e400", "long", DIGITS),
    "--max_canvas": ("0", "-1", "nan", "inf", "wide", DIGITS),
    "--max_objects": ("0", "-1", "nan", "inf", "many", DIGITS),
}  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, values in READING.items() for value in values],
    ids=lambda text: text[:30] or "nothing",
)
def test_what_a_scan_cannot_be_read_with_is_refused(sound, option, value):
    refused([*RUN, f"{option}={value}"], sound, notes=True)


OTHERS = {
    "backend": ["--backend", "nobody"],
    "backend by path": ["--backend", "../../evil"],
    "backend that acts": ["--backend", "\x1b[2J\u202e"],
    "backend without end": ["--backend", "x" * 100_000],
    "accelerator": ["--accelerator", "quantum"],
    "accelerator not there": ["--accelerator", "cuda"],
    "accelerator without end": ["--accelerator", "x" * 100_000],
    "precision": ["--precision", "7"],
    "strategy": ["--strategy", "ddp"],
    "logger": ["--loggers", "[nobody]"],
    "loggers": ["--loggers", "tensorboard"],
    "preset": ["--preset", "fastest"],
    "method": ["--method", "magic"],
    "algorithm": ["--algorithm", "magic"],
    "loss": ["--loss", "magic"],
    "schedule": ["--schedule", "magic", "--method", "network"],
    "split": ["--test_split", "magic"],
    "truth": ["--probe_trainable", "yes"],
    "refine": ["--refine", ":"],
    "refine of nobody": ["--refine", "nobody"],
    "refine for ever": ["--refine", f"numpy:{DIGITS}"],
    "refine at power": ["--refine", "numpy:²"],
    "refine never": ["--refine", "numpy:0"],
    "refine less": ["--refine", "numpy:-3"],
    "options": ["--options.nobody.a", "1"],
    "options of numpy": ["--options.numpy.a", "1"],
    "options that bomb": ["--options.numpy.a", "[" * 50_000],
    "options without a value": ["--options.numpy.a"],
    "options that dot": ["--options." + "a." * 5000 + "b", "1"],
    "options engine": ["--options.ptychi.engine", "x"],
    "model of a solver": ["--model.generator", "probe_unet", "--method", "solver"],
    "generator": ["--method", "network", "--model.generator", "nobody", "--backend", "numpy"],
    "unknown": ["--nothing", "1"],
    "unknown without end": ["--" + "x" * 100_000, "1"],
    "unknown that acts": ["--\x1b]0;owned\x07", "1"],
    "short": ["-z"],
    "not a scan more": ["more", "scans", "than", "one"],
    "no value": ["--epochs"],
    "old name": ["--n_images", "3"],
    "modes": ["--probe_modes", "1000000000000"],
    "groups of all": ["--n_subsample", "0"],
    "config of null": ["--config", "a\0b"],
    "resume of nothing": ["--resume_from", ""],
}


@pytest.mark.spec("CMD-12")
@pytest.mark.parametrize("case", OTHERS)
def test_words_that_mean_nothing_are_refused(sound, case):
    base = RUN[:-2] if any(word == "--backend" for word in OTHERS[case]) else RUN
    refused([*base, *OTHERS[case]], sound, notes=True)


SIMULATED = {
    "photons": ["--photons", "nan"],
    "photons beyond all": ["--photons", "1e400"],
    "photons below 0": ["--photons", "-1"],
    "photons of counts that no number holds": ["--photons", "1e300"],
    "frames": ["--n_frames", "0"],
    "frames without end": ["--n_frames", HUGE],
    "frames of digits": ["--n_frames", DIGITS],
    "side": ["--N", "3"],
    "side without end": ["--N", HUGE],
    "side of gigabytes": ["--N", "4096", "--n_frames", "1000000000"],
    "object": ["--object", "cat"],
    "seed": ["--seed", "-1"],
    "grid": ["--grid_shape", f"[{HUGE},{HUGE}]"],
    "grid below 0": ["--grid_shape", "[-5,-5]"],
    "grid of words": ["--grid_shape", "[a,b]"],
    "step": ["--step_px", "nan"],
    "step without end": ["--step_px", "1e300"],
    "step of gigabytes": ["--step_px", "1e6"],
    "modes": ["--n_modes", HUGE],
    "modes below 0": ["--n_modes", "-1"],
    "unknown": ["--nothing", "1"],
}


@pytest.mark.parametrize("case", SIMULATED)
def test_a_scan_that_cannot_be_is_not_simulated(sound, case):
    refused(["simulate", "--out", "new.npz", *SIMULATED[case]], sound)


COMMANDS = {
    "none": ["nothing"],
    "without end": ["x" * 100_000],
    "that acts": ["\x1b[2J"],
    "by path": ["../main"],
    "of two": ["run\nscan.npz"],
    "an option first": ["--debug", "run"],
    "null": ["a\0b"],
    "no scan": ["run"],
    "no truth": ["compare", "image.h5"],
    "export of none": ["export", "image.h5", "--format", "gif"],
    "export by no suffix": ["export", "image.h5", "--out", "new.gif"],
    "convert by no suffix": ["convert", "scan.npz", "new.gif"],
    "conform of none": ["conform", "nobody"],
    "orient of none": ["orient", "scan.npz", "--engine", "nobody"],
    "reconstruct without": ["reconstruct", "scan.npz"],
    "reconstruct by nobody": ["reconstruct", "--model", "model.ptycho", "scan.npz", "--backend", "nobody"],
    "reconstruct trained": ["reconstruct", "--model", "model.ptycho", "scan.npz", "--epochs", "3"],
    "reconstruct cropped": [
        "reconstruct", "--model", "model.ptycho", "scan.npz", "--out", "new", "--inference.central_crop_px", HUGE,
    ],
    "reconstruct passing": [
        "reconstruct", "--model", "model.ptycho", "scan.npz", "--out", "new", "--inference.passes", "3",
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS)
def test_commands_that_are_none_are_refused(sound, case):
    refused(COMMANDS[case], sound)


@pytest.mark.parametrize("option", ["--epochs", "--crop", "--raster", "--options.numpy.a", "--loss"])
def test_a_word_as_long_as_may_be_is_answered_in_a_line(sound, option):
    refused_in_child([*RUN, f"{option}={MILLION_DIGITS}"], sound, most_megabytes=500)
