"""Networks: backbones, Fast R-CNN detectors built from them, the losses, and truncated SVD."""
