"""The compiled ops, and RoI pooling built on them."""
