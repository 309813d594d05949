"""Ranks that hear of each other: one that dies, is stopped or fails ends the others with a line instead of a wait.

A rank that waits for another does so inside a collective, where neither an exception nor a signal handler reaches it.
So a thread in every rank counts upwards in the store where they met, and watches the counts of the others. A rank that
is merely slow goes on counting; one whose process is stopped does not.
"""

import logging
import os
import sys
import threading
import time
from typing import Any

logger = logging.getLogger("octvideo")

LEFT, FAILED = "left", "failed: "
GRACE_SECONDS = (
    10.0  # in which those who heard of a failure end by themselves, each with its own line
)


class Liveness:
    """start() on every rank after they met; leave() before the group goes."""

    def __init__(self, store: Any, rank: int, world_size: int, silence_seconds: float) -> None:
        """store: a connection of its own. silence_seconds: after which a rank counts as lost."""
        self._store, self._rank = store, rank
        self._silence = silence_seconds
        self._interval = min(2.0, silence_seconds / 4)
        self._others = [other for other in range(world_size) if other != rank]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._say("0")

    def start(self) -> None:
        self._thread.start()

    def leave(self, failure: str = "") -> None:
        """Tell the others that this rank has finished, or why it has not."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._say(f"{FAILED}{failure}" if failure else LEFT)
        except RuntimeError:
            return  # the store has gone with the rank that kept it

    def reason(self) -> str:
        """Why another rank ended, as far as it could say so; "" where it could not."""
        try:
            words = self._words()
        except RuntimeError:
            return ""
        for other, word in words.items():
            if word.startswith(FAILED):
                return f"rank {other} ended: {word.removeprefix(FAILED)}"
        return ""

    def _say(self, word: str) -> None:
        self._store.set(f"rank_{self._rank}", word)

    def _run(self) -> None:
        heard = dict.fromkeys(self._others, "")
        silent = dict.fromkeys(self._others, 0.0)
        failures: dict[int, float] = {}
        beats, before = 0, time.monotonic()
        while not self._over.wait(self._interval):
            now = time.monotonic()
            # A pause of this process, too, is no silence of the others.
            passed, before = min(now - before, 2 * self._interval), now
            beats += 1
            try:
                self._say(str(beats))
                words = self._words()
            except RuntimeError:
                words = {}  # the store is gone: its rank is silent
            for other in self._others:
                word = words.get(other, heard[other])
                silent[other] = (
                    0.0 if word != heard[other] or word == LEFT else silent[other] + passed
                )
                heard[other] = word
                if word.startswith(FAILED):
                    failures[other] = failures.get(other, 0.0) + passed
                    if failures[other] > GRACE_SECONDS:
                        self._end(f"rank {other} ended: {word.removeprefix(FAILED)}")
                elif silent[other] > self._silence:
                    self._end(
                        f"rank {other} has not been heard of for {self._silence:g} seconds: its process is dead or "
                        "stopped, or its machine is gone; the same command continues from the last checkpoint"
                    )

    def _words(self) -> dict[int, str]:
        keys = [f"rank_{other}" for other in self._others]
        return {
            other: word.decode()
            for other, word in zip(self._others, self._store.multi_get(keys), strict=True)
        }

    def _end(self, line: str) -> None:
        """From this thread only the process as a whole can be ended; checkpoints and journals are whole at any time."""
        if not self._over.is_set():
            logger.error("error: %s", line)
            sys.stdout.flush()
            os._exit(1)
