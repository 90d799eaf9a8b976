"""One thread for torch, as the machine's cores are shared, and one small Ray for all tests that want one."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)
# A shell that starts the tests in the background lets them ignore Ctrl-C, and so every process that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
pytest.register_assert_rewrite(
    "tests.actors.client_pool_suite",
    "tests.actors.environment_suite",
    "tests.actors.pool_suite",
    "tests.kernels.row_checks",
    "tests.kernels.row_cases",
    "tests.kernels.row_suite_layout",
    "tests.kernels.row_suite_numbers",
    "tests.kernels.row_suite_targets",
    "tests.schedulers.scheduler_suite",
)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of two CPUs, of its own processes, gone at the end of the session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        import ray

        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
        yield
        ray.shutdown()
