"""The PyTorch engine: physics-informed networks on torch and Lightning."""
