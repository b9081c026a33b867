"""Admission by seconds of work; the clock is a number that the tests set."""

from __future__ import annotations

import asyncio
import math
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffuir_platform.serve.gateway.admission import Admission, LimitError
from diffuir_platform.serve.model import work_units


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> Admission:
    """An admission for a model that takes one second for each unit."""
    return ready(Admission(max_open=3, held_bytes=100, max_wait=2.0, clock=clock))


def ready(admission: Admission) -> Admission:
    admission.learn("model", 1.0, 1.0)
    return admission


def test_a_large_photo_fills_the_queue_as_many_small_ones_do(admission: Admission) -> None:
    with admission.work("model", 8.0):
        assert admission.wait() == pytest.approx(8.0)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(admission.work("model", 0.5))
        assert admission.wait() == pytest.approx(2.0)
    assert admission.wait() == 0.0


def test_a_free_model_takes_a_photo_of_any_size_at_once(admission: Admission) -> None:
    with admission.work("model", 1000.0):
        assert admission.queued == 1


def test_what_would_wait_longer_than_allowed_is_refused_with_the_time_to_come_back(
    admission: Admission,
) -> None:
    with admission.work("model", 5.5), pytest.raises(LimitError) as refused, admission.work("model", 1.0):
        pass
    assert (refused.value.limit, refused.value.retry_after) == ("wait", 4)
    assert admission.queued == 0


def test_waiting_gets_shorter_while_a_model_works(admission: Admission, clock: Clock) -> None:
    with admission.work("model", 3.0):
        clock.now = 2.0
        assert admission.wait() == pytest.approx(1.0)
        clock.now = 60.0  # it takes longer than was thought
        assert admission.wait() == 0.0


def test_the_next_photo_begins_when_the_one_before_has_ended(admission: Admission, clock: Clock) -> None:
    with ExitStack() as second:
        with admission.work("model", 1.0):
            second.enter_context(admission.work("model", 1.5))
            clock.now = 1.0
            assert admission.wait() == pytest.approx(1.5)
        clock.now = 2.0
        assert admission.wait() == pytest.approx(0.5)


def test_several_models_share_the_work(admission: Admission, clock: Clock) -> None:
    admission.replicas = 2
    with ExitStack() as stack:
        stack.enter_context(admission.work("model", 3.0))
        assert admission.wait() == 0.0, "one is free"
        stack.enter_context(admission.work("model", 1.0))
        assert admission.wait() == pytest.approx(2.0)
        clock.now = 1.0
        assert admission.wait() == pytest.approx(1.0)


def test_a_gateway_with_a_share_of_a_model_counts_with_less_than_one(admission: Admission) -> None:
    admission.replicas = 0.5
    assert admission.wait() == 0.0
    with admission.work("model", 1.0):
        assert admission.wait() == pytest.approx(2.0)


def takes(work: float) -> float:
    """Seconds of a model whose calls cost ten milliseconds and whose work is fast."""
    return 0.010 + 0.03e-6 * work


@pytest.mark.parametrize("odd", [1.0, 0.8, 1.25])
def test_many_small_photos_do_not_make_large_ones_seem_slow(admission: Admission, odd: float) -> None:
    """Most of their time does not depend on their pixels."""
    warm_up, thumbnail, large = (work_units(side, side, 3) for side in (256, 64, 5500))
    admission.learn("fast", warm_up, odd * takes(warm_up))
    for _ in range(100):
        admission.learn("fast", thumbnail, takes(thumbnail))
    assert admission.expected("fast", thumbnail) == pytest.approx(takes(thumbnail), rel=0.25)
    assert takes(large) / 2 < admission.expected("fast", large) < 2 * takes(large)
    admission.learn("fast", large, takes(large))
    for _ in range(1000):
        admission.learn("fast", thumbnail, takes(thumbnail))
    assert admission.expected("fast", large) == pytest.approx(takes(large), rel=0.1)


@given(st.lists(st.tuples(st.floats(1.0, 1e9), st.floats(0.0, 1e3)), min_size=1, max_size=20))
def test_more_work_is_never_thought_to_take_less(measured: list[tuple[float, float]]) -> None:
    admission = Admission(1, 1, 1.0)
    for work, seconds in measured:
        admission.learn("model", work, seconds)
    thought = [admission.expected("model", 10.0**power) for power in range(10)]
    assert thought == sorted(thought)
    assert thought[0] >= -1e-9
    assert all(math.isfinite(seconds) for seconds in thought)


def cancelled(admission: Admission, amount: float, clock: Clock, after: float) -> None:
    """Enter a photo whose client goes away after `after` seconds."""
    stack = ExitStack()
    stack.enter_context(admission.work("model", amount))
    clock.now += after
    end(stack, asyncio.CancelledError)


def test_a_photo_that_nobody_waits_for_stands_before_others_while_a_model_is_on_it(
    admission: Admission, clock: Clock
) -> None:
    cancelled(admission, 5.0, clock, after=1.0)
    assert (admission.queued, admission.wait()) == (1, pytest.approx(4.0))
    with pytest.raises(LimitError) as refused, admission.work("model", 1.0):
        pass
    assert (refused.value.limit, refused.value.retry_after) == ("wait", 2)
    clock.now = 4.0
    with admission.work("model", 1.5):
        clock.now = 5.5  # half a second after the model was free for it
        assert (admission.wait(), admission.queued) == (pytest.approx(1.0), 1)
    assert (admission.queued, admission.wait()) == (0, 0.0)


def test_a_photo_that_nobody_waits_for_and_no_model_has_begun_is_forgotten(
    admission: Admission, clock: Clock
) -> None:
    with admission.work("model", 1.0):
        cancelled(admission, 5.0, clock, after=0.5)
        assert (admission.queued, admission.wait()) == (1, pytest.approx(0.5))


def test_without_any_model_the_first_photo_is_taken_so_that_one_is_started(admission: Admission) -> None:
    admission.replicas = 0
    with admission.work("model", 1.0):
        assert admission.queued == 1


def test_the_place_of_a_photo_that_fails_is_given_back(admission: Admission) -> None:
    with pytest.raises(RuntimeError), admission.work("model", 9.0):
        raise RuntimeError
    assert (admission.queued, admission.wait()) == (0, 0.0)


def test_no_more_requests_are_open_than_allowed(admission: Admission) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(admission.request())
        with pytest.raises(LimitError) as refused, admission.request():
            pass
        assert (refused.value.limit, refused.value.retry_after) == ("open", 1)
        assert admission.open == 3
    with admission.request():
        assert admission.open == 1


def test_what_a_request_holds_is_counted_until_it_ends(admission: Admission) -> None:
    with admission.request() as one, admission.request() as other:
        one.add(60)
        other.add(40)
        with pytest.raises(LimitError) as refused:
            other.add(1)
        assert (refused.value.limit, refused.value.retry_after) == ("memory", 1)
    with admission.request() as one:
        one.add(100)


def test_what_a_failed_request_held_is_given_back(admission: Admission) -> None:
    def failing() -> None:
        with admission.request() as memory:
            memory.add(100)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert admission.open == 0
    with admission.request() as memory:
        memory.add(100)


def test_a_refusal_says_to_come_back_when_the_work_is_done(admission: Admission) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(admission.request())
        stack.enter_context(admission.work("model", 6.2))
        with pytest.raises(LimitError) as refused, admission.request():
            pass
    assert refused.value.retry_after == 7


def test_nothing_is_expected_of_a_model_that_nothing_is_known_of(admission: Admission) -> None:
    assert not admission.is_measured("other")
    assert admission.expected("other", 1e9) == 0.0
    admission.learn("other", 10.0, 5.0)
    assert admission.is_measured("other")
    assert admission.expected("other", 4.0) == pytest.approx(2.0)


def test_each_model_has_a_latency_of_its_own(admission: Admission) -> None:
    admission.learn("slow", 1.0, 10.0)
    assert admission.expected("slow", 1.0) == pytest.approx(10.0)
    assert admission.expected("model", 1.0) == pytest.approx(1.0)


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3), st.floats(1.0, 1e9))
def test_what_a_model_is_thought_to_take_follows_what_it_takes(
    before: float, now: float, work: float
) -> None:
    admission = Admission(1, 1, 1.0)
    admission.learn("model", work, before * work)
    for _ in range(60):
        between = sorted((admission.expected("model", 1.0), now))
        admission.learn("model", work, now * work)
        low, high = between
        assert low * (1 - 1e-9) <= admission.expected("model", 1.0) <= high * (1 + 1e-9)
    assert admission.expected("model", 1.0) == pytest.approx(now, rel=1e-3, abs=before * 1e-5)


def test_one_odd_measurement_does_not_change_what_is_thought(admission: Admission) -> None:
    admission.learn("model", 1.0, 2.0)
    assert 1.0 < admission.expected("model", 1.0) < 1.5


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 100))
def test_work_grows_with_pixels_and_steps(height: int, width: int, steps: int) -> None:
    assert work_units(height, width, steps + 1) > work_units(height, width, steps) > 0
    assert (
        work_units(height + 1, width, steps)
        > work_units(height, width, steps)
        == work_units(width, height, steps)
    )


def come(admission: Admission, amount: float) -> tuple[ExitStack | None, str]:
    """A request that stays open, or the limit that refused it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(admission.request()).add(150)
            stack.enter_context(admission.work("model", amount))
        except LimitError as refused:
            return None, refused.limit
        return stack.pop_all(), ""


ENDS = {"go": None, "fail": RuntimeError, "leave": asyncio.CancelledError}


def end(stack: ExitStack, how: type[BaseException] | None) -> None:
    if how is None:
        return stack.close()
    with pytest.raises(how), stack:
        raise how


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(("come", "go", "fail", "leave", "wait", "scale")),
        st.floats(0.01, 5.0),
        st.integers(0, 9),
    ),
    max_size=60,
)


@given(EVENTS)
def test_whatever_happens_waiting_is_bounded_and_all_is_given_back(
    events: list[tuple[str, float, int]],
) -> None:
    clock = Clock()
    admission = ready(Admission(max_open=5, held_bytes=1000, max_wait=2.0, clock=clock))
    open_ones: list[ExitStack] = []
    work: list[float] = []
    left: list[float] = []
    for what, amount, which in events:
        if what == "come":
            wait = admission.wait()
            stack, refused = come(admission, amount)
            if stack is None:
                assert refused == "open" if len(open_ones) == 5 else (refused == "wait" and wait > 2.0)
            else:
                assert wait <= 2.0
                open_ones.append(stack)
                work.append(amount)
        elif what in ENDS and open_ones:
            index = which % len(open_ones)
            its_work = work.pop(index)
            stack = open_ones.pop(index)
            if what == "leave":
                left.append(its_work)
            end(stack, ENDS[what])
        elif what == "wait":
            clock.now += amount
        elif what == "scale":
            admission.replicas = which
        assert admission.open == len(open_ones)
        assert len(open_ones) <= admission.queued <= len(open_ones) + len(left)
        assert 0.0 <= admission.wait() <= math.fsum(work + left) + 1e-9
    for stack in open_ones:
        stack.close()
    clock.now += math.fsum(left) + 1e-6
    assert (admission.wait(), admission.open, admission.queued) == (0.0, 0, 0)
    with admission.request() as memory:
        memory.add(1000)
