"""A study on several machines, each of which takes part in every training: what node 0 tells the others.

They talk through a small key-value store (torch's TCPStore) that node 0 serves at the port after MASTER_PORT. Keys are
`training/N` (the N-th training, as JSON), `ready/N/NODE`, `failed/N/NODE` (why, in a line), `gone/NODE` and `end`.
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
GRACE = 10.0
"""Seconds that node 0 gives the others to hear of the end, or to say why a training failed there too."""


class Coordinator:
    """Node 0 among the machines: it says what is trained next, and when all is over."""

    def __init__(self, place: Rendezvous, nodes: int) -> None:
        """Open the store. InputError where this machine cannot serve it."""
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
        """Have the other machines join the training of `announcement`, at the rendezvous that this gives.

        RuntimeError if one of them does not come, or fails; then they all give the training up.
        """
        if self.lost:
            raise RuntimeError(self.lost)
        self.number += 1
        # A port of its own, so that whoever is still busy with the last training cannot come into this one.
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
        """Tell the others that all is over, and wait a moment for them to hear it."""
        self.store.set("end", "")
        end = time.monotonic() + GRACE
        while time.monotonic() < end and not all(self.store.check([f"gone/{node}"]) for node in self.others):
            time.sleep(POLL / 5)

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + TIMEOUT
        for node in self.others:
            while not self.store.check([f"ready/{self.number}/{node}"]):
                if self.store.check([f"gone/{node}"]):
                    self.lost = f"node {node} has gone"
                elif time.monotonic() > end:
                    self.lost = f"node {node} did not come within {TIMEOUT:.0f} s"
                if self.lost:
                    raise RuntimeError(self.lost)
                time.sleep(POLL / 5)

    def _say_why(self, error: Exception) -> None:
        """Raise what the other machines say about the training that failed, if that is something else."""
        end = time.monotonic() + (0 if self.lost else GRACE)  # they may need a moment
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
    """Lead `nodes` machines as long as the block runs, however it ends; None where there is one machine."""
    if place is None:
        yield None
        return
    coordinator = Coordinator(place, nodes)
    try:
        yield coordinator
    finally:
        coordinator.close()


class GivenUpError(RuntimeError):
    """This machine's part of a training was ended because another machine's had failed."""


@contextmanager
def given_up_with_others(store: TCPStore, number: int, others: Sequence[int]) -> Iterator[None]:
    """Kill this machine's part of a training, which is in processes of its own, once another's has failed.

    These processes would notice, but some only after `vitrim.training.distributed.TIMEOUT`. A store that cannot be
    reached counts as failed.
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
            raise GivenUpError("given up, because another node failed") from error
        raise
    finally:
        over.set()
        watcher.join()


def tell_failure(store: TCPStore, number: int, node: int, error: BaseException) -> None:
    """Tell all other machines that a training failed here."""
    with suppress(RuntimeError):  # the store has gone with node 0
        store.set(f"failed/{number}/{node}", reason(error))


def reason(error: BaseException) -> str:
    """Why a training failed here, in a line; nothing where it was only given up."""
    return "" if isinstance(error, GivenUpError) else one_line(str(error)) or type(error).__name__
