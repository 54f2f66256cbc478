"""A progress display for work that learns only under way how much it is."""

import contextlib
from collections.abc import Callable, Iterator

from personalign.cli._output import progress


@contextlib.contextmanager
def counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yield `report(done, total)`; the display opens at its first call."""
    with contextlib.ExitStack() as stack:
        advance: list[Callable[[int], None]] = []
        shown = 0

        def report(done: int, total: int) -> None:
            nonlocal shown
            if not advance:
                advance.append(stack.enter_context(progress(description, total=total)))
            advance[0](done - shown)
            shown = done

        yield report
