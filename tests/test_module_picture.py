"""The picture of modules that CONTRIBUTING.md draws, against the imports in the sources.

A module imports only modules listed before it. Imports within functions count, and so do names that the package itself
exports (`tf_fast_rcnn.detect` is `tf_fast_rcnn.inference.detect`). Imports for type checkers only, under
`if TYPE_CHECKING:`, respect the layers and form no cycles either; but they never run, so they do not load TensorFlow.
"""

import ast
import copy
import graphlib
import pathlib
import subprocess
import sys

import pytest

import tf_fast_rcnn

ROOT = pathlib.Path(tf_fast_rcnn.__file__).parent
PACKAGE = "tf_fast_rcnn"

# Layers from the bottom up; parts in the same layer do not import each other.
FLOORS = [
    ["boxes", "errors", "files", "keras_objects"],
    ["visualization"],
    ["data", "ops"],
    ["models"],
    ["training"],
    ["inference"],
    ["evaluation", "export", "serving", "browsing", "demo"],
    ["benchmarks", "tables"],
    ["commands"],
    ["cli"],
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
WITH_TENSORFLOW = {
    "data.network_input",
    "data.prepared.examples",
    *(f"data.batches.{name}" for name in ("augmentation", "hierarchical", "image_order", "sampling")),
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): ast.parse(path.read_text()) for path in ROOT.rglob("*.py")}


def imported_names(tree):
    """`(dotted name, alias)` of everything that a tree imports, absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, alias.asname or alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the package imports by absolute names"
            yield from ((f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names)


def is_for_type_checkers(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


class _WhatRuns(ast.NodeTransformer):
    """Leaves out `if TYPE_CHECKING:`."""

    def visit_If(self, node):
        return node.orelse if is_for_type_checkers(node) else self.generic_visit(node)


def what_runs(tree):
    return _WhatRuns().visit(copy.deepcopy(tree))


def our_module(dotted):
    """The module of ours that holds a dotted name, "" for the package itself; None for other modules."""
    first, *rest = dotted.split(".")
    if first != PACKAGE:
        return None
    if rest and rest[0] in tf_fast_rcnn._PUBLIC_NAMES:
        return tf_fast_rcnn._PUBLIC_NAMES[rest[0]]
    return next(name for end in range(len(rest), -1, -1) if (name := ".".join(rest[:end])) in MODULES)


def uses(module, for_type_checkers=True):
    """The modules of ours that a module imports, also by `tf_fast_rcnn.name`."""
    tree = MODULES[module] if for_type_checkers else what_runs(MODULES[module])
    names = list(imported_names(tree))
    found = {our_module(dotted) for dotted, _ in names}
    packages = {alias for dotted, alias in names if dotted == PACKAGE}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages:
            found.add(our_module(f"{PACKAGE}.{node.attr}"))
    return found - {None, "", module}


def module_level(tree):
    """What runs when the module is imported: all statements outside functions."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    statements = [node for node in what_runs(tree).body if not isinstance(node, functions)]
    return ast.Module(statements, type_ignores=[])


def floor(module):
    return FLOOR_OF[module.split(".")[0]]


def test_the_parser_sees_imports():
    """Against the facts of three modules, so that the tests below cannot pass by seeing nothing."""
    parts = {"models.backbone_split", "models.backbones", "models.parts", "ops.roi_pooling"}
    parts |= {"models.backbone_checks", "models.pretrained"}
    assert {"boxes", "errors", "files", *parts} == uses("models.fast_rcnn")
    assert "data.datasets" in uses("data.batches.hierarchical")
    assert "data.datasets" not in uses("data.batches.hierarchical", for_type_checkers=False)
    assert {"data.prepared.write", "data.network_input", "boxes"} <= uses("data.batches.hierarchical")
    assert {"evaluation.models", "evaluation"} & uses("commands.evaluate")


def test_the_parser_knows_what_is_for_type_checkers_alone():
    tree = ast.parse("import json\nif TYPE_CHECKING:\n    import keras\nelse:\n    import csv\nif json:\n    import re")
    assert [name for name, _ in imported_names(tree)] == ["json", "keras", "csv", "re"]
    assert [name for name, _ in imported_names(what_runs(tree))] == ["json", "csv", "re"]


def test_every_module_stands_in_the_picture():
    assert {name.split(".")[0] for name in MODULES if name} == set(FLOOR_OF)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_a_module_imports_only_what_stands_before_it(module):
    part = module.split(".")[0]
    above = {other for other in uses(module) if floor(other) >= floor(module) and other.split(".")[0] != part}
    assert not above


def room(module):
    """The package that holds a module. Modules beside packages, as in `data`, are rooms of their own, because some are
    below these packages and others above."""
    first, *rest = module.split(".")
    has_packages = any(name.startswith(f"{first}.") and name.count(".") > 1 for name in MODULES)
    return f"{first}.{rest[0]}" if has_packages and rest else first


def test_rooms():
    modules = ["boxes", "export.tflite", "data.records", "data.readers", "data.readers.coco"]
    assert [room(name) for name in modules] == ["boxes", "export", "data.records", "data.readers", "data.readers"]


# Imports for type checkers count: who reads a module reads what its types are.
@pytest.mark.parametrize("place", [str, room], ids=["modules", "rooms"])
def test_nothing_imports_in_a_circle(place):
    graph = {}
    for module in MODULES:
        graph.setdefault(place(module), set()).update({place(other) for other in uses(module)} - {place(module)})
    order = list(graphlib.TopologicalSorter(graph).static_order())
    first, second, third = place("boxes"), place("models.fast_rcnn"), place("training.run")
    assert order.index(first) < order.index(second) < order.index(third)


def test_the_ground_floor_imports_nothing_of_ours():
    assert uses("boxes") == uses("errors") == uses("files") == uses("keras_objects") == set()


def test_nothing_imports_the_command_line():
    assert [module for module in MODULES if any(other.split(".")[0] == "cli" for other in uses(module))] == []


@pytest.mark.parametrize("part", ["inference", "evaluation", "export"])
def test_training_knows_nothing_of_what_comes_after_it(part):
    for module in MODULES:
        if module.split(".")[0] == "training":
            assert not [other for other in uses(module) if other.split(".")[0] == part], module


WORKER_MODULES = sorted(name for name in MODULES if name.split(".")[0] in ("boxes", "errors", "files", "data", "demo"))


@pytest.mark.parametrize("module", WORKER_MODULES)
def test_modules_of_worker_processes_do_not_import_tensorflow(module):
    first_names = {dotted.split(".")[0] for dotted, _ in imported_names(module_level(MODULES[module]))}
    assert bool(first_names & {"tensorflow", "keras"}) == (module in WITH_TENSORFLOW)


def test_preparing_data_starts_without_tensorflow():
    imports = ", ".join(f"{PACKAGE}.{name}" for name in WORKER_MODULES if name not in WITH_TENSORFLOW)
    code = f"import sys, {imports}; print(sorted({{'tensorflow', 'keras'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
