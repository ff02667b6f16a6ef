"""Pages for a browser: templates of one look, and what they are filled by.

A page needs nothing from outside its folder. `base.html` holds its style, `macros.html` what several pages draw.
"""

from __future__ import annotations

from typing import Any

import jinja2

from tf_fast_rcnn.visualization.drawing import class_color


def render_page(template: str, **values: Any) -> str:
    """The text of a page.

    Args:
        template: its path below the package, as "browsing/page.html".
        values: what the template asks for; texts among them are escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tf_fast_rcnn", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(class_color=class_color, **values)
