"""The memory that many share: who is refused, and who hears of it."""

from __future__ import annotations

import threading

import pytest

from service.errors import ServiceError
from service.scheduling.budget import ByteBudget


def test_memory_can_be_given_back_while_a_refusal_is_told() -> None:
    """The lock is free then: else one who waits for it could hold what the listener waits for."""
    others: list[threading.Thread] = []

    def listen() -> None:
        other = threading.Thread(target=budget.give_back, args=(10,), daemon=True)
        other.start()
        other.join(5)
        others.append(other)

    budget = ByteBudget(10, "letters", listen)
    budget.take(10)
    with pytest.raises(ServiceError):
        budget.take(1)
    assert [other.is_alive() for other in others] == [False]
    assert budget.used == 0
