"""A report's page as HTML: one text that needs nothing else, neither scripts nor other files."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .files import GENERATOR
from .results import fixed
from .svg import STYLES

_COLOURS = ("grey", "yellow", "green")


def templates() -> Environment:
    """The templates of reports, strict about what they name."""
    environment = Environment(
        loader=PackageLoader(__package__, "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fixed"] = fixed
    return environment


def render(page: object, template: str = "page.html.jinja") -> str:
    """The whole text of the HTML file. Whatever is in the page stands there as text, never as markup.

    Args:
        page: what the template of this name shows, with its ``title`` and how it was ``made``.
        template: of `template/`.
    """
    environment = templates()
    style = Markup(environment.get_template("page.css").render(styles=STYLES))
    return environment.get_template(template).render(page=page, style=style, generator=GENERATOR, colours=_COLOURS)
