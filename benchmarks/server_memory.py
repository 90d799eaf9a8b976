"""Peak memory of a server whose clients' updates wait on disk: ``server_memory.py CLIENTS NBYTES FOLDER``.

Its clients are in its process, work one after another and share what they hold, so that they add next to nothing. One
round, all of whose updates wait for one commit. The last line of output is the peak, in bytes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from federation_rounds import Size, config_of, durable_rounds


def peak_bytes() -> int:
    """Of this process; ``ru_maxrss`` would count its parent's too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    clients, nbytes, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    size = Size(clients, nbytes, rounds=1, warmup=0)
    durable_rounds(config_of(size, durable=True, pool="in_process"), folder)
    print(peak_bytes())
