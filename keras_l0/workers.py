"""Processes that train side by side, each on its share of the processors."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of so many fresh processes; a backend that has started threads cannot be forked."""
    spawn = get_context("spawn")
    places = spawn.SimpleQueue()
    for place in range(workers):
        places.put((place, workers))
    return ProcessPoolExecutor(workers, spawn, _take_share, (places,))


def _take_share(places: "SimpleQueue[tuple[int, int]]") -> None:
    """Gives a worker its share of the processors, where the system can, before it computes."""
    place, workers = places.get()
    if hasattr(os, "sched_setaffinity"):
        all_of_them = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, all_of_them[place::workers] or all_of_them)
