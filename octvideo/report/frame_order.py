"""The section of the report on whether frame order matters."""

from collections.abc import Mapping
from html import escape
from typing import Any

from octvideo.report.parts import section


def order_section(summary: Mapping[str, Any]) -> str:
    """Top-1 with the frames in order and in other orders; empty if that was not measured."""
    orders = summary.get("frame_order")
    if not orders:
        return ""
    lines = []
    for name, found in orders["orders"].items():
        text = f"{found['top1_acc']:.1f} %"
        if "lost" in found:
            low, high = found["lost_interval"]
            text += f" · {found['lost']:.1f} points lost ({low:.1f} to {high:.1f})"
        bar = f'<div class="track"><i style="width:{found["top1_acc"]:.1f}%"></i></div>'
        lines.append(f'<div>{escape(name)}</div>{bar}<div class="count">{text}</div>')
    note = (
        f"{escape(orders['verdict'])} Top-1 over one center view of each video; points lost against"
        " the true order, with the 95 % interval over the same videos."
    )
    return section("Does time matter?", note, f'<div class="bars orders">{"".join(lines)}</div>')
