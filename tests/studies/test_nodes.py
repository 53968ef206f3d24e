"""Several machines share each training: node 0 runs the study, the others join, and no node waits forever."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from rich.console import Console

from tests.processes import wait_for
from tests.support import tiny_study, vitrim
from vitrim.config.network_schema import NetworkConfig
from vitrim.config.schema import TrainConfig
from vitrim.data.cache import SliceCache
from vitrim.data.split import Split
from vitrim.errors import InputError
from vitrim.progress import Reporter
from vitrim.studies import coordinator as coordinating
from vitrim.studies import participant as participating
from vitrim.studies.trial import Trial, announcement
from vitrim.training.distributed import Rendezvous

NAMES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "GROUP_RANK", "SLURM_NODEID")
WHERE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29555", "NODE_RANK": "0"}


@pytest.fixture(autouse=True)
def _nobody_says_where(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def rendezvous_point() -> Rendezvous:
    return Rendezvous(0, "127.0.0.1", find_free_network_port() - 1)


@pytest.fixture
def coordinator(rendezvous_point):
    coordinator = coordinating.Coordinator(rendezvous_point, 2)
    yield coordinator
    coordinator.store.set("gone/1", "")  # also if the participant has died
    coordinator.close()


class Participant(threading.Thread):
    """Node 1, in a thread of this process."""

    def __init__(self, rendezvous_point: Rendezvous, out: Path) -> None:
        super().__init__(daemon=True)
        self.rendezvous_point, self.out, self.error = (
            Rendezvous(1, rendezvous_point.address, rendezvous_point.port),
            out,
            None,
        )
        self.start()

    def run(self) -> None:
        try:
            participating.participate(self.rendezvous_point, 2, self.out, Reporter(Console(quiet=True)))
        except InputError as error:
            self.error = str(error)


def trial(nodes: int = 2) -> Trial:
    return Trial(
        network=NetworkConfig(name="unetr2d", num_classes=3, size="micro", image_size=64, in_chans=1),
        blocks=12, seed=0, data="d", split=Split(("a",), ("b",)), empty_slices=True,
        training=TrainConfig(steps=2, batch_size=4, nodes=nodes), version="0.1.0",
    )  # fmt: skip


def announced(folder: Path) -> dict[str, object]:
    return announcement(trial(), SliceCache({"a": folder / "cache" / "a"}))


@pytest.mark.parametrize(
    ("environment", "options", "words"),
    [
        ({**WHERE, "MASTER_ADDR": ""}, ("--nodes", "2"), "2 nodes need MASTER_ADDR"),
        ({**WHERE, "MASTER_PORT": ""}, ("--nodes", "2"), "2 nodes need MASTER_PORT"),
        ({**WHERE, "NODE_RANK": ""}, ("--nodes", "2"), "2 nodes need NODE_RANK"),
        ({**WHERE, "NODE_RANK": "2"}, ("--nodes", "2"), "NODE_RANK is 2, but there are 2 nodes"),
        ({**WHERE, "NODE_RANK": "first"}, ("--nodes", "2"), "NODE_RANK is 'first'"),
        ({**WHERE, "MASTER_PORT": "65535"}, ("--nodes", "2"), "MASTER_PORT is 65535"),
        (WHERE, ("--nodes", "3"), "among 3 devices of 3 nodes; make it a multiple of 3"),
        (WHERE, ("--nodes", "2", "--devices", "4"), "among 8 devices of 2 nodes; make it a multiple of 8"),
        (WHERE, ("--nodes", "2", "--ray"), "--ray and --nodes exclude each other"),
    ],
)
def test_what_several_nodes_lack_is_said_in_one_line(environment, options, words, tmp_path, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    file = tiny_study(tmp_path / "tiny.yaml", networks={"unetr2d": {}})
    assert vitrim("study", file, "--data", tmp_path, "--out", tmp_path / "out", *options) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["NODE_RANK", "GROUP_RANK", "SLURM_NODEID"])
def test_the_node_is_the_first_that_is_said(name, monkeypatch):
    from vitrim.training.distributed import rendezvous

    for each in NAMES[NAMES.index(name) :]:
        monkeypatch.setenv(each, "3")
    monkeypatch.setenv("MASTER_ADDR", "here")
    monkeypatch.setenv("MASTER_PORT", "1234")
    monkeypatch.setenv(name, "1")
    assert rendezvous(2) == Rendezvous(1, "here", 1234)


def test_one_node_leaves_the_name_of_a_trial_as_it_was_and_two_change_it():
    name = "unetr2d-12-e7eb278b75b7"  # of the first release; with another key, every study would train again
    assert trial(nodes=1).key == name
    assert trial(nodes=2).key != name


def test_a_follower_ends_when_node_0_does(coordinator, rendezvous_point, tmp_path):
    participant = Participant(rendezvous_point, tmp_path)
    wait_for(lambda: coordinator.store.check(["node/1"]))
    coordinator.close()
    participant.join(10)
    assert not participant.is_alive()
    assert participant.error is None


def serve(rendezvous_point: Rendezvous) -> None:
    held = coordinating.Coordinator(rendezvous_point, 2)
    time.sleep(600)
    del held


def test_a_follower_ends_in_one_line_when_node_0_dies(rendezvous_point, tmp_path):
    node_0 = multiprocessing.get_context("fork").Process(target=serve, args=(rendezvous_point,))
    node_0.start()
    participant = Participant(rendezvous_point, tmp_path)
    time.sleep(1)
    assert participant.is_alive()
    wait_for(lambda: reachable(rendezvous_point))
    time.sleep(2 * coordinating.POLL)
    node_0.kill()
    node_0.join()
    participant.join(30)
    assert not participant.is_alive()
    assert "lost the connection to node 0" in participant.error
    assert len(participant.error.splitlines()) == 1


def reachable(rendezvous_point: Rendezvous) -> bool:
    import socket

    try:
        socket.create_connection((rendezvous_point.address, rendezvous_point.port + 1), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_follower_that_cannot_reach_node_0_gives_up(rendezvous_point, tmp_path, monkeypatch):
    monkeypatch.setattr(participating, "TIMEOUT", 0.2)
    participant = Participant(rendezvous_point, tmp_path)
    participant.join(10)
    assert "cannot be reached" in participant.error


def test_no_two_processes_are_the_same_node(coordinator, rendezvous_point, tmp_path):
    first = Participant(rendezvous_point, tmp_path)
    wait_for(lambda: coordinator.store.check(["node/1"]))
    second = Participant(rendezvous_point, tmp_path)
    second.join(10)
    assert "node 1 has joined already" in second.error
    assert first.is_alive()


def test_what_fails_on_one_machine_ends_the_training_on_all_and_is_said(
    coordinator, rendezvous_point, tmp_path, monkeypatch
):
    monkeypatch.setattr(participating, "PATIENCE", 0.1)
    participant = Participant(rendezvous_point, tmp_path / "a folder that is not shared")

    def node_0s_part() -> None:
        with coordinator.training(announced(tmp_path), tmp_path / "state.ckpt"):
            child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
            child.start()
            child.join()  # killed, because node 1 has failed
            raise ValueError("this part was ended")

    with pytest.raises(RuntimeError, match=r"^node 1: .*do the machines share this folder\?$"):
        node_0s_part()
    assert participant.is_alive()  # it waits for the next training


def test_a_training_does_not_begin_without_all_machines(coordinator, tmp_path, monkeypatch):
    monkeypatch.setattr(coordinating, "TIMEOUT", 0.2)
    for _ in range(2):  # the second one fails at once
        with (
            pytest.raises(RuntimeError, match="node 1 did not join"),
            coordinator.training(announced(tmp_path), tmp_path / "s"),
        ):
            pytest.fail("it began")


def start(node: int, port: int, folder: Path, data: Path, out: str) -> subprocess.Popen:
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(node), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", "from vitrim.cli import main; main()", "study", folder / "tiny.yaml",
         "--data", data, "--out", folder / out, "--nodes", "2"],
        env={**os.environ, **where}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_two_nodes_train_as_one_also_when_node_0_was_killed_meanwhile(tiny_data_once, tmp_path):
    training = {"steps": 40, "batch_size": 4, "learning_rate": 1e-4, "precision": "32-true"}
    attention = {"slices": 1, "maps": [1]}
    study = tiny_study(tmp_path / "tiny.yaml", networks={"unetr2d": {}}, training=training, attention=attention)
    assert vitrim("study", study, "--data", tiny_data_once, "--out", tmp_path / "one") == 0

    port = find_free_network_port() - 1
    nodes = [start(node, port, tmp_path, tiny_data_once, "two") for node in (0, 1)]
    wait_for(lambda: list((tmp_path / "two").glob("unfinished/*/state.ckpt")), 300)
    nodes[0].send_signal(signal.SIGKILL)
    error = nodes[1].communicate(timeout=120)[1]
    assert nodes[1].returncode == 2
    assert "lost the connection to node 0" in error
    assert "Traceback" not in error
    assert "Exception raised" not in error  # torch's message for this
    (kept,) = (tmp_path / "two").glob("unfinished/*/state.ckpt")
    assert kept.is_file()

    port = find_free_network_port() - 1
    nodes = [start(node, port, tmp_path, tiny_data_once, "two") for node in (0, 1)]
    said = [node.communicate(timeout=600)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    one, two = (pd.read_csv(tmp_path / name / "history.csv") for name in ("one", "two"))
    assert two[["blocks", "step"]].equals(one[["blocks", "step"]])
    assert two["loss"][0] == pytest.approx(one["loss"][0], rel=1e-5)
    assert two["loss"].to_numpy() == pytest.approx(one["loss"].to_numpy(), rel=1e-2)
    assert len(list((tmp_path / "two" / "trials").iterdir())) == len(list((tmp_path / "one" / "trials").iterdir()))
    assert not (tmp_path / "two" / "unfinished").exists()
    shutil.rmtree(tmp_path / "two")
