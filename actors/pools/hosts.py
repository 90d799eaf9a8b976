"""Which process hosts which workers, and what it asks of the cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..work import WorkDoer


@dataclass(frozen=True)
class HostSpec:
    """One process of a `RayPool`, with one or more workers.

    Workers of one process work at the same time, each in a thread of its own: for many small ones, or throttled ones
    that sleep. Who needs a core to itself gets a process to itself.

    Attributes:
        workers: what makes each, by name; at least one. The callables are sent to the process: they must be picklable.
        num_cpus: that Ray sets aside for the process, at least 0; may be a fraction.
        max_restarts: times that Ray replaces the process when it is lost; -1: always.
        label_selector: labels that a node must have to get it, as in ``{"zone": "left"}``.
        labels: that the workers join with.
        torch_threads: of each worker, at least 1.
        setting: the config key that gives the label selector, for messages.
    """

    workers: Mapping[str, Callable[[], WorkDoer]]
    num_cpus: float = 1.0
    max_restarts: int = 3
    label_selector: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    torch_threads: int = 1
    setting: str = "label_selector"

    def __post_init__(self) -> None:
        if not self.workers:
            raise ValueError("workers is empty: a host needs at least 1")
        for name, least in (("num_cpus", 0), ("max_restarts", -1), ("torch_threads", 1)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name} is {value}: it must be at least {least}")


def hosts_of_one(
    workers: Mapping[str, Callable[[], WorkDoer]],
    *,
    max_restarts: int,
    label_selector: Mapping[str, str] | None = None,
    torch_threads: int = 1,
    setting: str = "label_selector",
) -> list[HostSpec]:
    """A process and a CPU for each worker; see `HostSpec`."""
    return [
        HostSpec(
            {name: make},
            max_restarts=max_restarts,
            label_selector=label_selector or {},
            torch_threads=torch_threads,
            setting=setting,
        )
        for name, make in workers.items()
    ]


def what_hosts_wait_for(hosts: Iterable[HostSpec], nodes: Iterable[Mapping[str, Any]]) -> str:
    """What hosts want that the nodes do not give, in words that name the remedy.

    Args:
        hosts: that are not there.
        nodes: as ``ray.nodes`` lists them.
    """
    known = Counter(_labels_and_cpus(node) for node in nodes if node["Alive"])
    there = "; ".join(f"{number} with {what}" for what, number in sorted(known.items()))
    told = {}
    for host in hosts:
        selector = _listed(host.label_selector)
        if selector:
            told[selector] = (
                f"{host.setting} is {selector}, and the cluster has these nodes: {there}: free a CPU of a node with "
                f"these labels, add one (ray start --labels), or change {host.setting}"
            )
        else:
            wanted = "a CPU of its own" if host.num_cpus == 1 else f"{host.num_cpus:g} CPUs"
            told[wanted] = f"each takes {wanted}, and the cluster has these nodes: {there}: free a CPU, or add a node"
    return "; ".join(told.values())


def _labels_and_cpus(node: Mapping[str, Any]) -> str:
    """A node of `ray.nodes`, without the labels that Ray gives every node anew."""
    labels = {name: value for name, value in node["Labels"].items() if name != "ray.io/node-id"}
    return f"{_listed(labels) if labels else 'no labels'} and {node['Resources'].get('CPU', 0):g} CPUs"


def _listed(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
