"""Node 0 of a study on several machines: announces each training, which all machines then share.

The machines exchange messages through a key-value store (torch's TCPStore), which node 0 serves at the port after
MASTER_PORT. Keys: `training/N` (the N-th training, as JSON), `ready/N/NODE`, `failed/N/NODE` (the reason, one line),
`gone/NODE` (the node has stopped) and `end`.
"""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.lightning import find_free_network_port
from torch.distributed import TCPStore

from vitrim.errors import InputError
from vitrim.studies.failures import one_line
from vitrim.training.distributed import TIMEOUT, Rendezvous
from vitrim.training.resume import steps_done

POLL = 0.5
"""Seconds between two checks of the store."""
GRACE = 10.0
"""Seconds that node 0 waits for the others to stop at the end, or to report why a training failed on them."""


class Coordinator:
    """Serves the store on node 0, and announces each training and the end of the study."""

    def __init__(self, place: Rendezvous, nodes: int) -> None:
        """Open the store. Raises InputError if this machine cannot serve it."""
        self.place, self.others = place, range(1, nodes)
        self.number = 0
        self.lost = ""
        try:
            timeout = timedelta(seconds=GRACE)
            self.store = TCPStore(place.address, place.port + 1, None, True, timeout, wait_for_workers=False)
        except RuntimeError as error:
            raise InputError(
                f"node 0 cannot serve port {place.port + 1} (the one after MASTER_PORT) at {place.address}: "
                f"{one_line(str(error))}; choose another MASTER_PORT"
            ) from error

    @contextmanager
    def training(self, announcement: dict[str, Any], state: Path) -> Iterator[Rendezvous]:
        """Announce a training to the other machines, wait until they join it, and yield its rendezvous.

        Raises RuntimeError if a machine does not join or fails; then all machines stop this training.
        """
        if self.lost:
            raise RuntimeError(self.lost)
        self.number += 1
        # A new port, so that processes left over from the last training cannot join this one.
        place = replace(self.place, port=find_free_network_port())
        message = {**announcement, "steps_done": steps_done(state), "port": place.port}
        self.store.set(f"training/{self.number}", json.dumps(message))
        try:
            self._wait_until_ready()
            with given_up_with_others(self.store, self.number, self.others):
                yield place
        except BaseException as error:
            tell_failure(self.store, self.number, 0, error)
            if isinstance(error, Exception):
                self._say_why(error)
            raise

    def close(self) -> None:
        """Tell the other machines that the study has ended, and wait up to `GRACE` seconds until they stop."""
        self.store.set("end", "")
        end = time.monotonic() + GRACE
        while time.monotonic() < end and not all(self.store.check([f"gone/{node}"]) for node in self.others):
            time.sleep(POLL / 5)

    def _wait_until_ready(self) -> None:
        """Wait until all other machines have joined. Raises RuntimeError if one stopped or `TIMEOUT` has passed."""
        end = time.monotonic() + TIMEOUT
        for node in self.others:
            while not self.store.check([f"ready/{self.number}/{node}"]):
                if self.store.check([f"gone/{node}"]):
                    self.lost = f"node {node} has stopped"
                elif time.monotonic() > end:
                    self.lost = f"node {node} did not join within {TIMEOUT:.0f} s"
                if self.lost:
                    raise RuntimeError(self.lost)
                time.sleep(POLL / 5)

    def _say_why(self, error: Exception) -> None:
        """Raise a RuntimeError with the reasons of the other machines, if they differ from this machine's reason."""
        end = time.monotonic() + (0 if self.lost else GRACE)  # the others may report their reasons later
        keys = {node: f"failed/{self.number}/{node}" for node in self.others}
        while time.monotonic() < end and not self.store.check(list(keys.values())):
            time.sleep(POLL / 5)
        said = {node: self.store.get(key).decode() for node, key in keys.items() if self.store.check([key])}
        own = reason(error)
        reasons = [f"node {node}: {text}" for node, text in said.items() if text not in ("", own)]
        if reasons:
            raise RuntimeError("; ".join([*reasons, *([f"node 0: {own}"] if own else [])])) from error


@contextmanager
def coordinating(place: Rendezvous | None, nodes: int) -> Iterator[Coordinator | None]:
    """Yield a coordinator for `nodes` machines, or None if `place` is None. Close it at the end, in any case."""
    if place is None:
        yield None
        return
    coordinator = Coordinator(place, nodes)
    try:
        yield coordinator
    finally:
        coordinator.close()


class GivenUpError(RuntimeError):
    """This machine stopped its part of a training because another machine failed."""


@contextmanager
def given_up_with_others(store: TCPStore, number: int, others: Sequence[int]) -> Iterator[None]:
    """Kill this machine's training processes as soon as another machine fails, and raise GivenUpError.

    Without this, some processes would notice only after `vitrim.training.distributed.TIMEOUT`. An unreachable store
    counts as a failure.
    """
    over, given_up = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(POLL):
            try:
                failed = any(store.check([f"failed/{number}/{node}"]) for node in others)
            except RuntimeError:
                failed = True
            if failed:
                given_up.set()
                for child in multiprocessing.active_children():
                    child.kill()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except Exception as error:
        if given_up.is_set():
            raise GivenUpError("stopped because another node failed") from error
        raise
    finally:
        over.set()
        watcher.join()


def tell_failure(store: TCPStore, number: int, node: int, error: BaseException) -> None:
    """Tell the other machines that a training failed on this one."""
    with suppress(RuntimeError):  # the store is gone if node 0 has stopped
        store.set(f"failed/{number}/{node}", reason(error))


def reason(error: BaseException) -> str:
    """Return why a training failed here, in one line; empty if another machine's failure stopped it."""
    return "" if isinstance(error, GivenUpError) else one_line(str(error)) or type(error).__name__
