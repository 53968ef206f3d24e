"""`vitrim study`."""

from __future__ import annotations

import os
import re
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from vitrim.cli.root import ForTraining, app, examples, make_reporter, one_of, stopped, with_device
from vitrim.config.names import DecoderForm, NetworkName, RuleName
from vitrim.errors import InputError

FAILED = 1
"""Exit status where trainings failed."""

SOURCE = "A preset (demo, emidec, ibsr18, synapse, transunet-release), or the file of your own study."

ADDRESS = re.compile(r"auto|local|(ray://)?([^\s:/]+|\[[0-9a-f:]+\]):\d+")
"""What may follow `--ray`; anything else there is the command's next argument (`--ray=` takes all)."""

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of the configuration, as training.steps=200 (docs/configuration.md); may be repeated. The other "
        "options win.",
    ),
]


class _StudyCommand(TyperCommand):
    """Typer has no option whose value may be left out: `--ray` alone is completed to `--ray local`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        whole: list[str] = []
        for arg, following in zip_longest(args, args[1:], fillvalue=""):
            whole.append(arg)
            if arg == "--ray" and not ADDRESS.fullmatch(following):
                whole.append("local")
        return super().parse_args(ctx, whole)


@app.command(
    cls=_StudyCommand,
    epilog=examples(
        "vitrim study demo",
        "vitrim study examples/hippocampus.yaml --data Task04_Hippocampus",
    ),
)
def study(
    source: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help=SOURCE)],
    data: Annotated[Path | None, typer.Option(help="Folder with the data set.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the results; runs/NAME by default.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the study's own.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Train with each of these: 0,1,2 or 0..2.")] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Train on each of so many folds.")] = None,
    depths: Annotated[str | None, typer.Option(help="Fixed depths of every network: 1,3,6 or 0..12.")] = None,
    networks: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help=f"Of the study's networks, these: {one_of(NetworkName)}.")
    ] = None,
    init: Annotated[
        list[str] | None,
        typer.Option(
            help="What networks start from: scratch, pretrained (timm's hub), or a local file or folder of weights. "
            "What truncated ones start from: inherit (the trained full network's weights) or distil (with it as "
            "teacher). May be given once for each."
        ),
    ] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="GPUs that share one training.")] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Machines that share one training; start the same command on each.")
    ] = None,
    rule: Annotated[
        RuleName | None, typer.Option(metavar="NAME", help=f"Rule that proposes the depth: {one_of(RuleName)}.")
    ] = None,
    tries: Annotated[int | None, typer.Option(min=0, help="Most depths to train to find the depth; 4.")] = None,
    noise_floor: Annotated[
        bool | None, typer.Option("--noise-floor", help="Also train the full networks with a second seed.")
    ] = None,
    decoder: Annotated[
        DecoderForm | None, typer.Option(help="Decoder of truncated networks: as in the paper, or whole.")
    ] = None,
    vit: Annotated[str | None, typer.Option(help="timm's name of a ViT, in place of the study's own.")] = None,
    settings: Settings = None,
    device: ForTraining = None,
    logger: Annotated[
        str | None, typer.Option(help="Also log to tensorboard, wandb, mlflow, or another of Lightning's loggers.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Do the trainings on a Ray cluster: this machine's, one at HOST:PORT, or (auto) a running one.",
        ),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only say where the running study is.")] = False,
) -> None:
    """Train, measure attention, truncate, compare: the paper's whole experiment.

    The same command again continues what was stopped. Exit status 1: some trainings failed.
    """
    if status:
        _print_status(source, out, with_device(settings, device))
        return

    from vitrim.config.reading import study_config, study_folder

    config = study_config(
        source,
        seed,
        seeds,
        folds,
        depths,
        networks,
        init or [],
        devices,
        nodes,
        rule,
        tries,
        noise_floor,
        decoder,
        vit,
        with_device(settings, device),
    )
    folder = study_folder(config, out)
    if config.training.nodes > 1:  # read when torch is imported; else torch prints forty lines when a machine is gone
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    from vitrim.commands.study import study

    reporter = make_reporter()
    try:
        result = study(config, data=data, out=folder, logger=logger, ray=ray, reporter=reporter)
    except KeyboardInterrupt:
        raise stopped(f"stopped; the same command continues with what is in {folder}") from None
    if result.written:
        reporter.say("")
        reporter.say((folder / "report.md").read_text(encoding="utf-8").split("\n\n## ")[0].strip())
        reporter.say("")
        for path in [*result.written, folder / "results.csv"]:
            reporter.say(f"wrote {path}")
    if result.failures:
        reasons = "; ".join(failure.sentence() for failure in result.failures)
        typer.echo(
            f"vitrim: {len(result.failures)} failed ({reasons}); records are in {folder / 'failed'}, "
            f"and the same command tries them again",
            err=True,
        )
        raise typer.Exit(FAILED)


def _print_status(source: str, out: Path | None, settings: list[str]) -> None:
    from vitrim.config.reading import load_study
    from vitrim.studies.lock import is_locked
    from vitrim.studies.status import describe

    folder = out or Path("runs") / load_study(source, settings).name
    if not (folder / "study.json").is_file():
        raise InputError(f"{folder} holds no study; say where it is with --out")
    for line in describe(folder, is_locked(folder)):
        typer.echo(line)
