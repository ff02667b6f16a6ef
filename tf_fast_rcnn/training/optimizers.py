"""Optimisers for fine-tuning: stochastic gradient descent as in the paper, and AdamW for small data sets.

Keras's own SGD takes weight decay out of the variable beside the gradient and momentum, which makes it about ten
times weaker than Caffe's at the same number; and Keras has no rates for single variables.
"""

import keras


def sgd(rate=0.001, momentum=0.9, weight_decay=0.0005, bias_rate=2.0):
    """The paper's optimiser (section 2.3, "SGD hyper-parameters").

    Args:
        rate: learning rate, or a Keras schedule. The paper's is 0.001, and a tenth of it for the last quarter.
        momentum: of the gradient.
        weight_decay: added to the gradient as `weight_decay * variable`, as in Caffe, for weights; biases are not
            decayed, as in the released solver.
        bias_rate: biases learn at this multiple of the rate.

    Returns:
        `FineTuningSGD`, a Keras optimiser.

    Example:
        >>> model.compile(optimizer=sgd(rate=0.001), loss=multi_task_loss(model))
    """
    return FineTuningSGD(learning_rate=rate, momentum=momentum, gradient_decay=weight_decay, bias_rate=bias_rate)


def adamw(model, rate=3e-4, backbone_rate=0.2, weight_decay=1e-4):
    """AdamW with the backbone at a fraction of the rate: reaches on a small data set in minutes what SGD does in hours.

    Args:
        model: what `fast_rcnn` returned.
        rate: learning rate, or a Keras schedule.
        backbone_rate: the pre-trained convolutions learn at this multiple of the rate.
        weight_decay: of weights, not of biases; decoupled, as in the AdamW paper (Loshchilov and Hutter, 2019).
    """
    slow = [variable.path for variable in model.get_layer("convolutions").trainable_variables]
    return FineTuningAdamW(learning_rate=rate, weight_decay=weight_decay, slow_variables=slow, slow_rate=backbone_rate)


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class FineTuningSGD(keras.optimizers.SGD):
    """SGD with Caffe's weight decay and a rate of its own for biases: see `sgd`."""

    def __init__(self, *args, gradient_decay=0.0, bias_rate=1.0, name="fine_tuning_sgd", **kwargs):
        super().__init__(*args, name=name, **kwargs)
        self.gradient_decay = gradient_decay
        self.bias_rate = bias_rate

    def update_step(self, gradient, variable, learning_rate):
        if _keras_variable(self, variable).name == "bias":
            learning_rate = learning_rate * self.bias_rate
        else:
            gradient = gradient + self.gradient_decay * keras.ops.convert_to_tensor(variable)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "gradient_decay": self.gradient_decay, "bias_rate": self.bias_rate}


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class FineTuningAdamW(keras.optimizers.AdamW):
    """AdamW in which some variables learn at a multiple of the rate, and biases do not decay: see `adamw`."""

    def __init__(self, *args, slow_variables=(), slow_rate=1.0, name="fine_tuning_adamw", **kwargs):
        super().__init__(*args, name=name, **kwargs)
        self.slow_variables = frozenset(slow_variables)
        self.slow_rate = slow_rate
        # Keras does not save this, so that it stands here and not with the caller: a resumed run comes from a file.
        self.exclude_from_weight_decay(var_names=["bias"])

    def update_step(self, gradient, variable, learning_rate):
        if _keras_variable(self, variable).path in self.slow_variables:
            learning_rate = learning_rate * self.slow_rate
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "slow_variables": sorted(self.slow_variables), "slow_rate": self.slow_rate}


def _keras_variable(optimizer, variable):
    """The Keras variable, which knows its path, of the TensorFlow variable that an update step is given."""
    return optimizer._trainable_variables[optimizer._get_variable_index(variable)]
