from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.schedulers.arrival_groups import Group, OpenGroups
from isogon.schedulers.speed import Speed

TIMES = st.integers(0, 20)


@given(
    groups=st.lists(
        st.tuples(TIMES, TIMES, st.lists(st.integers(1, 9), min_size=1, max_size=2)), min_size=2, max_size=8
    ),
    changed=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 9)), max_size=8),
    removed=st.sets(st.integers(0, 7), max_size=3),
    pace=st.sampled_from([3.0, 7.0, 1.0, 0.1]),
    now=st.integers(0, 3),
    q_min=st.integers(1, 2),
)
@settings(max_examples=300)
def test_as_looking_at_every_group(
    groups: list[tuple[int, int, list[int]]],
    changed: list[tuple[int, int]],
    removed: set[int],
    pace: float,
    now: int,
    q_min: int,
) -> None:
    q_max = 5
    paces: dict[str, float] = {}
    kept = []
    opened = OpenGroups(paces.__getitem__)
    for number, (expected, wait, members) in enumerate(groups):
        group = Group(number, 0.0, float(expected), float(expected + wait))
        for index, seconds in enumerate(members):
            name = f"{number}-{index}"
            paces[name] = float(seconds)
            group.working[name] = None
            group.set_pace(name, paces[name])
            opened.put(group)
        kept.append(group)
    for number, seconds in changed:
        if number < len(kept):
            name = next(iter(kept[number].working))
            paces[name] = float(seconds)
            kept[number].set_pace(name, paces[name])
            opened.put(kept[number])
    for number in removed & set(range(len(kept))):
        opened.remove(kept[number])
    opened.check_valid()
    kept = [group for group in kept if group.number not in removed]
    speed = Speed()
    speed.observe(pace, 1, 0.0, 0.0)

    steps = [(math.floor((group.expected - now) / pace), group.number) for group in kept]
    most = max((each for each in steps if q_min <= each[0] <= q_max), default=None)
    found = opened.to_join(speed, float(now), q_min, q_max)
    assert (None if found is None else (found[1], found[0].number)) == most

    backs = [group.latest + min(paces[name] for name in group.working) for group in kept if now < group.latest]
    within = [math.floor((back - now) / pace) for back in backs]
    assert opened.to_follow(speed, float(now), q_max) == max((q for q in within if q <= q_max), default=None)
