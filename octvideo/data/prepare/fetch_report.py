"""What `octvideo fetch` stored of a split."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """The result of one split, compared with its annotations. broken: path -> cause;
    broken_archives: archive -> cause."""

    split: str
    num_stored: int = 0
    missing: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    broken_archives: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{self.split}: {self.num_stored} videos stored, {len(self.replaced)} of them"
            f" replacements; {len(self.broken)} broken, {len(self.missing)} missing,"
            f" {len(self.broken_archives)} archives broken"
        ]
        lines += [
            f"broken archive: {name}: {cause}" for name, cause in self.broken_archives.items()
        ]
        lines += [f"broken: {path}: {cause}" for path, cause in self.broken.items()]
        lines += [f"replaced: {stem}" for stem in self.replaced]
        lines += [f"missing: {stem}" for stem in self.missing]
        return "\n".join(lines)
