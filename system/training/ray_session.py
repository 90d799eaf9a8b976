"""A Ray to work with: one that runs already, or one of this machine for the length of the run."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config.run import RayConfig
from ..errors import check_port_free, check_ray_address
from ..runs.places import in_ray_job

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

    A cluster needs what Isogon depends on, but not Isogon: actors get it from the job's working directory or packages,
    and where this process is no Ray job, this process's own source is sent to them.

    Raises:
        Exception: Ray's own, where it cannot be reached or started; `check_ray` tells the likely ones better.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    if (address := _address_of(config)) is not None:
        runtime_env = None if in_ray_job() else {"py_modules": [own_source()]}
        ray.init(address=address, runtime_env=runtime_env, log_to_driver=False, logging_level=logging.ERROR)
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


def where(config: RayConfig) -> str:
    """What `ray_session` will do for its Ray, in words."""
    return "starting Ray" if (address := _address_of(config)) is None else f"joining the Ray at {address}"


def own_source() -> str:
    """The folder of the package that is running, under the name that it is imported by."""
    package: Any = sys.modules[__name__.partition(".")[0]]
    return str(Path(package.__file__).parent)


def _address_of(config: RayConfig) -> str | None:
    address = config.address or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address
