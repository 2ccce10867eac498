"""The configs that ptychodus builds in its parent process; no framework is imported."""

from ptycho_core_ptychodus.torch_configs import DataConfig, DatagenConfig, InferenceConfig, ModelConfig, TrainingConfig

__all__ = ["DataConfig", "DatagenConfig", "InferenceConfig", "ModelConfig", "TrainingConfig"]
