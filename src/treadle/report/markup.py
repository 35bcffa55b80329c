"""HTML from text: everything that comes from a run goes through `escape` here."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

_UNSAFE = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def escape(text: object) -> str:
    """Text as the content of an element or of an attribute in double quotes."""
    return html.escape(str(text), quote=True)


def embedded(value: Any) -> str:
    """JSON that may stand inside of a <script> element: it cannot end it, whatever strings it holds."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False).translate(_UNSAFE)


def name(text: object) -> str:
    """A name or value of a run: isolated, so that letters of other directions change nothing around it."""
    return f"<bdi>{escape(text)}</bdi>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], label: str, numeric: bool = False) -> str:
    """A table that scrolls by itself where it is too wide; reachable by keyboard. Cells are HTML already."""
    kind = "table numeric" if numeric else "table"
    titles = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if place == 0 else f"<td>{cell}</td>"
            for place, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<table class="{kind}"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def pairs(rows: Iterable[tuple[str, str]], label: str) -> str:
    """A table of names and values."""
    return table(("name", "value"), [(name(key), name(value)) for key, value in rows], label)


def section(identity: str, title: str, *content: str) -> str:
    """A section with its heading, which the navigation leads to."""
    return (
        f'<section id="{identity}" aria-labelledby="{identity}-title">'
        f'<h2 id="{identity}-title">{escape(title)}</h2>{"".join(content)}</section>'
    )


def folded(title: str, content: str, opened: bool = False) -> str:
    """Something that is shown when it is asked for."""
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>{content}</details>"


def note(text: str) -> str:
    """A remark."""
    return f'<p class="note">{name(text)}</p>'
