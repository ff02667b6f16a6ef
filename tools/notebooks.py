#!/usr/bin/env python
"""Makes Jupyter notebooks from the Python files in examples/notebooks, and executes them.

    python tools/notebooks.py --out build/notebooks
    python tools/notebooks.py examples/notebooks/own_data.py --out build/notebooks --set STEPS=20

The files are in jupytext's percent format: a comment line "# %%" begins a cell. `--set` changes the values in the cell
that is tagged "parameters", as papermill does. Needs pip install 'tf-fast-rcnn[notebooks]'.
"""

import argparse
import ast
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

SOURCES = Path(__file__).parent.parent / "examples" / "notebooks"
MAX_SECONDS = 1800  # of one cell, and of a kernel's start

__all__ = ["CellExecutionError", "execute", "read_notebook"]


def read_notebook(source, parameters=None):
    """The notebook of a Python file, not executed.

    Args:
        source: path of a file in jupytext's percent format.
        parameters: dict of names and values that replace those of the cell tagged "parameters".

    Returns:
        `nbformat.NotebookNode`.

    Raises:
        ValueError: for a parameter that the tagged cell does not set.
    """
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    if parameters:
        _set_parameters(notebook, parameters)
    return notebook


def _set_parameters(notebook, parameters):
    """Adds a cell with other values after the one tagged "parameters"."""
    tagged = [index for index, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    (index,) = tagged
    names = [node for node in ast.walk(ast.parse(notebook.cells[index].source)) if isinstance(node, ast.Name)]
    known = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise ValueError(f"parameters: found {', '.join(unknown)}; expected some of {', '.join(sorted(known))}")
    lines = [f"{name} = {value!r}" for name, value in parameters.items()]
    notebook.cells.insert(index + 1, nbformat.v4.new_code_cell("\n".join(lines)))


def execute(notebook):
    """Runs all cells of a notebook in a new kernel, which adds their outputs to it; returns the notebook.

    Files that cells name by relative paths are in a temporary folder, which is removed. What cells write to standard
    error is left out: the logs of TensorFlow, and progress bars.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises.
    """
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=MAX_SECONDS, startup_timeout=MAX_SECONDS, resources=resources).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main(arguments=None):
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Makes Jupyter notebooks from Python files and executes them.",
        epilog=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sources", nargs="*", type=Path, metavar="FILE", help="default: all files in examples/notebooks"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the .ipynb files")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="of the cell tagged parameters; repeatable"
    )
    options = parser.parse_args(arguments)
    pairs = (setting.partition("=") for setting in options.set)
    parameters = {name: ast.literal_eval(value) for name, _, value in pairs}
    options.out.mkdir(parents=True, exist_ok=True)
    for source in options.sources or sorted(SOURCES.glob("*.py")):
        path = options.out / f"{source.stem}.ipynb"
        nbformat.write(execute(read_notebook(source, parameters)), path)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
