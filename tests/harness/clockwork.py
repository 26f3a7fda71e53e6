"""Wall clocks that a test sets while programs run by them."""

import time
from pathlib import Path


class SetClock:
    """
    A wall clock of one program or several, wrong by as much as the test likes.

    Args:
        library: What `tests.harness.clock.preload` found.
        file: Where the programs read how far it is from the right time.
        instant: What it shows first, unix seconds; the right time if not given.
    """

    def __init__(self, library: str, file: Path, instant: float | None = None) -> None:
        self._library, self._file = library, file
        self._settings: list[tuple[float, float]] = []
        self.set(time.time() if instant is None else instant)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a program go by it; as `tests.harness.clock.skewed`."""
        return {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
        }

    def at(self, instant: float) -> float:
        """Tell what it shows, or showed, at an instant of the right time; unix seconds."""
        ahead = [ahead for since, ahead in self._settings if since <= instant]
        return instant + ahead[-1]

    def set(self, instant: float) -> None:
        """Set it to an instant, unix seconds."""
        now = time.time()
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{instant - now:+.3f}\n")
        draft.replace(self._file)
        self._settings.append((time.time(), instant - now))
