"""Pauses double up to the longest, and start again after a success."""

import asyncio
import random

import pytest

from fabwafer.service.backoff import Backoff


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return pauses


async def test_pauses_double_up_to_the_longest_and_start_again(slept: list[float]) -> None:
    backoff = Backoff(1, 5)
    for _ in range(4):
        await backoff.wait()
    assert backoff.pause == 5
    backoff.reset()
    await backoff.wait()
    assert slept == [1, 2, 4, 5, 1]


async def test_with_jitter_a_pause_is_cut_by_up_to_a_half(slept: list[float]) -> None:
    random.seed(1)
    for _ in range(50):
        await Backoff(1, 5, jitter=True).wait()
    assert 0.5 <= min(slept) < 0.6
    assert 0.9 < max(slept) <= 1
