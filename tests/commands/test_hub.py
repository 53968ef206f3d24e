"""`vitrim push` and `vitrim pull`, against a stand-in for the hub that keeps real commits."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants

import vitrim as package
from tests.hub_standin import READER, TOKEN, Hub, standin
from tests.support import vitrim, write_checkpoint, write_image
from vitrim.compression.depth_decision import DepthDecision
from vitrim.models.adapt import Adapted

NAME = "octo/net"
SPLIT = {"train": ["patient_7"], "validation": ["patient_8"], "tuning": []}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The stand-in, as the hub that this process uses, with a token that may write."""
    with standin() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        template = f"{found.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


@pytest.fixture
def network(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the small network, to change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "network"))


def refused(capsys: pytest.CaptureFixture[str], *command: object, status: int = 2) -> str:
    """Run a command that must fail with one line on standard error, and return the line."""
    capsys.readouterr()
    assert vitrim(*command) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert TOKEN not in lines[0]
    return lines[0]


def card_of(hub: Hub, name: str = NAME) -> tuple[dict[str, object], str]:
    """Front matter and text of a card."""
    _, front, text = hub.repositories[name].files["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(front), text


def test_what_is_pulled_is_what_was_pushed(hub: Hub, checkpoint, tmp_path, capsys):
    assert vitrim("push", checkpoint, NAME) == 0
    commit = hub.repositories[NAME].commits[-1][0]
    assert f"{hub.address}/{NAME}, commit {commit}" in capsys.readouterr().out
    out = tmp_path / "deep/pulled"
    assert vitrim("pull", NAME, "-o", out) == 0
    said = capsys.readouterr().out
    assert "2D UNETR, 1 of 12 blocks" in said
    assert f"commit {commit}" in said
    assert f"next: vitrim predict {out} " in said
    ours, theirs = package.load_model(checkpoint).state_dict(), package.load_model(out).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in {*ours, *theirs})
    names = ["model.json", "model.safetensors", "origin.json", "preparation.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert [path.name for path in out.parent.iterdir()] == ["pulled"]
    origin = json.loads((out / "origin.json").read_text())
    assert (origin["repository"], origin["commit"], origin["hub"]) == (NAME, commit, hub.address)
    image = write_image(tmp_path / "image.nii.gz")
    for folder in (checkpoint, out):
        assert vitrim("predict", folder, image, "-o", tmp_path / f"{folder.name}.nii", "--precision", "float32") == 0
    assert (tmp_path / "network.nii").read_bytes() == (tmp_path / "pulled.nii").read_bytes()


def test_a_second_push_is_a_new_commit_and_the_first_can_still_be_pulled(hub: Hub, tmp_path):
    small, deep = write_checkpoint(tmp_path / "small"), write_checkpoint(tmp_path / "deep", depth=2)
    decision().save(small / "decision.json")
    first = package.push(small, NAME, message="the small one")
    second = package.push(deep, NAME)
    assert first.commit != second.commit
    assert hub.repositories[NAME].messages[1:] == ["the small one", f"2D UNETR, 2 of 12 blocks, by vitrim {version()}"]
    assert "decision.json" in hub.repositories[NAME].at(first.commit)[1]  # type: ignore[index]
    assert "decision.json" not in hub.repositories[NAME].files, "it is not about this network"
    assert "2 of 12" in card_of(hub)[1]
    assert package.load_model(package.pull(NAME, tmp_path / "new").folder).depth == 2
    old = package.pull(NAME, tmp_path / "old", revision=first.commit[:12])
    assert (old.commit, package.load_model(old.folder).depth) == (first.commit, 1)
    assert decision().in_words() in old.lines
    again = package.push(deep, NAME)
    assert again.commit == second.commit
    assert any("nothing was uploaded" in line for line in again.lines)


def version() -> str:
    return package.__version__


def decision() -> DepthDecision:
    """A decision in which 1 of 12 blocks was proposed."""
    known = {"network": "2D UNETR", "full": 12, "depth": 1, "verdict": "not shown", "margin": 0.05, "proposed": 1}
    rest = {"rule": "exchange", "proposed_on": "tuning", "rules": {}, "untrained": {}, "judged": False}
    return DepthDecision.model_validate({**known, **rest})


def test_only_files_of_a_network_travel_and_those_that_name_cases_only_when_asked(hub: Hub, network, tmp_path, capsys):
    training = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3}
    (network / "trial.json").write_text(json.dumps({"split": SPLIT, "training": training}))
    (network / "compression.json").write_text(json.dumps(summary("/home/jane.doe/clinic/big")))
    for name in ("notes.txt", ".model.safetensors.abc.part", ".env", "cases.csv"):
        (network / name).write_text("secret")
    (network / "attention").mkdir()
    (network / "attention/maps.npz").write_text("secret")
    assert vitrim("push", network, NAME) == 0
    assert "trial.json, cases.csv stayed here" in capsys.readouterr().out
    files = hub.repositories[NAME].files
    known = {".gitattributes", "README.md", "compression.json", "model.json", "model.safetensors", "preparation.json"}
    assert set(files) == known
    told = b"".join(files.values())
    assert not any(word in told for word in (b"patient_7", b"jane.doe", b"secret"))
    assert "the smallest that was tried" in card_of(hub)[1]
    assert vitrim("push", network, NAME, "--with-cases") == 0
    assert {"trial.json", "cases.csv"} <= set(hub.repositories[NAME].files)
    pulled = package.pull(NAME, tmp_path / "pulled")
    assert not any(line.startswith("note:") for line in pulled.lines)
    assert json.loads((tmp_path / "pulled/trial.json").read_text())["split"] == SPLIT
    assert vitrim("push", network, NAME) == 0
    assert set(hub.repositories[NAME].files) == known


def test_a_network_that_was_only_cut_says_so(hub: Hub, tmp_path):
    full = write_checkpoint(tmp_path / "full", depth=2)
    package.compress(full, tmp_path / "small", depth=1)
    package.push(tmp_path / "small", NAME)
    assert "It was not trained after the cut" in card_of(hub)[1]
    assert "](compression.md)" in card_of(hub)[1]
    assert "| parameters |" in hub.repositories[NAME].files["compression.md"].decode()
    assert str(tmp_path) not in hub.repositories[NAME].files["compression.json"].decode()


def summary(checkpoint: str) -> dict[str, object]:
    """What of compression.json is read."""
    way = {"depth": 2, "sentence": "by accuracy: 2 blocks, the smallest that was tried"}
    return {"checkpoint": checkpoint, "by_procedure": None, "by_attention": None, "by_accuracy": way}


def test_the_card_says_what_it_is_and_how_to_use_it(hub: Hub, checkpoint, tmp_path):
    package.push(checkpoint, NAME, license="apache-2.0")
    front, text = card_of(hub)
    assert (front["library_name"], front["license"]) == ("vitrim", "apache-2.0")
    for part in ("1 of 12", "404,947", "1 × 32 × 32", "| 2 | dark |", "`zscore`", f"vitrim pull {NAME} "):
        assert part in text
    assert "How many blocks" not in text, "the folder holds no verdict"
    package.push(write_checkpoint(tmp_path / "deep", depth=2), NAME)
    front, text = card_of(hub)
    assert ("2 of 12" in text, front["license"]) == (True, "apache-2.0"), "another network, the same license"
    package.push(checkpoint, "octo/other")
    assert "license" not in card_of(hub, "octo/other")[0]


def test_a_card_of_somebody_else_is_kept_and_one_of_vitrim_follows_the_network(hub: Hub, checkpoint, tmp_path, capsys):
    edited = b"# My network\n"
    hub.holds(NAME, {"README.md": edited})
    assert vitrim("push", checkpoint, NAME) == 0
    assert "--overwrite replaces it" in capsys.readouterr().out
    assert hub.repositories[NAME].files["README.md"] == edited
    assert vitrim("push", checkpoint, NAME, "--overwrite") == 0
    ours = hub.repositories[NAME].files["README.md"]
    assert b"1 of 12" in ours
    deep = write_checkpoint(tmp_path / "deep", depth=2)
    changed = ours.replace(b"2D UNETR", b"my 2D UNETR")
    hub.holds(NAME, {**hub.repositories[NAME].files, "README.md": changed})
    package.push(deep, NAME)
    assert hub.repositories[NAME].files["README.md"] == changed
    hub.holds(NAME, {**hub.repositories[NAME].files, "README.md": ours.replace(b"\n", b"\r\n")})
    package.push(deep, NAME)
    assert b"2 of 12" in hub.repositories[NAME].files["README.md"]


def test_other_files_there_are_not_mixed_with_a_network(hub: Hub, checkpoint, capsys):
    hub.holds(NAME, {"model.safetensors": b"of another library", "config.json": b"{}"})
    assert "holds files and no network of vitrim" in refused(capsys, "push", checkpoint, NAME)
    assert hub.repositories[NAME].messages == ["by hand"]
    assert vitrim("push", checkpoint, NAME, "--overwrite") == 0
    assert hub.repositories[NAME].files["config.json"] == b"{}"


def test_a_private_repository_is_private(hub: Hub, checkpoint, tmp_path, monkeypatch, capsys):
    assert vitrim("push", checkpoint, NAME, "--private") == 0
    assert hub.repositories[NAME].private
    for token in ("", READER):
        monkeypatch.setenv("HF_TOKEN", token)
        said = refused(capsys, "pull", NAME, "-o", tmp_path / "pulled")
        assert "no such repository" in said
        assert "HF_TOKEN" in said
        assert "hf auth login" in said
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.repositories[NAME].private = False
    before = len(hub.repositories[NAME].commits)
    assert "exists and is public" in refused(capsys, "push", checkpoint, NAME, "--private")
    assert len(hub.repositories[NAME].commits) == before


def test_a_damaged_folder_is_not_pushed(hub: Hub, network, capsys):
    with (network / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    assert "damaged" in refused(capsys, "push", network, NAME)
    (network / "model.json").unlink()
    assert "model.json is missing" in refused(capsys, "push", network, NAME)
    assert not [request for request in hub.requests if NAME in request or "create" in request]


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "no token of the hub on this machine"),
        ("hf_wrong", "the hub does not accept the token"),
        (READER, "does not allow this"),
        ("hf_ä", "characters that no token has"),
    ],
)
def test_a_push_without_the_right_token_says_what_to_do(hub: Hub, checkpoint, token, message, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", token)
    said = refused(capsys, "push", checkpoint, NAME)
    assert message in said
    assert "set HF_TOKEN or run `hf auth login`" in said
    assert not token or token not in said
    assert hub.repositories == {}


@pytest.mark.parametrize(
    "name", ["net", "octo/net/more", "https://huggingface.co/octo/net", "octo/", "oc to/net", "../x"]
)
def test_a_wrong_name_is_refused_before_anything_is_asked(hub: Hub, checkpoint, name, tmp_path, capsys):
    for command in (("push", checkpoint, name), ("pull", name, "-o", tmp_path / "pulled")):
        assert "write OWNER/NAME" in refused(capsys, *command)
    assert hub.requests == []


def test_what_is_not_there_is_named(hub: Hub, checkpoint, tmp_path, capsys):
    out = tmp_path / "pulled"
    assert f"no such repository: {hub.address}/octo/none" in refused(capsys, "pull", "octo/none", "-o", out)
    package.push(checkpoint, NAME)
    assert "has no revision 'v9'" in refused(capsys, "pull", NAME, "-o", out, "--revision", "v9")
    hub.holds("octo/words", {"model.safetensors": b"", "config.json": b"{}"})
    assert "holds no network of vitrim: model.json is missing" in refused(capsys, "pull", "octo/words", "-o", out)
    assert [path.name for path in tmp_path.iterdir()] == []


def changed(name: str, content: bytes) -> bytes:
    """The last byte of the tensors is another one."""
    return content if name != "model.safetensors" else content[:-1] + bytes([content[-1] ^ 1])


def cut(name: str, content: bytes) -> bytes:
    """Half of the tensors is missing."""
    return content if name != "model.safetensors" else content[: len(content) // 2]


def hostile(name: str, content: bytes) -> bytes:
    """model.json is something else."""
    return content if name != "model.json" else b'["\\u001b[2J"]'


@pytest.mark.parametrize(("damage", "status"), [(changed, 2), (cut, 1), (hostile, 2)])
def test_nothing_is_left_of_a_damaged_download(hub: Hub, checkpoint, damage, status, tmp_path, capsys):
    package.push(checkpoint, NAME)
    hub.sent = damage
    said = refused(capsys, "pull", NAME, "-o", tmp_path / "pulled", status=status)
    assert hub.address in said
    assert ".part" not in said
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_record_of_unusual_size_is_not_downloaded(hub: Hub, checkpoint, tmp_path, monkeypatch, capsys):
    package.push(checkpoint, NAME)
    monkeypatch.setattr("vitrim.commands.pull.LARGEST_RECORD", 100)
    hub.requests.clear()
    assert "model.json has 0 MB" in refused(capsys, "pull", NAME, "-o", tmp_path / "pulled")
    assert not [request for request in hub.requests if "resolve" in request]


def test_a_network_that_does_not_fit_on_the_disk_is_not_downloaded(hub: Hub, checkpoint, tmp_path, monkeypatch, capsys):
    package.push(checkpoint, NAME)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    assert "there is room for 0.0" in refused(capsys, "pull", NAME, "-o", tmp_path / "pulled", status=1)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_full_disk_is_not_called_a_fault_of_the_hub(hub: Hub, checkpoint, tmp_path, monkeypatch, capsys):
    package.push(checkpoint, NAME)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.HfApi.hf_hub_download", full)
    said = refused(capsys, "pull", NAME, "-o", tmp_path / "pulled", status=1)
    assert said.startswith(f"vitrim: No space left on device: {tmp_path / 'pulled'}")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_hub_that_is_away_or_fails_is_the_machines_fault(hub: Hub, checkpoint, tmp_path, monkeypatch, capsys):
    commands = (("push", checkpoint, NAME), ("pull", NAME, "-o", tmp_path / "pulled"))
    hub.fails_with = 503
    for command in commands:
        assert "the hub fails now (status 503" in refused(capsys, *command, status=1)
    hub.fails_with = 200  # something that is no hub, such as the page of a login to a network
    for command in commands:
        assert "no usable answer from the hub" in refused(capsys, *command, status=1)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for command in commands:
        said = refused(capsys, *command, status=1)
        assert "no usable answer from the hub" in said
        assert "http://127.0.0.1:9" in said
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for command in commands:
        assert "HF_HUB_OFFLINE" in refused(capsys, *command)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_an_upload_that_the_hub_refuses_changes_nothing(hub: Hub, checkpoint, tmp_path, capsys):
    package.push(checkpoint, NAME)
    before = hub.repositories[NAME].messages
    assert "unheard-of" in refused(capsys, "push", checkpoint, NAME, "--license", "unheard-of")
    deep = write_checkpoint(tmp_path / "deep", depth=2)
    hub.fails_with, hub.fails_at = 412, "/commit/"
    assert "was changed at the same time" in refused(capsys, "push", deep, NAME)
    hub.fails_with, hub.fails_at = 403, "/store/"
    assert "does not allow this" in refused(capsys, "push", write_checkpoint(tmp_path / "third", depth=3), NAME)
    assert hub.repositories[NAME].messages == before
    for option in (("--message", " "), ("--license", "Apache 2")):
        assert option[0] in refused(capsys, "push", checkpoint, NAME, *option)


def test_a_folder_is_replaced_only_if_it_is_a_network_and_only_when_asked(hub: Hub, checkpoint, network, capsys):
    package.push(checkpoint, NAME)
    assert "exists already" in refused(capsys, "pull", NAME, "-o", network)
    (network / "thesis.txt").write_text("two years of work")
    assert "thesis.txt lies there" in refused(capsys, "pull", NAME, "-o", network, "--overwrite")
    assert (network / "thesis.txt").is_file()
    (network / "thesis.txt").unlink()
    assert vitrim("pull", NAME, "-o", network, "--overwrite") == 0
    assert vitrim("pull", NAME, "-o", network, "--overwrite") == 0, "a folder that was pulled can be pulled again"
    (network / "model.json").unlink()
    assert "never replaced" in refused(capsys, "pull", NAME, "-o", network, "--overwrite")
    file = network / "preparation.json"
    assert "never replaced" in refused(capsys, "pull", NAME, "-o", file, "--overwrite")


def test_of_another_librarys_model_the_weights_travel(hub: Hub, tmp_path, capsys):
    torch.manual_seed(0)
    layers = [torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(3)]
    model = Tokens(layers)
    adapted = package.adapt(model, example=torch.randn(2, 1, 32, 32))
    assert isinstance(adapted, Adapted)
    package.save_model(package.truncate(adapted, 2), tmp_path / "mine")
    package.push(tmp_path / "mine", NAME)
    assert "--model PLACE" in card_of(hub)[1]
    pulled = package.pull(NAME, tmp_path / "pulled")
    assert pulled.lines[0].startswith("Tokens, 2 of 3 blocks")
    assert any("--model must say what builds the Tokens" in line for line in pulled.lines)
    back = package.load_model(pulled.folder, into=Tokens([*layers]))
    kept = package.truncate(adapted, 2).state_dict()
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in kept.items())
    hub.sent = changed
    assert "damaged" in refused(capsys, "pull", NAME, "-o", tmp_path / "again")


class Tokens(torch.nn.Module):
    """A small segmentation model: patches of 8 pixels, blocks, and logits of two classes."""

    def __init__(self, blocks: list[torch.nn.Module]) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(1, 16, 8, 8)
        self.blocks = torch.nn.ModuleList(blocks)
        self.head = torch.nn.ConvTranspose2d(16, 2, 8, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 1, 32, 32) to logits (B, 2, 32, 32)."""
        found = self.patches(images)
        tokens = found.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.transpose(1, 2).reshape(found.shape))
