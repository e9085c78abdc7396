"""A link that flaps rests longer and longer, and is forgiven."""

from protocol.damping import Damping


def test_each_fall_doubles_the_rest_up_to_a_bound() -> None:
    damping = Damping()
    rests = [damping.fell(0.0) for _ in range(20)]
    assert rests[:5] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert max(rests) == rests[-1] == 300.0


def test_falls_are_forgiven_with_time() -> None:
    damping = Damping()
    for _ in range(4):
        damping.fell(0.0)
    assert damping.penalty(0.0) == 4.0
    assert damping.penalty(240.0) == 1.0
    assert damping.fell(240.0) == 2.0
    assert 0.9 < damping.fell(1e6) < 1.1


def test_a_clock_that_stands_still_or_steps_back_forgives_nothing() -> None:
    damping = Damping()
    damping.fell(100.0)
    assert damping.penalty(50.0) == 1.0
