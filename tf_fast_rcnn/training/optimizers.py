"""Optimisers for fine-tuning: stochastic gradient descent as in the paper, and AdamW for small datasets.

Keras's own SGD applies weight decay directly to the variable and not through the gradient and the momentum, which makes
it about ten times weaker than Caffe's with the same value. And Keras has no learning rates per variable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import keras

from tf_fast_rcnn.files import renamed
from tf_fast_rcnn.models.parts import pretrained_parts

if TYPE_CHECKING:
    import tensorflow as tf

Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule

# Names in the configurations of optimisers in models and runs saved by version 0.1.
EARLIER_NAMES = {"bias_rate": "bias_lr_multiplier", "slow_rate": "slow_lr_multiplier"}


def sgd(
    learning_rate: Rate = 0.001,
    momentum: float = 0.9,
    weight_decay: float = 0.0005,
    bias_lr_multiplier: float = 2.0,
    decay_biases: bool = False,
    **options: Any,
) -> FineTuningSGD:
    """The paper's optimiser (section 2.3, "SGD hyper-parameters").

    Args:
        learning_rate: a number, or a Keras schedule. The paper uses 0.001, and a tenth of it for the last quarter.
        momentum: momentum of the gradient.
        weight_decay: added to the gradient as `weight_decay * variable`, as in Caffe.
        bias_lr_multiplier: factor for the learning rate of biases.
        decay_biases: whether weight decay also applies to biases, as the paper says ("on weights and biases"); in the
            released solver it does not.
        **options: options of all Keras optimisers: `gradient_accumulation_steps`, `use_ema`, `global_clipnorm`, ...

    Returns:
        `FineTuningSGD`, a Keras optimiser.

    Example:
        >>> model.compile(optimizer=sgd(learning_rate=0.001), loss=multi_task_loss(model))
    """
    return FineTuningSGD(
        learning_rate=learning_rate,
        momentum=momentum,
        gradient_decay=weight_decay,
        bias_lr_multiplier=bias_lr_multiplier,
        decay_biases=decay_biases,
        **options,
    )


def adamw(
    model: keras.Model,
    learning_rate: Rate = 3e-4,
    backbone_lr_multiplier: float = 0.2,
    weight_decay: float = 1e-4,
    decay_biases: bool = False,
    **options: Any,
) -> FineTuningAdamW:
    """AdamW with a lower learning rate for the backbone. On a small dataset it takes minutes where SGD takes hours.

    Args:
        model: a model made by `fast_rcnn`.
        learning_rate: a number, or a Keras schedule.
        backbone_lr_multiplier: factor for the learning rate, and so for the weight decay, of the pre-trained backbone,
            including a reused stage.
        weight_decay: decoupled, as in the AdamW paper (Loshchilov and Hutter, 2019): a step subtracts
            `learning_rate * weight_decay` times each weight.
        decay_biases: whether weight decay also applies to biases.
        **options: options of all Keras optimisers.

    Returns:
        `FineTuningAdamW`, a Keras optimiser.

    Example:
        >>> model.compile(optimizer=adamw(model, learning_rate=3e-4), loss=multi_task_loss(model))
    """
    slow = [variable.path for layer in pretrained_parts(model) for variable in layer.trainable_variables]
    return FineTuningAdamW(
        learning_rate=learning_rate,
        decoupled_decay=weight_decay,
        decay_biases=decay_biases,
        slow_variables=slow,
        slow_lr_multiplier=backbone_lr_multiplier,
        **options,
    )


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class FineTuningSGD(keras.optimizers.SGD):
    """SGD with Caffe's weight decay and a separate learning rate for biases: see `sgd`."""

    def __init__(
        self,
        *args: Any,
        gradient_decay: float = 0.0,
        bias_lr_multiplier: float = 1.0,
        decay_biases: bool = False,
        name: str = "fine_tuning_sgd",
        **options: Any,
    ) -> None:
        super().__init__(*args, name=name, **options)
        self.gradient_decay = gradient_decay
        self.bias_lr_multiplier = bias_lr_multiplier
        self.decay_biases = decay_biases

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        is_bias = _keras_variable(self, variable).name == "bias"
        if self.decay_biases or not is_bias:
            gradient = gradient + self.gradient_decay * keras.ops.convert_to_tensor(variable)
        if is_bias:
            learning_rate = learning_rate * self.bias_lr_multiplier
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("gradient_decay", "bias_lr_multiplier", "decay_biases")}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> FineTuningSGD:
        return super().from_config(renamed(config, EARLIER_NAMES), custom_objects)


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class FineTuningAdamW(keras.optimizers.Adam):
    """AdamW with a separate learning rate for some variables and no weight decay for biases: see `adamw`.

    Keras's AdamW applies weight decay to all variables with one learning rate, so the decay is implemented here.
    """

    def __init__(
        self,
        *args: Any,
        decoupled_decay: float = 0.0,
        decay_biases: bool = False,
        slow_variables: Iterable[str] = (),
        slow_lr_multiplier: float = 1.0,
        name: str = "fine_tuning_adamw",
        **options: Any,
    ) -> None:
        super().__init__(*args, name=name, **options)
        self.decoupled_decay = decoupled_decay
        self.decay_biases = decay_biases
        self.slow_variables = frozenset(slow_variables)
        self.slow_lr_multiplier = slow_lr_multiplier

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        known = _keras_variable(self, variable)
        if known.path in self.slow_variables:
            learning_rate = learning_rate * self.slow_lr_multiplier
        if self.decay_biases or known.name != "bias":
            decay = keras.ops.cast(learning_rate * self.decoupled_decay, variable.dtype)
            self.assign_sub(variable, decay * keras.ops.convert_to_tensor(variable))
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("decoupled_decay", "decay_biases", "slow_lr_multiplier")}
        return {**super().get_config(), **own, "slow_variables": sorted(self.slow_variables)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> FineTuningAdamW:
        return super().from_config(renamed(config, EARLIER_NAMES), custom_objects)


def _keras_variable(optimizer, variable):
    """The Keras variable, which has a path, for the TensorFlow variable that an update step receives."""
    return optimizer._trainable_variables[optimizer._get_variable_index(variable)]
