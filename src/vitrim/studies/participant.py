"""The other nodes of a study on several machines: they join each training, and write no results."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore

from vitrim.data.cache import SliceCache, SliceDataset
from vitrim.errors import InputError
from vitrim.progress import Reporter
from vitrim.studies.coordinator import POLL, given_up_with_others, tell_failure
from vitrim.studies.failures import one_line
from vitrim.studies.trial import Trial, state_file, train_trial, trial_title
from vitrim.training.distributed import TIMEOUT, Rendezvous
from vitrim.training.resume import steps_done

PATIENCE = 60.0
"""Seconds to wait for files that node 0 wrote: a shared file system may show them late."""


def participate(here: Rendezvous, nodes: int, out: Path, reporter: Reporter) -> None:
    """Join every training of the study in `out` that node 0 runs, until the study ends.

    If a training fails, node 0 records it, and this node continues with the next one. Raises InputError if node 0
    cannot be reached or has died, or if another process has this node number.
    """
    where = f"node 0 at {here.address}, port {here.port + 1}"
    reporter.say(f"node {here.node} of {nodes}: waiting for {where}")
    others = [node for node in range(nodes) if node != here.node]
    number = 0
    try:
        store = _connect(here, where)
        if store.add(f"node/{here.node}", 1) > 1:
            raise InputError(
                f"node {here.node} has joined already: give each machine its own node rank; if that process died, "
                "stop node 0 and start all nodes again"
            )
        try:
            while (said := _next(store, number + 1)) is not None:
                number += 1
                _take_part(store, number, here, others, said, out, reporter)
        finally:
            store.set(f"gone/{here.node}", "")
    except RuntimeError as error:
        raise InputError(f"lost the connection to {where}; it runs the study, so this node stops too") from error
    reporter.say(f"node {here.node} of {nodes}: node 0 has ended the study")


def _connect(here: Rendezvous, where: str) -> TCPStore:
    """Connect to node 0, which may start later. Raises InputError if it cannot be reached within `TIMEOUT` seconds."""
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            socket.create_connection((here.address, here.port + 1), timeout=10).close()
            return TCPStore(here.address, here.port + 1, None, False, timedelta(seconds=10), wait_for_workers=False)
        except (OSError, RuntimeError) as error:
            if isinstance(error, socket.gaierror) or time.monotonic() > end:
                raise InputError(f"{where} cannot be reached: {error}; check that MASTER_ADDR is node 0's") from error
        time.sleep(POLL)


def _next(store: TCPStore, number: int) -> dict[str, Any] | None:
    """Wait until node 0 announces training `number`, and return it; None if the study has ended."""
    while not store.check([f"training/{number}"]):
        if store.check(["end"]):
            return None
        time.sleep(POLL / 5)
    return json.loads(store.get(f"training/{number}"))


def _take_part(
    store: TCPStore,
    number: int,
    here: Rendezvous,
    others: Sequence[int],
    said: dict[str, Any],
    out: Path,
    reporter: Reporter,
) -> None:
    """Do this machine's part of a training, and discard its copy of the result. A failure is reported to all nodes."""
    trial = Trial.model_validate(said["trial"])
    # Node 0 sends the weights when the training begins; this node needs only the network's architecture.
    network = trial.network.model_copy(update={"pretrained": False})
    trial = trial.model_copy(update={"network": network})
    try:
        store.set(f"ready/{number}/{here.node}", "")
        entries = {id: out / "cache" / name for id, name in said["cache"].items()}
        for entry in entries.values():
            _wait_for(entry, entry.is_dir)
        if trial.teacher is not None:
            teacher = out / "trials" / trial.teacher
            _wait_for(teacher, teacher.is_dir)
        state = state_file(trial, out)
        _wait_for(state, lambda: steps_done(state) == said["steps_done"])
        slices = SliceDataset(SliceCache(entries), trial.split.train, empty_slices=trial.empty_slices)
        rendezvous = Rendezvous(here.node, here.address, said["port"])
        with reporter.stage(f"join training {trial_title(trial)}", 1), given_up_with_others(store, number, others):
            train_trial(trial, slices, out, rendezvous=rendezvous)
    except BaseException as error:
        tell_failure(store, number, here.node, error)
        if not isinstance(error, Exception):
            raise
        reporter.say(f"  failed: {trial_title(trial)}: {one_line(str(error))}")


def _wait_for(path: Path, there: Callable[[], bool]) -> None:
    """Wait until `there()` is true, which checks the file at `path`. Raises InputError after `PATIENCE` seconds."""
    end = time.monotonic() + PATIENCE
    while not there():
        if time.monotonic() > end:
            raise InputError(f"{path.absolute()} differs from node 0 or is missing: do the machines share this folder?")
        time.sleep(POLL)
