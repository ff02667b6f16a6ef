"""Serving SavedModels: the embedded server, the gateway before it, and TensorFlow Serving's own program.

The embedded server speaks TensorFlow Serving's protocols. It knows nothing of Keras and of the package's networks: what
it serves is the SavedModel alone.
"""
