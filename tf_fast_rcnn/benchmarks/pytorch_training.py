"""Training steps of a Fast R-CNN model in PyTorch, timed part by part: the peer of `benchmarks.training`."""

from __future__ import annotations

import contextlib
import time

import keras
import numpy as np
import torch
from torch.nn import functional

from tf_fast_rcnn import boxes
from tf_fast_rcnn.benchmarks.pytorch_network import PyTorchNetwork, roi_max_pool, roi_max_pool_gradient
from tf_fast_rcnn.models.parts import denormalization_layer, stages


class PyTorchTraining:
    """The step of `model.fit` in PyTorch: forward, multi-task loss, backward, the paper's SGD.

    RoI pooling is a plain loop here, whose time, forward and backward, counts as nothing.

    Args:
        model: what `fast_rcnn` returned, of one feature map; its weights are copied.
        learning_rate, momentum, weight_decay: as `training.optimizers.sgd` takes them; biases learn at twice the
            rate and do not decay.
        half: whether to compute under bfloat16 autocast.
    """

    def __init__(
        self,
        model: keras.Model,
        learning_rate: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0005,
        half: bool = False,
    ) -> None:
        parts = stages(model)
        self.convolve, self.classify = PyTorchNetwork(parts.convolve), PyTorchNetwork(parts.classify)
        self._pooling = next(layer for layer in model.layers if layer.name.startswith("roi_pooling"))
        self._std = torch.tensor(denormalization_layer(model).std)
        self._half = half
        parameters = [*self.convolve.named_parameters(), *self.classify.named_parameters()]
        trained = {"weight": [], "bias": []}
        for name, parameter in parameters:
            if parameter.requires_grad:
                trained[name.split(".")[-1]].append(parameter)
        groups = [
            {"params": trained["weight"], "weight_decay": weight_decay},
            {"params": trained["bias"], "lr": 2 * learning_rate},
        ]
        self._optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)

    def step(self, images: np.ndarray, rois: np.ndarray, labels: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """One mini-batch.

        Args:
            images: float32 `[B, H, W, 3]`, RGB 0..255.
            rois: float32 `[B, R, 4]`, pixels.
            labels: int `[B, R]`, 0..K.
            targets: float32 `[B, R, 4]`, regression targets of the labels' boxes.

        Returns:
            Dict of the parts' names and seconds.
        """
        watch = _Watch()
        self._optimizer.zero_grad(set_to_none=True)
        watch.lap("update")
        with self._precision():
            (features,) = keras.tree.flatten(self.convolve(torch.as_tensor(images)))
        watch.lap("convolutions")
        pooled, argmax = roi_max_pool(
            features, boxes.to_inclusive_corners(rois), self._pooling.output_size, self._pooling.spatial_scale
        )
        watch.leave_out()
        pooled.requires_grad_()
        with self._precision():
            outputs = self.classify(pooled)
            loss = self._loss(outputs, torch.as_tensor(labels).long(), torch.as_tensor(targets))
        watch.lap("fully connected")
        loss.backward()
        watch.lap("backward")
        gradient = roi_max_pool_gradient(pooled.grad, argmax, features.shape)
        watch.leave_out()
        features.backward(gradient)
        watch.lap("backward")
        self._optimizer.step()
        watch.lap("update")
        return watch.seconds

    def _precision(self):
        return torch.autocast("cpu", torch.bfloat16) if self._half else contextlib.nullcontext()

    def _loss(self, outputs, labels, targets):
        logits, deltas = outputs["class_logits"].float(), outputs["box_deltas"].float()
        class_loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        true_class = (labels - 1).clamp(min=0)
        predicted = deltas.gather(2, true_class[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
        difference = (predicted - targets) / self._std[true_class]
        box_loss = functional.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none").sum(-1)
        return (class_loss + box_loss[labels >= 1].sum()) / labels.numel()


class _Watch:
    """Adds up the seconds of each part of a step."""

    def __init__(self):
        self.seconds, self._last = {}, time.perf_counter()

    def lap(self, name):
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def leave_out(self):
        """The time since the last lap counts for nothing."""
        self._last = time.perf_counter()
