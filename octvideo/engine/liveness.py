"""Ranks that hear of each other: one that dies, is stopped or fails ends the others with a line
instead of a wait.

A rank that waits for another does so inside a collective, where neither an exception nor a signal
handler reaches it. So every rank counts upwards in the store where they met, and reads the counts
of the others. A rank that is merely slow goes on counting; one whose process is stopped does not.
Two threads do it, because a store whose process is stopped keeps who asks it waiting: one speaks
with the store, and one watches the clock.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from octvideo.errors import logger

LEFT, FAILED = "left", "failed: "
GRACE_SECONDS = (
    10.0  # in which those who heard of a failure end by themselves, each with its own line
)
START_SECONDS = 60.0  # at least, for ranks that have not been heard of yet: they import first
ANSWER_SECONDS = 5.0  # for which the store is waited for where a word more or less does not matter


class Liveness:
    """Call start(), join(store) when all have connected, leave() before the group is destroyed."""

    def __init__(
        self,
        rank: int,
        world_size: int,
        silence_seconds: float,
        trouble: Callable[[], str] = lambda: "",
    ) -> None:
        """silence_seconds: after which a rank counts as lost. trouble: why this rank cannot go on,
        "" while it can."""
        self.met: set[int] = set()
        """The ranks that rank 0 has met so far."""
        self._rank, self._silence, self._trouble = rank, silence_seconds, trouble
        self._interval = min(2.0, silence_seconds / 4)
        self._others = [other for other in range(world_size) if other != rank]
        self._store: Any = None
        self._word, self._words, self._rounds = "", dict.fromkeys(self._others, ""), 0
        self._over, self._wake = threading.Event(), threading.Event()
        self._speaker = threading.Thread(target=self._speak, daemon=True)

    def start(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def join(self, store: Any) -> None:
        """store: a connection used by nothing else, with a prefix of this start alone."""
        self._store = store
        self._speaker.start()

    def leave(self, failure: str = "") -> None:
        """Tell the other ranks that this rank has finished, or why it failed."""
        self._over.set()
        self._say(f"{FAILED}{failure}" if failure else LEFT)

    def reason(self) -> str:
        """Why another rank ended; "" if it could not say so."""
        self._exchange()
        for other, word in self._words.items():
            if word.startswith(FAILED):
                return f"rank {other} ended: {word.removeprefix(FAILED)}"
        return ""

    # --- the store ---

    def _speak(self) -> None:
        beats = 0
        while not self._word:
            beats += 1
            self._round(str(beats))
            self._wake.wait(self._interval)
            self._wake.clear()
        self._round(self._word)

    def _round(self, word: str) -> None:
        """Say a word, and hear those of the others."""
        try:
            self._store.set(f"rank_{self._rank}", word)
            speaking = [
                other
                for other in self._others
                if self._words[other] or self._store.check([f"rank_{other}"])
            ]
            heard = self._store.multi_get([f"rank_{other}" for other in speaking])
            self._words |= dict(zip(speaking, map(bytes.decode, heard), strict=True))
        except RuntimeError:
            pass  # the store is gone: its rank is silent
        self._rounds += 1

    def _say(self, last_word: str) -> None:
        self._word = last_word
        self._wake.set()
        if self._speaker.is_alive():
            self._speaker.join(ANSWER_SECONDS)

    def _exchange(self) -> None:
        """Have heard what the others say now, or wait in vain."""
        since, end = self._rounds, time.monotonic() + ANSWER_SECONDS
        # The round that is under way may have asked before.
        while self._speaker.is_alive() and self._rounds < since + 2 and time.monotonic() < end:
            self._wake.set()
            time.sleep(0.01)

    # --- the clock ---

    def _watch(self) -> None:
        heard = dict.fromkeys(self._others, "")
        silent = dict.fromkeys(self._others, 0.0)
        failed = dict.fromkeys(self._others, 0.0)
        before = time.monotonic()
        while not self._over.wait(self._interval):
            now = time.monotonic()
            # A pause of this process, too, is no silence of the others.
            passed, before = min(now - before, 2 * self._interval), now
            if line := self._trouble():
                self._end(line)
            for other, word in self._words.copy().items():
                silent[other] = 0.0 if word != heard[other] else silent[other] + passed
                heard[other] = word
                if word.startswith(FAILED):
                    failed[other] += passed
                    if failed[other] > GRACE_SECONDS:
                        self._end(f"rank {other} ended: {word.removeprefix(FAILED)}")
                elif word != LEFT and silent[other] > self._patience(other):
                    self._end(self._silence_of(other))

    def _patience(self, other: int) -> float:
        """Seconds for which this rank may be silent. One that waits for missing ranks is silent."""
        if self._words[other]:
            return self._silence
        if self._store is None and other in self.met:
            return float("inf")
        return max(self._silence, START_SECONDS)

    def _silence_of(self, other: int) -> str:
        line = (
            f"rank {other} has not been heard of for {self._patience(other):g} seconds: its"
            " process "
        )
        if not self._words[other]:
            return (
                f"{line}has not started, or is dead or stopped; start all together, or raise"
                " DATA_LOADER.TIMEOUT"
            )
        return (
            f"{line}is dead or stopped, or its machine is gone; the same command continues from the"
            " last checkpoint"
        )

    def _end(self, line: str) -> None:
        """A thread can only end the whole process; checkpoints and journals are always whole."""
        if self._over.is_set():
            return
        logger.error("error: %s", line)
        sys.stdout.flush()
        self._say(f"{FAILED}{line}")
        os._exit(1)
