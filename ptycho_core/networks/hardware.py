"""Which accelerator a name means, once for all engines."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ConfigError

__all__ = ["choose_accelerator"]


def choose_accelerator(accelerator: str, present: Mapping[str, bool], framework: str) -> str:
    """The accelerator to use; ``auto`` takes the best there is.

    Args:
        accelerator: as in a config.
        present: accelerators that the framework knows, best last, and whether each is here.
        framework: its name, for the message.

    Raises:
        ConfigError: the accelerator asked for is not there. Nothing falls back to the CPU silently.
    """
    there = [name for name, here in present.items() if here]
    if accelerator == "auto":
        return there[-1]
    if accelerator not in there:
        raise ConfigError(
            f"accelerator = {accelerator!r} is not available to {framework} here; available: {', '.join(there)}."
        )
    return accelerator
