"""Matplotlib figures as SVG for a page that holds `theme_css()`: they follow its colours and have no inline style.

A page whose policy forbids inline style ignores the `style` attributes that Matplotlib writes, and its ids repeat from
figure to figure; so the properties become attributes, placeholders become variables, and no ids are left.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup

from audiotag_jax.study.colours import theme, theme_css

_NAMESPACE = "http://www.w3.org/2000/svg"
_ROLES = {f"#{number:06x}": role for number, role in enumerate(theme("light"), start=1)}  # 0 is black, never written
_PLACEHOLDERS = {role: placeholder for placeholder, role in _ROLES.items()}
_SEPARATOR = "\u2028"  # of titles; `clean` leaves none in them
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def colour(role: str) -> str:
    """Returns the colour to draw with for the theme's `role`: "fg", "accent", "l3" and so on, as in `colours.theme`."""
    return _PLACEHOLDERS[role]


@contextlib.contextmanager
def canvas(width: float, height: float) -> Iterator:
    """Yields an empty Matplotlib figure of that many pixels; within the block Matplotlib's own defaults apply."""
    import matplotlib.style
    from matplotlib.figure import Figure

    looks = {"svg.fonttype": "none", "text.parse_math": False, "text.color": colour("fg")}
    looks |= {"axes.facecolor": "none", "axes.edgecolor": colour("line"), "axes.linewidth": 1}
    for axis in ("xtick", "ytick"):
        looks |= {f"{axis}.color": colour("muted"), f"{axis}.labelsize": 10, f"{axis}.major.size": 0}
    with matplotlib.style.context(["default", looks]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser chooses the font
        yield Figure((width / 72, height / 72), dpi=72, facecolor="none")


def add_axes(figure, left: float, top: float, width: float, height: float):
    """Adds axes at that place, in pixels from the figure's upper left corner."""
    across, down = figure.bbox.size
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def add_text(figure, x: float, y: float, text: object, *, size: float = 11, role: str = "fg", **options) -> None:
    """Draws a line of text whose baseline begins (`ha`, `va` else) at pixels from the upper left corner."""
    across, down = figure.bbox.size
    options = {"fontsize": size, "color": colour(role), **options}
    figure.text(x / across, 1 - y / down, clean(str(text)), **options)


def clean(text: str) -> str:
    """Returns the text on one line, U+FFFD in place of what XML forbids."""
    return _NOT_XML.sub("\ufffd", " ".join(text.split()))


def shortened(text: str, most: int) -> str:
    """Returns the text, or its beginning and an ellipsis, in at most `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def titled(kind: str, *titles: str) -> str:
    """Returns the `gid` that gives an artist `kind` as class and a tooltip, or one for each shape of a collection."""
    return f"{kind}|{_SEPARATOR.join(map(clean, titles))}"


def to_svg(figure, description: str) -> Markup:
    """Returns the figure as one `<svg>` with `description` as `aria-label`; the same figure gives the same text."""
    file = io.StringIO()
    figure.savefig(file, format="svg")
    root = ElementTree.fromstring(file.getvalue())
    shapes = {f"#{each.get('id')}": each for each in root.iter(f"{{{_NAMESPACE}}}path") if each.get("id")}
    width, height = (f"{size:g}" for size in figure.bbox.size)
    about = {"xmlns": _NAMESPACE, "class": "chart", "role": "img", "aria-label": clean(description)}
    svg = Element("svg", about | {"viewBox": f"0 0 {width} {height}", "width": width, "height": height})
    for child in root:
        svg.extend(_rewritten(child, shapes))
    return Markup(ElementTree.tostring(svg, encoding="unicode"))  # noqa: S704


def standalone(drawing: Markup) -> str:
    """Returns such a drawing as the text of an `.svg` file, with its style and background, in the reader's theme."""
    head, rest = str(drawing).split(">", 1)
    return f'{head}><style>{theme_css()}</style><rect width="100%" height="100%" fill="var(--bg)"/>{rest}\n'


def _rewritten(element: Element, shapes: dict[str, Element]) -> list[Element]:
    """Rewrites the element for a page: groups dissolved but those with a title, markers drawn where they are used."""
    tag = element.tag.removeprefix(f"{{{_NAMESPACE}}}")
    if tag in ("defs", "metadata"):
        return []
    if tag == "g":
        children = [new for child in element for new in _rewritten(child, shapes)]
        kind, is_titled, text = element.get("id", "").partition("|")
        if not is_titled or not children:
            return children
        titles = text.split(_SEPARATOR)
        if len(children) > len(titles) == 1:
            group = Element("g")
            group.extend(children)
            children = [group]
        for child, title in zip(children, titles, strict=True):
            child.attrib |= {"class": kind} if kind else {}
            child.insert(0, Element("title"))
            child[0].text, child[0].tail, child.text = title, child.text, None
        return children
    new = Element("path" if tag == "use" else tag)
    new.text = element.text if tag == "text" else None
    if tag == "use":
        shape = shapes[element.get("{http://www.w3.org/1999/xlink}href", "")]
        place = {"d": shape.get("d", ""), "transform": f"translate({element.get('x')} {element.get('y')})"}
        properties = _properties(shape) | _properties(element)
    else:
        place = {name: value for name in ("d", "x", "y", "transform") if (value := element.get(name))}
        properties = _properties(element)
    if place.get("transform", "").startswith("rotate(-0 "):
        del place["transform"]
    new.attrib |= {name: _compact(value) for name, value in place.items()} | properties
    hidden = tag == "path" and properties.get("fill") == "none" and "stroke" not in properties
    return [] if hidden else [new]


def _properties(element: Element) -> dict[str, str]:
    """Returns the element's style as attributes; fonts are the page's."""
    pairs = (entry.partition(":") for entry in element.get("style", "").split(";") if entry.strip())
    found = {name.strip(): value.strip() for name, _, value in pairs}
    found.pop("font-family", None)
    return {name: f"var(--{_ROLES[value]})" if value in _ROLES else value for name, value in found.items()}


def _compact(numbers: str) -> str:
    """Rounds coordinates to at most one decimal, and removes spaces that are not needed."""
    short = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]) + 0.0:.1f}".removesuffix(".0"), numbers)
    return re.sub(r"\s*([A-Zz])\s*", r"\1", short).strip()
