"""The report of an inflation, layer by layer."""

from dataclasses import dataclass, field


@dataclass
class InflationReport:
    """The origin of every layer's weights, by the layer's name in the pathway that is filled.

    copied: unchanged, or repeated over time. split: one group became two ("256 -> 224+32" output
    channels).
    merged: two groups became one. fresh: keeps its initialization, for the given reason.
    notes: assumptions that cannot be checked, and folded values. is_video: the weights were a video
    network's, of which nothing is inflated.
    """

    copied: list[str] = field(default_factory=list)
    split: dict[str, str] = field(default_factory=dict)
    merged: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    is_video: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether the features of a still clip equal the image network's."""
        return not (self.split or self.merged)

    def lines(self) -> list[str]:
        """The lines for a log: one per stage and kind, one per layer with fresh weights."""
        verb = "taken" if self.is_video else "inflated"
        lines = [f"{verb} as they are: {len(self.copied)} layers"] if self.copied else []
        for kind, layers in (("split", self.split), ("merged", self.merged)):
            for stage in dict.fromkeys(name.partition(".")[0] for name in layers):
                changes = [
                    change for name, change in layers.items() if name.startswith(f"{stage}.")
                ]
                lines.append(
                    f"{kind} in {stage}: {len(changes)} layers, {', '.join(dict.fromkeys(changes))}"
                )
        lines += [f"starts fresh: {name} ({reason})" for name, reason in self.fresh.items()]
        return lines + self.notes
