"""A report's page as HTML: one text that needs nothing else, neither scripts nor other files."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .files import GENERATOR
from .page import Page
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


def render(page: Page) -> str:
    """The whole text of the HTML file. Whatever is in the page stands there as text, never as markup."""
    environment = templates()
    style = Markup(environment.get_template("page.css").render(styles=STYLES))
    template = environment.get_template("page.html.jinja")
    return template.render(page=page, style=style, generator=GENERATOR, colours=_COLOURS)
