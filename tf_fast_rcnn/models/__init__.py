"""Networks: backbones, the detector made from one, its losses, and truncated SVD."""
