"""Lets `keras.models.load_model` read our models after `import tf_fast_rcnn`, which does not import Keras itself.

Keras looks up the classes of a saved model in its dictionary of custom objects. Our classes enter it when their modules
are imported, but that imports TensorFlow, which takes seconds. Until then the dictionary has a `_Placeholder` for each
class; Keras calls its `from_config`, which imports the module. The placeholders are registered at once if Keras has
already been imported; otherwise a finder in `sys.meta_path` registers them right after it is imported.
"""

import importlib
import os
import sys
from types import ModuleType
from typing import Any

_PACKAGE = "tf_fast_rcnn"

# Maps every class that Keras saves by name to its module.
MODULES = {
    "RoIPooling": "ops.roi_pooling",
    "Preprocessing": "models.backbones.preprocessing",
    "CaffeMaxPooling2D": "models.backbones.caffe_layers",
    "LocalResponseNormalization": "models.backbones.caffe_layers",
    "PretrainedNetwork": "models.pretrained",
    "RoICorners": "models.fast_rcnn",
    "BoxDenormalization": "models.fast_rcnn",
    "RoIsToBatch": "models.fast_rcnn",
    "BatchToRoIs": "models.fast_rcnn",
    "ClassLoss": "models.losses",
    "BoxLoss": "models.losses",
    "FineTuningSGD": "training.optimizers",
    "FineTuningAdamW": "training.optimizers",
}


class _Placeholder:
    """Stands in for a class whose module has not been imported yet."""

    def __init__(self, name: str):
        self._name = name

    def from_config(self, config: dict[str, Any]) -> Any:
        """Imports the module, which replaces this placeholder, and returns an object of the actual class."""
        importlib.import_module(_PACKAGE).check_keras_backend()
        module = importlib.import_module(f"{_PACKAGE}.{MODULES[self._name]}")
        return getattr(module, self._name).from_config(config)


class _KerasFinder:
    """Finds `keras` with the other finders, and registers the placeholders once it has been imported."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        if name != "keras":
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec is not None and spec.loader is not None:
            _call_after_import(spec.loader, _register)
        return spec


def _call_after_import(loader: Any, function: Any) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        function(module)

    loader.exec_module = exec_module


def _register(keras: ModuleType) -> None:
    known = keras.saving.get_custom_objects()
    for name in MODULES:
        known.setdefault(f"{_PACKAGE}>{name}", _Placeholder(name))
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _KerasFinder)]


def register_with_keras() -> None:
    """Registers the placeholders, now or as soon as Keras is imported. Until then, TensorFlow is the default backend,
    whatever Keras's configuration file names."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "saving"):
        _register(keras)
        return
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if not any(isinstance(finder, _KerasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder())
