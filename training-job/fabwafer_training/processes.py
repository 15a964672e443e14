"""The processes that train one model together, as `torchrun` starts them."""

import os


def is_first() -> bool:
    """Tell whether this process has rank 0, the one that writes and reports."""
    return os.environ.get("RANK", "0") == "0"


def threads() -> int:
    """Return how many threads each process on this machine should use.

    OMP_NUM_THREADS decides where it is set, as for torch itself: a container's limit cannot be seen from inside as a
    number of processors.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
