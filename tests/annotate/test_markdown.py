"""Texts of models as HTML: what is meant is shown, and nothing in it can act."""

from html.parser import HTMLParser

import pytest

from rlhf.annotate.markdown import LONGEST, rendered

ATTACKS = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)><script>1</script></svg>",
    "[x](javascript:alert(1))", "[x](JaVaScRiPt:alert(1))", "[x](java&#10;script:alert(1))", "[x](vbscript:1)",
    "[x](/api/token/undo)",
    "[x](data:text/html;base64,PHNjcmlwdD4=)", "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "![x](https://e.org/track.png)",
    "<javascript:alert(1)>", "<a href='javascript:alert(1)'>x</a>", "<iframe srcdoc='<script>1</script>'></iframe>",
    "$\\text{<img src=x onerror=alert(1)>}$", "$\\text{&lt;script&gt;alert(1)&lt;/script&gt;}$",
    "$\\href{javascript:1}{x}$",
    "$\\mbox{<style>*{display:none}</style>}$", "$\\style{position:fixed}{x}$", "$\\class{main}{x}$",
    "```html\n<script>alert(1)</script>\n```", "```\" onmouseover=\"alert(1)\nx\n```", 
    "| a |\n| - |\n| <img src=x onerror=1> |",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table></mtext></math>",
    "<style>body{display:none}</style>", "<form action=//e.org><button>go</button></form>", "<base href=//e.org>",
)  # fmt: skip
DEADLY = {
    "script",
    "img",
    "svg",
    "iframe",
    "style",
    "form",
    "button",
    "base",
    "object",
    "embed",
    "link",
    "meta",
    "input",
}


class Seen(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("around", ["{}", "- **a** {}", "> # {}", "text\n\n{}\n\nmore"])
def test_nothing_can_act(attack, around):
    seen = Seen(rendered(around.format(attack)))
    assert not DEADLY & set(seen.tags)
    for name, value in seen.attributes:
        assert not name.startswith("on")
        assert name not in ("style", "class", "id", "src", "srcdoc", "action")
        assert name != "href" or value.startswith(("https://", "http://", "mailto:"))


def test_links_open_elsewhere_and_tell_nothing():
    seen = Seen(rendered("[x](https://e.org)"))
    assert dict(seen.attributes) == {
        "href": "https://e.org", "target": "_blank", "rel": "noopener noreferrer nofollow"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("**a** *b* ~~c~~ `d`", {"p", "strong", "em", "s", "code"}),
        ("- a\n- b\n\n1. c", {"ul", "ol", "li"}),
        ("```python\nx = 1\n```", {"pre", "code"}),
        ("| a | b |\n| - | - |\n| 1 | 2 |", {"table", "thead", "tbody", "tr", "th", "td"}),
        ("$x^2$", {"p", "math", "mrow", "msup", "mi", "mn"}),
        ("\\(\\frac{a}{b}\\)", {"p", "math", "mrow", "mfrac", "mi"}),
        ("$$\na+b\n$$", {"math", "mrow", "mi", "mo"}),
        ("\\[\na+b\n\\]", {"math", "mrow", "mi", "mo"}),
        ("one\ntwo", {"p", "br"}),
    ],
)
def test_what_is_meant_is_shown(text, tags):
    assert set(Seen(rendered(text)).tags) >= tags


@pytest.mark.parametrize(
    "text", ["it costs $5 and $6", "a < b && c > d", "5 * 3 * 2", "<b>not bold</b>", "x_1 and y_1"]
)
def test_plain_texts_keep_their_characters(text):
    shown = []
    parser = Seen("")
    parser.handle_data = shown.append
    parser.feed(rendered(text))
    assert "".join(shown) == text


def test_a_formula_that_is_none_and_a_text_that_is_too_long_are_shown_as_written():
    assert rendered("$\\frac{$") == "<p><code>\\frac{</code></p>"
    assert rendered("<b>" * LONGEST).startswith("<pre>&lt;b&gt;")
    assert "Lima" in rendered("[" * 20_000 + "Lima")
