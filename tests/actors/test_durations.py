"""How long work takes on the virtual clock: the distributions that the config says, whatever the order of events."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from isogon.actors.federation.durations import ClientDurations
from isogon.actors.federation.simulation_config import VirtualClockConfig
from isogon.actors.pools.virtual import Duration


def durations(seed: int = 0, **config: Any) -> ClientDurations:
    return ClientDurations(VirtualClockConfig.model_validate(config), seed)


def pieces(model: ClientDurations, count: int, index: int = 0, amount: int = 1, nbytes: int = 0) -> list[Duration]:
    return [model.train(index, sequence, amount, nbytes, 2 * nbytes) for sequence in range(count)]


def steps(clients: int, **speeds: Any) -> np.ndarray:
    model = durations(speeds=speeds)
    return np.array([model.client(index).seconds_per_step for index in range(clients)])


def test_homogeneous_clients_take_a_second_a_step_and_nothing_else() -> None:
    seen = pieces(durations(), 2000, amount=50)
    compute = np.array([piece.compute for piece in seen]) / 50
    assert compute.mean() == pytest.approx(1.0, abs=0.005)
    assert compute.std() == pytest.approx(0.05, rel=0.06)
    assert {(piece.down, piece.wait, piece.up, piece.lost) for piece in seen} == {(0.0, 0.0, 0.0, False)}
    assert {piece.compute for piece in pieces(durations(speeds={"kind": "homogeneous", "jitter": 0}), 9)} == {1.0}


def test_normal_speeds() -> None:
    seen = steps(3000, kind="normal", seconds_per_step=2.0)
    assert seen.mean() == pytest.approx(2.0, rel=0.02)
    assert seen.std() == pytest.approx(0.6, rel=0.05)
    assert steps(3000, kind="normal", spread=1.0).min() == 0.05


def test_exponential_speeds() -> None:
    seen = steps(3000, kind="exponential")
    assert seen.mean() == pytest.approx(1.0, rel=0.06)
    assert np.median(seen) == pytest.approx(math.log(2), rel=0.08)
    assert (seen == 0.05).mean() == pytest.approx(1 - math.exp(-0.05), rel=0.25)


def test_listed_speeds_are_for_so_many_clients() -> None:
    assert steps(3, kind="listed", seconds_per_step=[1.0, 1.5, 4.0]).tolist() == [1.0, 1.5, 4.0]
    with pytest.raises(ValueError, match=r"lists 3 clients, and there is one more \(4\)"):
        steps(4, kind="listed", seconds_per_step=[1.0, 1.5, 4.0])


def test_bytes_take_time_by_bandwidth_and_latency() -> None:
    piece = durations(links={"bytes_per_second": 1000, "latency": 0.5}).train(0, 0, 10, 4000, 2000)
    assert (piece.down, piece.up) == (4.5, 2.5)
    model = durations(links={"bytes_per_second": 1000, "bandwidth_sigma": 0.7, "latency": 2, "latency_sigma": 0.3})
    clients = [model.client(index) for index in range(3000)]
    for drawn, median, sigma in (
        ([client.bytes_per_second for client in clients], 1000, 0.7),
        ([client.latency for client in clients], 2, 0.3),
    ):
        assert np.median(drawn) == pytest.approx(median, rel=0.05)
        assert np.log(drawn).std() == pytest.approx(sigma, rel=0.05)


def test_queues_have_the_mean_that_is_given() -> None:
    waits = np.array([piece.wait for piece in pieces(durations(queues={"mean_seconds": 30}), 3000)])
    assert waits.mean() == pytest.approx(30, rel=0.03)
    assert np.log(waits).std() == pytest.approx(0.4, rel=0.05)
    assert {piece.wait for piece in pieces(durations(queues={"mean_seconds": 30, "sigma": 0}), 9)} == {30.0}
    model = durations(queues={"mean_seconds": 30, "client_sigma": 0.5})
    means = np.array([model.client(index).wait for index in range(3000)])
    assert means.mean() == pytest.approx(30, rel=0.04)
    assert np.log(means).std() == pytest.approx(0.5, rel=0.05)


def test_dropouts() -> None:
    dropouts = {"probability": 0.2, "away_seconds": 40, "gone_probability": 0.25, "hang_probability": 0.1}
    seen = pieces(durations(dropouts=dropouts), 4000, amount=10)
    lost = [piece for piece in seen if piece.lost]
    assert len(lost) / 4000 == pytest.approx(0.2, abs=0.02)
    assert np.mean([piece.compute for piece in lost]) == pytest.approx(5, rel=0.06)
    back = np.array([piece.back_after for piece in lost])
    assert np.isinf(back).mean() == pytest.approx(0.25, abs=0.05)
    assert back[np.isfinite(back)].mean() == pytest.approx(40, rel=0.12)
    assert sum(piece.hangs for piece in seen if not piece.lost) / 3200 == pytest.approx(0.1, abs=0.02)
    assert not any(piece.hangs for piece in lost)
    assert all(piece.lost for piece in pieces(durations(dropouts={"probability": 1.0}), 50))


def test_clients_that_come_late_and_leave() -> None:
    model = durations(presence={"late_share": 0.3, "late_seconds": 100, "leaving_share": 0.4, "leaving_seconds": 1000})
    clients = [model.client(index) for index in range(3000)]
    late = np.array([client.joins for client in clients if client.joins > 0])
    assert len(late) / 3000 == pytest.approx(0.3, abs=0.03)
    assert late.mean() == pytest.approx(50, rel=0.06)
    assert late.max() <= 100
    leaving = np.array([client.leaves - client.joins for client in clients if client.leaves < math.inf])
    assert len(leaving) / 3000 == pytest.approx(0.4, abs=0.03)
    assert leaving.mean() == pytest.approx(500, rel=0.06)
    assert leaving.min() > 0
    assert (durations().client(0).joins, durations().client(0).leaves) == (0.0, math.inf)


EVERYTHING: dict[str, Any] = {
    "speeds": {"kind": "exponential"},
    "links": {"bytes_per_second": 1e6, "bandwidth_sigma": 1.0, "latency": 0.1, "latency_sigma": 0.5},
    "queues": {"mean_seconds": 5.0, "client_sigma": 0.5},
    "dropouts": {"probability": 0.1},
    "presence": {"late_share": 0.5, "late_seconds": 10},
}


def test_nothing_depends_on_the_order_of_questions() -> None:
    asked = [(index, sequence) for index in range(5) for sequence in range(20)]
    model = durations(**EVERYTHING)
    forwards = {pair: model.train(*pair, 7, 1000, 1000) for pair in asked}
    model = durations(**EVERYTHING)
    backwards = {pair: model.train(*pair, 7, 1000, 1000) for pair in reversed(asked)}
    assert forwards == backwards
    assert len({piece.compute for piece in forwards.values()}) == 100
    assert durations(1, **EVERYTHING).client(0) != model.client(0)
    alike = durations()
    assert len({alike.train(index, 3, 7, 0, 0).compute for index in range(5)}) == 5


def test_switching_one_thing_on_leaves_the_others_as_they_were() -> None:
    plain = durations(speeds={"kind": "exponential"})
    whole = durations(**{**EVERYTHING, "dropouts": {}})
    for index in range(20):
        assert plain.client(index).seconds_per_step == whole.client(index).seconds_per_step
        assert plain.train(index, 3, 9, 0, 0).compute == whole.train(index, 3, 9, 0, 0).compute


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"presence": {"late_share": 0.5}}, "late_seconds must be above 0 then"),
        ({"presence": {"leaving_share": 0.5}}, "leaving_seconds must be above 0 then"),
        ({"speeds": {"kind": "listed", "seconds_per_step": []}}, "at least 1 item"),
        ({"speeds": {"kind": "listed", "seconds_per_step": [1.0, 0.0]}}, "greater than 0"),
        ({"links": {"bytes_per_second": 0}}, "greater than 0"),
        ({"dropouts": {"probability": 1.5}}, "less than or equal to 1"),
    ],
)
def test_bad_config_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        durations(**config)
