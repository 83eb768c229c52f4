"""Work ahead of its use, and messages of errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sdpose_core.ahead import ahead
from sdpose_core.messages import error_line


@pytest.mark.parametrize("workers", [0, 3])
def test_results_come_in_order_and_errors_at_their_turn(workers: int) -> None:
    taken: list[int] = []
    with pytest.raises(ZeroDivisionError):
        taken.extend(ahead(lambda n: 12 // n, [1, 2, 0, 4], workers=workers, limit=2, name="t"))
    assert taken == [12, 6]


def test_no_more_than_the_limit_is_taken_ahead() -> None:
    begun: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            begun.append(len(begun))
            yield begun[-1]

    made = ahead(lambda n: n, endless(), workers=2, limit=3, name="t")
    assert [next(made), next(made)] == [0, 1]
    assert len(begun) == 4
    made.close()


def test_an_error_is_one_line() -> None:
    assert error_line(ValueError("two\n  lines")) == "two lines"
    assert error_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert error_line(ValueError("x" * 20), limit=8) == "xxxxx..."
