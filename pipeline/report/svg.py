# SPDX-License-Identifier: Apache-2.0
"""What both pictures are drawn with: shapes a verdict, scales, ticks, and places as shares of the width.

No picture has a `viewBox`: places along the width are percentages, so that a picture fills a phone or a
desktop while its letters keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.markup import Markup, tag
from pipeline.report.style import LIGHT, PICTURES, variables

__all__ = ["Scale", "as_file", "line", "marker", "marker_shapes", "nice_ticks", "picture", "share"]

_SHAPES = {
    "pass": tag("circle", r=5),
    "fail": tag("path", d="M0-7 7 0 0 7-7 0Z"),
    "open": tag("path", d="M0-7 7 5.5H-7Z"),
    "error": tag("path", d="M-5-5 5 5M5-5-5 5", class_="x"),
    "calm": tag("circle", r=4.5, class_="o"),
    "ring": tag("circle", r=9.5, class_="o"),
    "base": tag("path", d="M-5.5-5.5H5.5V5.5H-5.5Z"),
}


@dataclass(frozen=True)
class Scale:
    """Where numbers lie between two ends.

    Attributes:
        low: Lower end, below `high`; above 0 where `logarithmic`.
        high: Upper end.
        logarithmic: Equal ratios are equal distances.
    """

    low: float
    high: float
    logarithmic: bool = False

    def place(self, number: float) -> float:
        """Return where `number` lies, 0 at the lower end and 1 at the upper one, clipped to both."""
        low, high, at = self.low, self.high, min(max(number, self.low), self.high)
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)


def share(scale: Scale, number: float) -> str:
    """Return the place of `number` as a percentage of the width."""
    return f"{100 * scale.place(number):.2f}%"


def nice_ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    """Return at most `most` round numbers in [low, high], evenly spaced by 1, 2 or 5 times a power of ten."""
    if not low < high:
        return (low,)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(index * step, 12) for index in range(first, last + 1))[: most + 1]


def marker_shapes() -> Markup:
    """Return the shapes, to be put on the page once, before any picture."""
    shapes = [tag("g", shape, id=f"m-{name}") for name, shape in _SHAPES.items()]
    return tag("svg", tag("defs", *shapes), width=0, height=0, class_="defs", aria_hidden="true")


def marker(look: str, x: str, y: float, hint: str = "") -> Markup:
    """Return the shape of a look (`pass`, `fail`, ...) at a place."""
    return tag(
        "use", *([tag("title", hint)] if hint else []), href=f"#m-{look}", x=x, y=y, class_=f"k {look}"
    )


def line(x1: str, y1: float, x2: str, y2: float, look: str) -> Markup:
    """Return a straight line of a CSS class."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=look)


def picture(
    name: str, title: str, description: str, height: float, look: str, parts: Sequence[str]
) -> Markup:
    """Return an `<svg>` that says what it shows to those who do not see it.

    Args:
        name: Unique on the page.
        title: Its name.
        description: What it shows, in a sentence or two.
        height: In CSS pixels; the width is that of its place on the page.
        look: A CSS class.
        parts: Its elements.
    """
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-desc"),
        *parts,
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        width="100%",
        height=height,
        class_=look,
    )


_FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif"
_TITLE = "svg .title{font-weight:650;font-size:14px}"


def as_file(title: str, parts: Sequence[Markup], *, width: float, height: float, style: str) -> str:
    """Return a picture as a file, on a ground of its own: it reads on a white page and on a dark one.

    Args:
        title: Its name, also for those who do not see it.
        parts: Its elements, from the back to the front.
        width: In CSS pixels.
        height: In CSS pixels.
        style: CSS beside that of all pictures.
    """
    ground = tag(
        "rect",
        x=0.5,
        y=0.5,
        width=width - 1,
        height=height - 1,
        rx=10,
        fill=LIGHT["bg"],
        stroke=LIGHT["rule"],
    )
    rules = f":root{{{variables(LIGHT)}}}svg{{{_FONT}}}{PICTURES}{_TITLE}{style}"
    drawn = tag(
        "svg",
        tag("title", title, id="title"),
        tag("style", Markup("".join(rules.splitlines()))),
        ground,
        marker_shapes(),
        *parts,
        role="img",
        aria_labelledby="title",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
    )
    return f"{drawn}\n"
