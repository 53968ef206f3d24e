"""What a command does not import. Everything that it imports costs time before any work is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_standin import TOKEN, standin
from tests.report.synthetic_run import make_run
from tests.support import write_image

TRAINING = {"monai", "lightning", "ray", "onnx", "onnxruntime"}
DRAWING = {"matplotlib", "jinja2"}
NETWORKS = {"timm", "torchvision", "torch._dynamo"}
TORCH = {"torch"}

RUN = """
import json, sys
from vitrim.cli import main
for name, arguments in json.loads(sys.argv[1]):
    sys.argv = ["vitrim", *arguments]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, (name, stop.code)
    print(json.dumps([name, list(sys.modules)]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def imported(tiny_data_once: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The modules that were imported at the end of each command.

    One new process runs them one after the other, so each also has what those before it imported.
    """
    folder = tmp_path_factory.mktemp("imports")
    (folder / "study.json").write_text("{}")
    report = make_run(folder / "run", ("unetr2d",), ("liver",), grid=(4, 4), cases=4, heads=2)
    image = write_image(folder / "knee.nii.gz")
    commands = {
        "help": ["study", "--help"],
        "status": ["study", "demo", "--out", folder, "--status"],
        "phantom": ["data", "phantom", "chain", "-o", folder / "phantom", "--cases", 2],
        "check": ["data", "check", "decathlon", tiny_data_once, "--out", folder / "check.json"],
        "predict": ["predict", checkpoint, image, "-o", folder / "labels.nii.gz", "--precision", "float32"],
        "evaluate": ["evaluate", checkpoint, "--data", tiny_data_once, "--out", folder / "evaluation"],
        "push": ["push", checkpoint, "octo/net"],
        "pull": ["pull", "octo/net", "-o", folder / "pulled"],
        "report": ["report", report],
    }
    given = json.dumps([(name, [str(each) for each in arguments]) for name, arguments in commands.items()])
    with standin() as hub:
        names = {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", RUN, given], capture_output=True, text=True, env={**os.environ, **names}
        )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('["')]
    return {name: set(modules) for name, modules in lines}


@pytest.mark.parametrize(
    ("command", "unused"),
    [
        ("help", TORCH | NETWORKS | TRAINING | DRAWING | {"pandas", "scipy", "numpy"}),
        ("status", TORCH | NETWORKS | TRAINING | DRAWING | {"pandas", "scipy"}),
        ("phantom", TORCH | NETWORKS | TRAINING | DRAWING),
        ("check", NETWORKS | TRAINING | DRAWING),
        ("predict", TRAINING | DRAWING),
        ("evaluate", TRAINING | DRAWING),
        ("push", TRAINING | DRAWING),
        ("pull", TRAINING | DRAWING),
        ("report", TRAINING),
    ],
)
def test_a_command_imports_only_what_it_needs(command, unused, imported):
    assert imported[command] & unused == set()


def test_the_report_loads_no_networks() -> None:
    script = "import sys, vitrim.commands.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "vitrim.report.build" in modules
    assert modules & (NETWORKS | TRAINING | {"vitrim.models"}) == set()
