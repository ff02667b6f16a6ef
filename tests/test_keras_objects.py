"""`keras.models.load_model` in a new process that imports the package and does nothing else with it."""

import ast
import os
import re
import subprocess
import sys
import zipfile

import pytest
from test_module_picture import MODULES as SOURCES

import tf_fast_rcnn
from tf_fast_rcnn.keras_objects import MODULES


def run_python(code, *arguments, env=None):
    """Runs the code in a new process and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ORDERS = {
    "ours first": "import tf_fast_rcnn\nimport keras",
    "keras first": "import keras\nimport tf_fast_rcnn",
    "by way of tensorflow": "import tf_fast_rcnn\nimport tensorflow as tf\nkeras = tf.keras",
    "a part of keras": "import tf_fast_rcnn\nfrom keras import models\nimport keras",
    "ours twice": "import importlib, tf_fast_rcnn\nimportlib.reload(tf_fast_rcnn)\nimport keras",
}


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS)
def test_load_model(imports, tiny_run):
    path = tiny_run[0] / "model.keras"
    code = f"{imports}\nimport sys\nprint(keras.models.load_model(sys.argv[1]).output['class_logits'].shape)"
    assert run_python(code, path).splitlines()[-1] == "(None, None, 11)"


def test_a_compiled_model_with_its_losses_and_optimizer(tmp_path, tiny_model):
    import keras

    model = keras.models.clone_model(tiny_model)
    model.compile(tf_fast_rcnn.adamw(model), tf_fast_rcnn.multi_task_loss(model))
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert b"FineTuningAdamW" in archive.read("config.json")
    code = (
        "import sys, tf_fast_rcnn, keras\nmodel = keras.models.load_model(sys.argv[1])\n"
        "print(type(model.optimizer).__name__, *sorted(type(each).__name__ for each in model.loss.values()))"
    )
    assert run_python(code, tmp_path / "model.keras").splitlines()[-1] == "FineTuningAdamW BoxLoss ClassLoss"


def test_classes_take_the_places_of_their_placeholders():
    code = (
        "import tf_fast_rcnn, keras\nknown = keras.saving.get_custom_objects()\n"
        "print(type(known['tf_fast_rcnn>RoIPooling']).__name__)\n"
        "print(known['tf_fast_rcnn>RoIPooling'] is tf_fast_rcnn.RoIPooling)\n"
        "print(keras.saving.get_custom_objects()['tf_fast_rcnn>RoIPooling'] is tf_fast_rcnn.RoIPooling)"
    )
    assert run_python(code).split() == ["_Placeholder", "False", "True"]


@pytest.mark.parametrize("imports", ["import tf_fast_rcnn, keras", "import tf_fast_rcnn\nfrom keras import saving"])
def test_load_model_whatever_backend_keras_json_names(imports, tiny_run, tmp_path):
    """Keras would fail to import the backend of this configuration file, which does not exist."""
    (tmp_path / "keras.json").write_text('{"backend": "another", "floatx": "float32"}')
    code = (
        f"{imports}\nimport sys, keras\nmodel = keras.saving.load_model(sys.argv[1])\n"
        "print(keras.config.backend(), model.output['class_logits'].shape)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    printed = run_python(code, tiny_run[0] / "model.keras", env=environment | {"KERAS_HOME": str(tmp_path)})
    assert printed.splitlines()[-1] == "tensorflow (None, None, 11)"


@pytest.mark.parametrize("use", ["tf_fast_rcnn.fast_rcnn", "keras.saving.load_model(sys.argv[1])"])
def test_keras_with_another_backend_is_one_clear_error(use, tiny_run):
    """Keras was imported first and says that it has another backend: which one it really has does not matter here."""
    code = (
        "import sys, keras, tf_fast_rcnn\nkeras.config.backend = lambda: 'another'\n"
        f"try: {use}\nexcept tf_fast_rcnn.InputError as error: print(error)"
    )
    printed = run_python(code, tiny_run[0] / "model.keras")
    assert printed.splitlines()[-1].startswith("keras.json: found backend 'another', which Keras has read")


def test_importing_the_package_imports_neither_tensorflow_nor_keras():
    code = "import sys, tf_fast_rcnn; print(sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    assert run_python(code).strip() == "[]"


def test_the_finder_leaves_when_keras_is_there():
    code = (
        "import sys; before = len(sys.meta_path); import tf_fast_rcnn; print(len(sys.meta_path) - before)\n"
        "import keras; print(any(type(each).__name__ == '_KerasFinder' for each in sys.meta_path))"
    )
    assert run_python(code).split() == ["1", "False"]


def test_every_registered_class_is_listed():
    registered = {}
    for module, tree in SOURCES.items():
        for node in ast.walk(tree):
            decorators = getattr(node, "decorator_list", [])
            if any(re.search("register_keras_serializable", ast.unparse(each)) for each in decorators):
                registered[node.name] = module
    assert registered == MODULES
