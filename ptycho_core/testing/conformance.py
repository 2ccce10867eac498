"""The whole suite: subclass ``BackendConformance`` in a test module, name the engine, and run pytest on it."""

from __future__ import annotations

from .section_bundles import BundleSection
from .section_isolation import IsolationSection
from .section_near_field import NearFieldSection
from .section_physics import GradientSection, PhysicsSection
from .section_protocol import ProtocolSection
from .section_refinement import RefinementSection
from .section_resuming import ResumingSection
from .section_roles import RoleSection
from .section_stepping import SteppingSection
from .section_training import ResultSection, TrainingSection

__all__ = ["BackendConformance"]


# pytest runs the tests of the last base first: an engine should hear of a wrong signature before anything else
class BackendConformance(
    IsolationSection,
    NearFieldSection,
    RefinementSection,
    SteppingSection,
    BundleSection,
    ResumingSection,
    RoleSection,
    ResultSection,
    TrainingSection,
    GradientSection,
    PhysicsSection,
    ProtocolSection,
):
    """Everything that the protocol asks of an engine (specs/30-backend-protocol).

    A subclass sets ``engine_name``; ``settings`` and ``side`` if the defaults do not suit the engine. What an engine
    need not have is skipped with the reason ``not offered``; an engine that is not installed, or none at all, fails.

    Example:
        ::

            class TestMine(BackendConformance):
                engine_name = "mine"
                settings = {"epochs": 8}
    """
