"""The configs that ptychodus builds in its parent process; no framework is imported."""

from ptycho_core_ptychodus.tf_configs import InferenceConfig, ModelConfig, TrainingConfig, update_legacy_dict

__all__ = ["InferenceConfig", "ModelConfig", "TrainingConfig", "update_legacy_dict"]
