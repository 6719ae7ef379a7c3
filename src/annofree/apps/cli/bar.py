"""The bar on a terminal, with our own estimate of the time that is left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from annofree.apps.cli.eta import Eta, format_duration, format_pace

__all__ = ["Bar"]


class Bar:
    """A bar for what is done; lines that are printed meanwhile go above it."""

    def __init__(self, what: str, eta: Eta, total: int) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), _Pace(eta), _Left(eta))
        self._progress = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
        self._task = self._progress.add_task(what, total=total)
        self._progress.start()

    def show(self, done: int, total: int) -> None:
        """Take in how many are done."""
        self._progress.update(self._task, completed=done, total=total)

    def close(self) -> None:
        """Draw it a last time and leave it there."""
        self._progress.stop()


class _Pace(ProgressColumn):
    """How fast it goes."""

    def __init__(self, eta: Eta) -> None:
        super().__init__()
        self._eta = eta

    def render(self, task: Task) -> Text:
        """As words, nothing where it is not known."""
        pace = self._eta.mean if self._ended else self._eta.pace
        return Text("" if pace is None else format_pace(pace), style="progress.data.speed")

    @property
    def _ended(self) -> bool:
        return self._eta.done >= self._eta.total  # a task of rich that was finished once stays so


class _Left(_Pace):
    """What time is left, or how long it took."""

    def render(self, task: Task) -> Text:
        """As words."""
        if self._ended:
            return Text(f"in {format_duration(self._eta.seconds, 1)}", style="progress.elapsed")
        left = self._eta.estimate_left()
        return Text("estimating" if left is None else f"{format_duration(left)} left", style="progress.remaining")
