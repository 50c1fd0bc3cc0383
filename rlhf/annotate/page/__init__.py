"""The pages of annotation: Jinja templates with their scripts and style."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

PAGE = Path(__file__).parent


def _sha256(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


TEMPLATES = Environment(loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, keep_trailing_newline=True)
TEMPLATES.filters["sha256"] = _sha256


def html(name: str, **texts: str) -> str:
    """A page from its template. `texts` go in as they are: scripts, styles and JSON that is safe inside HTML."""
    return TEMPLATES.get_template(name).render({key: Markup(text) for key, text in texts.items()})
