"""Tokens: short, and none that could still be answered."""

from collections import deque

from store.coaptokens import REST_S, Tokens
from tests.store.coaprig import open_rig


def made() -> tuple[Tokens, list[float]]:
    now = [0.0]
    return Tokens(monotonic=lambda: now[0], first=250), now


def test_a_quiet_link_pays_for_one_byte() -> None:
    tokens, now = made()
    for _ in range(600):
        assert len(tokens.next()) == 1
        now[0] += 1.0


def test_a_burst_goes_on_with_two_bytes_and_comes_back_to_one() -> None:
    tokens, now = made()
    lengths = [len(tokens.next()) for _ in range(300)]
    assert lengths == [1] * 256 + [2] * 44
    now[0] += REST_S
    assert len(tokens.next()) == 1


def test_no_token_comes_again_while_its_answer_may_be_on_its_way() -> None:
    tokens, now = made()
    recent: deque[tuple[float, bytes]] = deque()
    for _ in range(40_000):
        now[0] += 0.005
        while recent and now[0] - recent[0][0] >= REST_S:
            recent.popleft()
        recent.append((now[0], tokens.next()))
    assert len({token for _, token in recent}) == len(recent)


async def test_a_requests_token_is_one_byte_on_the_wire() -> None:
    async with open_rig() as rig:
        seen: list[int] = []

        def drop(data: bytes, upwards: bool) -> bool:
            seen.append(data[0] & 0x0F)
            return False

        rig.proxy.drop = drop
        await rig.ask(rig.message("echo"))
        assert set(seen) == {1}
