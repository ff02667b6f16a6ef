"""Serving of SavedModels: the embedded server, the gateway in front of a server, and the TensorFlow Serving binary.

The embedded server implements the protocols of TensorFlow Serving. It only needs the SavedModel and does not depend on
Keras or on the networks of this package.
"""
