"""A Ray to work with: one that runs already, or one of this machine for the length of the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..config.run import RayConfig
from ..errors import check_port_free, check_ray_address

_OBJECT_STORE_BYTES = 256 * 2**20
"""Enough for the bounded number of results that wait, and small enough for a laptop's shared memory."""


def check_ray(config: RayConfig, metrics_port: int | None) -> None:
    """Find out what would keep `ray_session` from its Ray, without starting anything.

    Raises:
        UserError: the address does not answer, or the metrics port of a Ray to be started is taken.
    """
    if (address := _address_of(config)) is not None:
        check_ray_address(address, config.start_timeout_seconds)
    elif metrics_port is not None:
        check_port_free(metrics_port)


@contextmanager
def ray_session(config: RayConfig, workers: int, metrics_port: int | None) -> Iterator[None]:
    """Within it Ray is initialised. A Ray that was started here ends with it; any other is left as it was.

    A cluster is named by ``config.address`` or by the environment variable RAY_ADDRESS. Without either a local Ray
    with a core for each worker is started, whatever the machine has: players may share cores, but never wait for one.

    Raises:
        Exception: Ray's own, where it cannot be reached or started; `check_ray` tells the likely ones better.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    if (address := _address_of(config)) is not None:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        # Players share the cores with the learner as equals; Ray would let them yield to it.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # What Ray itself says of lost workers goes among our lines, into files and pipes too.
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")
        ray.init(
            address="local",
            num_cpus=workers,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _metrics_export_port=metrics_port,
        )
    try:
        yield
    finally:
        ray.shutdown()


def _address_of(config: RayConfig) -> str | None:
    address = config.address or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address
