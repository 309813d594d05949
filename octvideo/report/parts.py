"""HTML that several sections of the report use."""

from collections.abc import Container, Iterable, Sequence
from html import escape


def section(title: str, note: str, body: str) -> str:
    return f'<section><h2>{title}</h2><p class="note">{note}</p>{body}</section>'


def table(
    rows: Iterable[Sequence[str]], head: Sequence[str] = (), numbers: Container[int] = ()
) -> str:
    """numbers: the columns that are right-aligned."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if i in numbers else ''}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )

    top = f"<thead><tr>{line('th', head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return wide(f'<table class="plain">{top}<tbody>{body}</tbody></table>')


def bar(name: str, percent: float, text: str) -> str:
    """A row of bars."""
    track = f'<div class="track"><i style="width:{percent:.1f}%"></i></div>'
    return f'<div>{escape(name)}</div>{track}<div class="count">{text}</div>'


def wide(content: str, label: str = "table") -> str:
    """Content that may be wider than a phone: it scrolls by itself, shows at its edges that it
    does, and takes the keyboard."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{label}">{content}</div>'
