"""Configuration of the documentation site: `make docs` writes it to build/docs.

The pages are Markdown that also reads well on a code host. Three small extensions in docs/extensions/ add
generated parts: the API reference, the command-line reference, and links from names in `code` to the API reference.
"""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["COLUMNS"] = "80"  # the width of usage lines in the reference of the command line

import tf_fast_rcnn

project = "tf_fast_rcnn"
author = "the authors of tf_fast_rcnn"
release = version = tf_fast_rcnn.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "api_reference", "command_help", "api_links"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["extensions", "images", "static"]
nitpicky = True
highlight_language = "text"  # of indented blocks, which are commands and their output; Python is fenced and named

smartquotes = False  # which would change -- in options and quotes in what readers copy

myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # what Keras and Python say of their own methods is in their documentation
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
python_trailing_comma_in_multi_line_signatures = False
add_module_names = False
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style"), "Reference"]

html_theme = "furo"
html_title = f"tf_fast_rcnn {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "monokai"

# Files outside docs/ that pages link to, and the pages that include them.
INCLUDED = {
    "../CHANGELOG.md": "changelog.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../examples/browser/README.md": "browser_example.md",
}


def link_to_pages(app, docname, source):
    """Links to a file outside docs/ become links to the page that includes it."""
    source[0] = re.sub(r"\]\((\.\./[^)#]+)", lambda link: f"]({INCLUDED.get(link[1], link[1])}", source[0])


def setup(app):
    app.connect("source-read", link_to_pages)
