"""The changes of `octavize` to a network, and the compute that it saves."""

from collections.abc import Sequence
from dataclasses import dataclass

from octvideo.layers import Channels


@dataclass(frozen=True, slots=True)
class ConvReport:
    """A convolution: the channels of its input and output, multiply-adds and parameters before and
    after.

    why: the reason if its output is undivided.
    """

    name: str
    reads: Channels
    writes: Channels
    macs_before: int
    macs: int
    why: str = ""

    @property
    def is_octave(self) -> bool:
        """Whether its input or its output is a pair."""
        return bool(self.reads.low or self.writes.low)

    def __str__(self) -> str:
        why = f" ({self.why})" if self.why else ""
        return f"{self.name}: {self.reads} -> {self.writes}{why}"


@dataclass(frozen=True, slots=True)
class StageError:
    """|features - features before| / |features before| behind the last layer of a stage."""

    stage: str
    error: float

    def __str__(self) -> str:
        return f"{self.stage}: relative feature error {self.error:.3f}"


@dataclass(frozen=True, slots=True)
class OctaveReport:
    """convolutions: all of the network. notes: where a pair was merged or a map was split, and why.

    macs: multiply-adds of convolutions and linear layers for one example. errors: empty without
    clips.
    """

    alpha: float
    convolutions: tuple[ConvReport, ...]
    notes: tuple[str, ...]
    macs_before: int
    macs: int
    parameters_before: int
    parameters: int
    errors: tuple[StageError, ...] = ()

    @property
    def octave(self) -> list[ConvReport]:
        """The convolutions with a pair as input or output."""
        return [conv for conv in self.convolutions if conv.is_octave]

    def lines(self) -> list[str]:
        """A summary, then a line per convolution, note and stage."""
        saved = 1 - self.macs / self.macs_before if self.macs_before else 0.0
        summary = (
            f"{len(self.octave)} of {len(self.convolutions)} convolutions are octave at alpha"
            f" {self.alpha:g}: {self.macs / 1e6:,.1f} of {self.macs_before / 1e6:,.1f} M"
            f" multiply-adds ({saved:.0%} less), {self.parameters / 1e6:.2f} M parameters,"
            f" {self.parameters_before / 1e6:.2f} M before"
        )
        rows: Sequence[object] = (*self.convolutions, *self.notes, *self.errors)
        return [summary, *(f"  {row}" for row in rows)]

    def __str__(self) -> str:
        return "\n".join(self.lines())
