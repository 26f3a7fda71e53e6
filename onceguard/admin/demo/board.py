"""Shows what happens while it happens: a live table, or lines where nobody looks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from onceguard.admin.demo import rows
from onceguard.admin.demo.verdict import summaries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from onceguard.admin.demo.journal import Journal
    from onceguard.admin.demo.rows import Row

_LEAST_ROWS = 5
_PLAIN = "{:>6}  {:<22} {:<19} {}"
_SUMMARY = ("call", "started", "completed", "refused or put off")
_PLAIN_SUMMARY = "{:<22} {:>8} {:>10}  {}"


class Board:
    """
    The rows so far, on a terminal as a table that grows, else as lines.

    Args:
        ledger: What the task bodies write.
        decisions: What onceguard tells.
    """

    def __init__(self, ledger: Journal, decisions: Journal) -> None:
        self._console = Console(highlight=False, markup=False)
        terminal = self._console.file.isatty() and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, auto_refresh=False) if terminal else None
        self._began = time.monotonic()
        self._ledger, self._decisions = ledger, decisions
        self._read = [0, 0]
        self._rows: list[Row] = []

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        else:
            self._print(_PLAIN.format(*rows.HEAD))
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the whole table on the terminal."""
        self.refresh()
        if self._live:
            self._live.update(self._table(self._rows))
            self._live.stop()

    def act(self, title: str) -> None:
        """Announce what is done next."""
        self.refresh()
        self._add([rows.act(time.monotonic(), title)])

    def tell(self, call: str, word: str, why: str) -> None:
        """Add what the show itself did."""
        self.refresh()
        self._add([rows.Row(at=time.monotonic(), call=call, word=word, why=why)])

    def refresh(self) -> None:
        """Add what the journals have gained."""
        told, decided = self._ledger.lines(), self._decisions.lines()
        new = [rows.from_ledger(line) for line in told[self._read[0] :]]
        new += [rows.from_decision(line) for line in decided[self._read[1] :]]
        self._read = [len(told), len(decided)]
        self._add(sorted((row for row in new if row), key=lambda row: row.at))

    def conclude(self, faults: Sequence[str]) -> None:
        """Sum up, and say the verdict."""
        told = summaries(self._ledger.lines(), self._decisions.lines())
        self._sum_up([rows.counted(summary) for summary in told])
        for fault in faults:
            self._console.print(Text(f"- {fault}", style="red"), soft_wrap=True)
        verdict, style = "Nothing ran twice, and nothing was lost.", "bold green"
        if faults:
            verdict, style = "This must not happen, and did.", "bold red"
        self._console.print(Text(verdict, style=style), soft_wrap=True)

    def _sum_up(self, counts: Sequence[tuple[str, str, str, str]]) -> None:
        if self._live is None:
            lines = [_PLAIN_SUMMARY.format(*texts) for texts in (_SUMMARY, *counts)]
            self._print("\n".join(["", *lines, ""]))
            return
        table = Table(box=box.SIMPLE_HEAD)
        for index, name in enumerate(_SUMMARY):
            table.add_column(name, justify="right" if index in {1, 2} else "left")
        for texts in counts:
            table.add_row(*texts)
        self._console.print(table)

    def _add(self, new: Sequence[Row]) -> None:
        self._rows += new
        if self._live is None:
            for row in new:
                self._print(self._line(row))
        elif new:
            self._live.update(self._newest(), refresh=True)

    def _line(self, row: Row) -> str:
        at = f"{row.at - self._began:.1f}"
        if not (row.call or row.word):
            return f"\n{at:>6}  {row.why}"
        return _PLAIN.format(at, row.call, row.word, row.why)

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)
        self._console.file.flush()

    def _newest(self) -> Table:
        """Make a table of as many of the newest rows as the terminal has room for."""
        shown = self._rows[-self._console.height :]
        while True:
            table = self._table(shown)
            excess = len(self._console.render_lines(table)) - self._console.height + 1
            if excess <= 0 or len(shown) <= _LEAST_ROWS:
                return table
            shown = shown[-max(_LEAST_ROWS, len(shown) - excess) :]

    def _table(self, shown: Sequence[Row]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, expand=True)
        table.add_column(rows.HEAD[0], justify="right", no_wrap=True)
        table.add_column(rows.HEAD[1], no_wrap=True)
        table.add_column(rows.HEAD[2], no_wrap=True)
        table.add_column(rows.HEAD[3], ratio=1)
        for row in shown:
            if not (row.call or row.word):
                table.add_section()
            at = f"{row.at - self._began:.1f}"
            why = Text(row.why, style="bold" if not row.word else "")
            table.add_row(at, row.call, Text(row.word, style=row.style), why)
        return table
