"""TensorFlow is imported when these tests are collected: quietly, as by the command, for all tests of a process."""

from __future__ import annotations

import os

from ptycho_core.plugins.registry import backend_spec

for _name, _value in backend_spec("tensorflow").quiet_environment.items():
    os.environ.setdefault(_name, _value)
