"""Which accelerator a name means."""

from __future__ import annotations

import pytest

from ptycho_core.enginekit.hardware import choose_accelerator, onednn_may_use_bf16
from ptycho_core.errors import ConfigError

ALL = {"cpu": True, "mps": True, "cuda": True}
CPU_ONLY = {"cpu": True, "mps": False, "cuda": False}


def test_auto_takes_the_best_that_is_there():
    assert choose_accelerator("auto", ALL, "Frame") == "cuda"
    assert choose_accelerator("auto", {**ALL, "cuda": False}, "Frame") == "mps"
    assert choose_accelerator("auto", CPU_ONLY, "Frame") == "cpu"
    assert choose_accelerator("auto", {"cpu": True, "cuda": False}, "Frame") == "cpu"


@pytest.mark.parametrize("name", ["cpu", "mps", "cuda"])
def test_a_name_is_taken_at_its_word(name):
    assert choose_accelerator(name, ALL, "Frame") == name


@pytest.mark.parametrize("name", ["mps", "cuda"])
def test_what_is_not_there_is_refused_and_nothing_else_is_taken(name):
    with pytest.raises(ConfigError) as caught:
        choose_accelerator(name, CPU_ONLY, "Frame")
    assert str(caught.value) == f"accelerator = '{name}' is not available to Frame here; available: cpu."


@pytest.mark.parametrize("name", ["tpu", "CUDA", "", "gpu"])
def test_a_name_that_the_framework_does_not_know(name):
    with pytest.raises(ConfigError, match=rf"accelerator = '{name}' .* to Frame here; available: cpu, mps, cuda\."):
        choose_accelerator(name, ALL, "Frame")


def test_an_accelerator_that_the_framework_never_has_is_not_offered():
    with pytest.raises(ConfigError, match=r"'mps' is not available to Frame here; available: cpu, cuda\."):
        choose_accelerator("mps", {"cpu": True, "cuda": True}, "Frame")


@pytest.mark.parametrize(
    ("switches", "may"),
    [
        ({}, True),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, False),
        ({"ONEDNN_MAX_CPU_ISA": "sse41"}, False),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, False),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, True),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, True),
        ({"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, True),
        ({"ONEDNN_MAX_CPU_ISA": ""}, True),
        ({"DNNL_MAX_CPU_ISA": "avx2"}, False),
        ({"ONEDNN_MAX_CPU_ISA": "ALL", "DNNL_MAX_CPU_ISA": "AVX2"}, True),
    ],
)
def test_bfloat16_is_not_for_a_onednn_that_is_held_to_less(switches, may):
    assert onednn_may_use_bf16(switches) is may
