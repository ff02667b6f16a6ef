"""Renders HTML pages from templates.

Pages are self-contained: they load nothing from outside their folder. `base.html` has the shared layout and style,
`macros.html` the shared elements.
"""

from __future__ import annotations

from typing import Any

import jinja2

from tf_fast_rcnn.visualization.drawing import class_color


def render_page(template: str, **values: Any) -> str:
    """Renders a template as HTML.

    Args:
        template: path inside the package, e.g. "browsing/page.html".
        values: the template's variables; strings are escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tf_fast_rcnn", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(class_color=class_color, **values)
