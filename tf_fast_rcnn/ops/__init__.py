"""The native library, and RoI pooling over it."""
