"""Links public names that are written as `code` to the API reference, and `docs/PAGE.md` in docstrings to the page.

In the API reference every public name is linked; on other pages `frcnn.NAME`, and names that cannot be a command or an
everyday word, since they have an underscore or a capital letter.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

import tf_fast_rcnn

PAGES = {path.name: path.stem for path in Path(__file__).parents[1].glob("*.md")}
NAME = re.compile(r"(frcnn\.)?(\w+)(\.\w+|\(.*\))*")


def public_name(code, everywhere):
    match = NAME.fullmatch(code)
    if match is None or match[2] not in tf_fast_rcnn.__all__:
        return None
    distinct = match[1] or "_" in match[2] or match[2] != match[2].lower()
    return match[2] if everywhere or distinct else None


def link_names(app, doctree):
    docname = app.env.docname
    for literal in list(doctree.findall(nodes.literal)):
        name = public_name(literal.astext(), docname.startswith("api/"))
        linked = _inside(literal, (nodes.reference, addnodes.pending_xref, nodes.title))
        if name and not linked and name != _object(literal):
            link = addnodes.pending_xref(
                refdomain="py", reftype="obj", reftarget=f"tf_fast_rcnn.{name}", refdoc=docname, refexplicit=True
            )
            literal.replace_self(link)
            link += literal


def link_pages(app, doctree):
    """`docs/PAGE.md`, as text in docstrings, becomes a link to the page."""
    if not app.env.docname.startswith("api/"):
        return
    for text in list(doctree.findall(nodes.Text)):
        parts = re.split(r"docs/(\w+\.md)", text)
        if len(parts) == 1 or _inside(text, (nodes.literal_block, nodes.reference)):
            continue
        linked = [_page_link(app, part) if number % 2 else nodes.Text(part) for number, part in enumerate(parts)]
        text.parent.replace(text, linked)


def set_dashes(app, doctree):
    """Sphinx writes " -- " before a description, and leaves the dash to smartquotes, which are off."""
    for field in doctree.findall(nodes.field):
        for text in list(field.findall(nodes.Text)):
            if text.startswith(" -- ") and text.parent.index(text) > 0:
                text.parent.replace(text, nodes.Text(text.replace(" -- ", " \N{EN DASH} ", 1)))


def _page_link(app, page):
    link = addnodes.pending_xref(
        "", nodes.inline(text=f"docs/{page}"), refdomain="std", reftype="doc", reftarget=f"/{PAGES.get(page, page)}"
    )
    link["refdoc"], link["refexplicit"], link["refwarn"] = app.env.docname, True, True
    return link


def _inside(node, kinds):
    while node is not None and not isinstance(node, kinds):
        node = node.parent
    return node is not None


def _object(node):
    """The public name whose description a node is in, if any."""
    while node is not None:
        if isinstance(node, addnodes.desc) and node.get("domain") == "py":
            return node[0]["fullname"].split(".")[0]
        node = node.parent
    return None


def setup(app):
    app.connect("doctree-read", link_names)
    app.connect("doctree-read", link_pages)
    app.connect("doctree-read", set_dashes)
    return {"parallel_read_safe": True}
