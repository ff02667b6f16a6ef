"""The directive `{public-names}`: documents names of `tf_fast_rcnn.__all__` from their docstrings.

Names are looked up in the package itself, whatever module defines them. A public name that no page or more than one
page documents is a warning, and therefore an error of the build.
"""

import inspect

from docutils import nodes
from plain_text import rst_of_docstring
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import tf_fast_rcnn

PACKAGE = "tf_fast_rcnn"
# Types in signatures that other projects document.
OTHER_PROJECTS = ("collections", "keras", "np", "numpy", "os", "pathlib", "PIL", "tensorflow", "tf", "typing")
# Names in signatures that have no page: aliases, types of other projects by their short names, parts of public types.
UNLINKED = (
    *("Any", "Callable", "Image", "Iterable", "Iterator", "Mapping", "Path", "Self", "Sequence"),
    *(
        "Breakdown",
        "Grids",
        "Matching",
        "PoolSize",
        "ProposalQuality",
        "Rate",
        "Reliability",
        "Rows",
        "Shape",
        "StrPath",
    ),
)
logger = logging.getLogger(__name__)


class PublicNames(SphinxDirective):
    """A list of public names, one on each line."""

    has_content = True

    def run(self):
        lines = ["```{eval-rst}", f".. py:currentmodule:: {PACKAGE}", ""]
        for name in self.content:
            if name not in tf_fast_rcnn.__all__:
                raise self.error(f"{PACKAGE}.__all__ has no {name!r}")
            lines += self._directive(name)
        lines.append("```")
        container = nodes.container()
        self.content.data[:] = lines
        self.content.items[:] = [(self.get_source_info()[0], self.lineno)] * len(lines)
        self.state.nested_parse(self.content, self.content_offset, container)
        return container.children

    def _directive(self, name):
        value = getattr(tf_fast_rcnn, name)
        if isinstance(value, type) and issubclass(value, Exception):
            return [f".. autoexception:: {name}", ""]
        if isinstance(value, type):
            return [f".. autoclass:: {name}", "   :members:", ""]
        return [f".. {'autofunction' if callable(value) else 'autodata'}:: {name}", ""]


def read_as_plain_text(app, what, name, value, options, lines):
    lines[:] = rst_of_docstring(lines)


def readable_defaults(app, what, name, value, options, signature, return_annotation):
    """`<factory>`, the default of a mutable dataclass field, is not Python: Sphinx would split its types at commas."""
    return (signature or "").replace("<factory>", "...") or None, return_annotation


def skip_fields(app, what, name, value, skip, options):
    """Only methods and properties: the class's own docstring describes its attributes."""
    shown = inspect.isroutine(value) or isinstance(value, (property, classmethod, staticmethod))
    return None if shown else True


def resolve_type(app, env, node, contents):
    """A type that a signature names by the module that defines it is the public name; others are not linked."""
    if node.get("refdomain") != "py":
        return None
    root, *_, name = node["reftarget"].split(".") if "." in node["reftarget"] else [node["reftarget"]] * 2
    if root in OTHER_PROJECTS or root in UNLINKED or (root == PACKAGE and name in UNLINKED):
        return contents
    target = f"{PACKAGE}.{name}"
    if root in (PACKAGE, "frcnn", name) and name in tf_fast_rcnn.__all__ and node["reftarget"] != target:
        return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, contents)
    return None


def check_all_are_documented(app, env):
    documented = [name.removeprefix(f"{PACKAGE}.") for name in env.get_domain("py").objects]
    for name in sorted(set(tf_fast_rcnn.__all__) - set(documented)):
        logger.warning("%s.%s is on no page: add it to one in docs/api/", PACKAGE, name)


def setup(app):
    app.add_directive("public-names", PublicNames)
    # Before napoleon, which makes reStructuredText of the sections.
    app.connect("autodoc-process-docstring", read_as_plain_text, priority=400)
    app.connect("autodoc-process-signature", readable_defaults)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("missing-reference", resolve_type)
    app.connect("env-check-consistency", check_all_are_documented)
    return {"parallel_read_safe": True}
