"""Training and inference as ptychodus calls them."""

from ptycho_core_ptychodus.tf_flow import load_inference_bundle, run_cdi_example, save_outputs

__all__ = ["load_inference_bundle", "run_cdi_example", "save_outputs"]
