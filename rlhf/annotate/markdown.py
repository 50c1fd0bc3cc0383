"""Texts of models as HTML that is safe to show: Markdown, code, tables and formulas.

Model texts are written by strangers. HTML in them is shown as it was typed, pictures are shown as links, and what the
Markdown parser makes passes an allow-list (nh3): no scripts, styles or event handlers, and no addresses but web and
mail. The content security policy of the pages is the second wall.
"""

import re
from functools import cache
from html import escape
from typing import Any

import nh3
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.texmath import texmath_plugin

LONGEST = 50_000
"""Characters up to which a text is rendered; a longer one is shown as it was written."""
WORDS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre",
    "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
MATHS = {
    "math", "menclose", "mfrac", "mi", "mn", "mo", "mover", "mpadded", "mphantom", "mroot", "mrow", "mspace",
    "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover",
    "semantics",
}  # fmt: skip
ATTRIBUTES = {
    "a": {"href"}, "ol": {"start"}, "math": {"display"}, "mi": {"mathvariant"}, "mtd": {"columnalign"},
    "mo": {"stretchy", "fence", "form", "separator", "minsize", "maxsize", "accent"}, "mspace": {"width"},
    "mfrac": {"linethickness"}, "mtable": {"columnalign"},
}  # fmt: skip
MARKUP = re.compile(r"\\(?:text\w*|mbox)\s*\{[^}]*[<&]")
"""What latex2mathml would hand on unescaped."""
ADDRESSES = ("http://", "https://", "mailto:")


def rendered(text: str) -> str:
    """The text as safe HTML; formulas, between dollars or LaTeX's brackets, are MathML."""
    if len(text) > LONGEST:
        return f"<pre>{escape(text)}</pre>"
    return nh3.clean(
        _parser().render(text), tags=WORDS | MATHS, attributes=ATTRIBUTES, attribute_filter=_kept,
        link_rel="noopener noreferrer nofollow", set_tag_attribute_values={"a": {"target": "_blank"}},
    ).strip()  # fmt: skip


def _kept(tag: str, name: str, value: str) -> str | None:
    """Whole addresses only: one relative to the page would be one of ours."""
    return value if name != "href" or value.lower().startswith(ADDRESSES) else None


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    parser.disable("image")
    parser.use(texmath_plugin, delimiters="brackets")
    parser.use(dollarmath_plugin, allow_digits=False, allow_space=False, double_inline=True)
    for name in ("math_inline", "math_single"):
        parser.add_render_rule(name, _inline)
    for name in ("math_inline_double", "math_block", "math_block_label", "math_block_eqno"):
        parser.add_render_rule(name, _display)
    return parser


def _inline(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return _formula(tokens[index].content, "inline")


def _display(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return _formula(tokens[index].content, "block")


def _formula(tex: str, display: str) -> str:
    """MathML, or the source as code where it is no formula, or holds markup that the converter would let through."""
    try:
        if MARKUP.search(tex):
            raise ValueError(tex)
        return str(convert(tex, display=display))
    except Exception:  # whatever a stranger's formula does to the converter, the item must be shown
        return f"<code>{escape(tex)}</code>"
