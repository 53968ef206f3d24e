"""`vitrim study` and `vitrim report`."""

from __future__ import annotations

import os
import re
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from vitrim.cli.root import app
from vitrim.errors import InputError

if TYPE_CHECKING:
    from vitrim.config import StudyConfig

FAILED, INTERRUPTED = 1, 130
"""Exit status where trainings failed, and where the user stopped it."""


ADDRESS = re.compile(r"auto|local|(ray://)?([^\s:/]+|\[[0-9a-f:]+\]):\d+")
"""What may follow `--ray`; anything else there is the command's next argument (`--ray=` takes all)."""


class _StudyCommand(TyperCommand):
    """Typer has no option whose value may be left out: `--ray` alone is completed to `--ray local`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        whole: list[str] = []
        for arg, following in zip_longest(args, args[1:], fillvalue=""):
            whole.append(arg)
            if arg == "--ray" and not ADDRESS.fullmatch(following):
                whole.append("local")
        return super().parse_args(ctx, whole)


@app.command(cls=_StudyCommand)
def study(
    source: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help="A preset, such as demo, or your own study.")],
    data: Annotated[Path | None, typer.Option(help="Folder with the data set.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; runs/NAME by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the study's own.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Train with each of these: 0,1,2 or 0..2.")] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Train on each of so many folds.")] = None,
    depths: Annotated[str | None, typer.Option(help="Fixed depths of every network: 1,3,6 or 0..12.")] = None,
    networks: Annotated[str | None, typer.Option(help="Of the study's networks, these: transunet,unetr2d.")] = None,
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
    logger: Annotated[str | None, typer.Option(help="Another of Lightning's loggers, as TensorBoardLogger.")] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Do the trainings on a Ray cluster: this machine's, one at HOST:PORT, or (auto) a running one.",
        ),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only say where the running study is.")] = False,
) -> None:
    """Train, look at the attention, cut, compare: the paper's experiment, whole.

    The same command again goes on with what was stopped. Exit status 1: some trainings failed.
    """
    from vitrim.config import changed, load_study, numbers

    config = load_study(source)
    changes: dict[str, Any] = {"training": {}}
    if seed is not None:
        changes["seed"] = seed
    if seeds is not None:
        changes["seeds"] = numbers(seeds, "--seeds")
    if folds is not None:
        changes["folds"] = folds
    if depths is not None:
        changes["depths"] = numbers(depths, "--depths")
    if networks is not None:
        changes["networks"] = _chosen(config, networks)
    if devices is not None:
        changes["training"]["devices"] = devices
    if nodes is not None:
        changes["training"]["nodes"] = nodes
    config = changed(config, **changes, **_start(init or []))
    folder = out or Path("runs") / config.name
    if status:
        _say_status(folder)
        return

    if config.training.nodes > 1:  # torch would say in forty lines that another machine has gone; we do in one
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    from vitrim.progress import Reporter
    from vitrim.report.build import write_report
    from vitrim.study.failures import failures
    from vitrim.study.runner import here, run_study

    reporter = Reporter()
    place = here(config.training, ray)
    try:
        if place is not None and place.node > 0:
            from vitrim.study.follow import follow

            follow(place, config.training.nodes, folder, reporter)
            return
        run_study(config, data, folder, reporter, logger=logger, ray=ray)
    except KeyboardInterrupt:
        typer.echo(f"vitrim: stopped; the same command goes on with what is in {folder}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if (folder / "results.csv").is_file():
        written = write_report(folder)
        reporter.say("")
        reporter.say((folder / "report.md").read_text(encoding="utf-8").split("\n\n## ")[0].strip())
        reporter.say("")
        for path in [*written, folder / "results.csv"]:
            reporter.say(f"wrote {path}")
    if failed := failures(folder):
        said = "; ".join(failure.sentence() for failure in failed)
        typer.echo(
            f"vitrim: {len(failed)} failed ({said}); records are in {folder / 'failed'}, "
            f"and the same command tries them again",
            err=True,
        )
        raise typer.Exit(FAILED)


@app.command()
def train(
    source: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help="A preset, such as demo, or your own study.")],
    out: Annotated[Path, typer.Option(help="Folder for the network, with all that the other commands need.")],
    network: Annotated[str | None, typer.Option(help="Which of the study's networks; the first by default.")] = None,
    depth: Annotated[int, typer.Option(min=0, help="Transformer blocks; 12 is the full network.")] = 12,
    data: Annotated[Path | None, typer.Option(help="Folder with the data set.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the study's own.")] = None,
    init: Annotated[str | None, typer.Option(help="Start: scratch, pretrained, or local weights.")] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="GPUs that share the training.")] = None,
    logger: Annotated[str | None, typer.Option(help="Another of Lightning's loggers, as TensorBoardLogger.")] = None,
) -> None:
    """Train one network of a study, and evaluate it. The same command again goes on with what was stopped."""
    from vitrim.config import changed, load_study

    config = load_study(source)
    changes: dict[str, Any] = {"training": {} if devices is None else {"devices": devices}}
    if seed is not None:
        changes |= {"seed": seed, "seeds": None}
    config = changed(config, **changes, **_start([init] if init else []))

    from vitrim.progress import Reporter
    from vitrim.study.alone import train_alone

    try:
        lines = train_alone(config, network or next(iter(config.networks)), depth, data, out, Reporter(), logger)
    except KeyboardInterrupt:
        typer.echo("vitrim: stopped; the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    for line in lines:
        typer.echo(line)


def _chosen(config: StudyConfig, names: str) -> dict[str, Any]:
    """Some of the study's networks, in the study's order."""
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in config.networks:
            raise InputError(
                f"--networks: the study {config.name} has no {name!r}; it has {', '.join(config.networks)}"
            )
    return {name: network.model_dump() for name, network in config.networks.items() if name in wanted}


def _start(init: list[str]) -> dict[str, Any]:
    """What networks start from, and what truncated ones do."""
    cut = [value for value in init if value in ("inherit", "distil")]
    whole = [value for value in init if value not in cut]
    if len(cut) > 1 or len(whole) > 1:
        raise InputError(f"--init: {' and '.join(cut if len(cut) > 1 else whole)} exclude each other")
    changes: dict[str, Any] = {"truncated_from": cut[0]} if cut else {}
    return (
        {**changes, "pretrained": {"scratch": False, "pretrained": True}.get(whole[0], whole[0])} if whole else changes
    )


def _say_status(folder: Path) -> None:
    from vitrim.study.lock import is_locked
    from vitrim.study.status import describe

    if not (folder / "study.json").is_file():
        raise InputError(f"{folder} holds no study; say where it is with --out")
    for line in describe(folder, is_locked(folder)):
        typer.echo(line)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Folder of a study, such as runs/demo.")]) -> None:
    """Compute the statistics once more from the stored per-case table, and write the report again."""
    from vitrim.report.build import write_report
    from vitrim.study.recompute import recompute

    for path in (*recompute(run), *write_report(run)):
        typer.echo(f"wrote {path}")
