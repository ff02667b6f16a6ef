"""Types of the public interface: every public function and field has them, and type checkers see every public name.

`make lint` runs mypy over the package and examples/typed_usage.py; these are the rules for which it has no option.
"""

import ast
import importlib
import inspect
import pathlib
import shutil
import subprocess
import sys

import pytest

import tf_fast_rcnn

ROOT = pathlib.Path(tf_fast_rcnn.__file__).parent
PROJECT = ROOT.parent
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

MODULES = sorted(ROOT.rglob("*.py"))


def is_public(name):
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def public_functions(node, prefix=""):
    """`(qualified name, node)` of the public functions and methods below a module or class, not those in functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS) and is_public(child.name):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef) and is_public(child.name):
            yield from public_functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, (ast.If, ast.Try)):
            yield from public_functions(child, prefix)


def arguments_of(function):
    found = function.args
    every = [*found.posonlyargs, *found.args, *found.kwonlyargs, found.vararg, found.kwarg]
    return [argument for argument in every if argument is not None and argument.arg not in ("self", "cls")]


def unannotated(tree):
    for name, function in public_functions(tree):
        yield from (f"{name}({each.arg})" for each in arguments_of(function) if each.annotation is None)
        if function.returns is None:
            yield f"{name} -> ?"


def test_the_counter_sees_what_is_missing():
    tree = ast.parse("""
class Box:
    def __init__(self, side: int, *sides, **options: int) -> None: ...
    @property
    def area(self): ...
    def _grown(self, by): ...
if True:
    async def read(path, *, mode: str): ...
def _private(value): ...
""")
    assert sorted(unannotated(tree)) == ["Box.__init__(sides)", "Box.area -> ?", "read -> ?", "read(path)"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_have_types(path):
    assert list(unannotated(ast.parse(path.read_text()))) == []


def stub_imports():
    """Name -> the module that the stub imports it from; each under its own name, so that it is given out."""
    tree = ast.parse((ROOT / "__init__.pyi").read_text())
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name
                found[alias.name] = node.module
    return found


def test_type_checkers_see_every_public_name():
    expected = {name: f"tf_fast_rcnn.{module}" for name, module in tf_fast_rcnn._PUBLIC_NAMES.items()}
    assert stub_imports() == {**expected, "InputError": "tf_fast_rcnn.errors"}


def test_the_stub_has_what_the_package_defines_itself():
    def defined(file):
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in tree.body if isinstance(node, FUNCTIONS)}
        assigned = {node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)}
        return functions | assigned | {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}

    assert defined("__init__.pyi") == defined("__init__.py") - {"__getattr__", "__dir__"}


def classes_in_signatures():
    """`(public name, class)` of our classes that the signatures of public functions and methods name."""
    for public in tf_fast_rcnn._PUBLIC_NAMES:
        value = getattr(tf_fast_rcnn, public)
        module = sys.modules[value.__module__]
        tree = ast.parse(inspect.getsource(module))
        for name, function in public_functions(tree):
            if name.split(".")[0] != value.__name__:
                continue
            hints = [each.annotation for each in arguments_of(function)] + [function.returns]
            for hint in filter(None, hints):
                names = {node.id for node in ast.walk(hint) if isinstance(node, ast.Name)}
                yield from ((public, each) for each in names if each in OUR_CLASSES)


OUR_CLASSES = {
    node.name
    for path in MODULES
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.ClassDef) and is_public(node.name)
}


def test_types_in_public_signatures_are_public():
    missing = {(public, name) for public, name in classes_in_signatures() if name not in tf_fast_rcnn.__all__}
    # `FileProposals.usable_rows` is for the checks of files in this package.
    assert missing == {("FileProposals", "Rows")}


@pytest.mark.parametrize("name", sorted(tf_fast_rcnn._PUBLIC_NAMES))
def test_public_names_are_where_the_stub_says(name):
    module = importlib.import_module(stub_imports()[name])
    assert getattr(tf_fast_rcnn, name) is getattr(module, name)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ("frcnn.load_dataset(5)", 'incompatible type "int"; expected "str"'),
        ("frcnn.load_datasets('voc:cells@train')", 'Module has no attribute "load_datasets"'),
        ("frcnn.load_dataset('voc:cells@train')[0].boxes.nothing", 'has no attribute "nothing"'),
    ],
)
def test_type_checkers_see_mistakes_of_users(wrong, found, tmp_path):
    """What `make lint` says nothing of by passing: that it would fail."""
    mypy = shutil.which("mypy", path=str(pathlib.Path(sys.executable).parent))
    if mypy is None:
        pytest.skip("mypy is not installed")
    script = tmp_path / "script.py"
    script.write_text(f"import tf_fast_rcnn as frcnn\n\n{wrong}\n")
    command = [mypy, "--config-file", PROJECT / "pyproject.toml", "--cache-dir", PROJECT / ".mypy_cache", script]
    ran = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "script.py:3: error" in ran.stdout
    assert found in ran.stdout
