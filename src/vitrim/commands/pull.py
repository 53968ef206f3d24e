"""`vitrim pull`: a network from the Hugging Face hub into a new folder."""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants as hub
from huggingface_hub.hf_api import ModelInfo

from vitrim import __version__
from vitrim.commands.hub import ORIGIN, TRAVELS, address, asking, checked_repository, read_facts
from vitrim.errors import ConfigurationError, InputError, WeightsError
from vitrim.files import remove, replacing, write_json
from vitrim.models.checkpoint import FILES, NETWORK_FILES
from vitrim.progress import Reporter

LARGEST_RECORD = 64 * 2**20
"""Largest size in bytes of a file other than that of the tensors."""

SECONDS = 30
"""Time limit for the first answer of the hub."""


@dataclass(frozen=True)
class PulledNetwork:
    """A network that was downloaded: it is in `folder`."""

    folder: Path
    repository: str
    commit: str
    """The commit that it came from: 40 hexadecimal digits. origin.json in the folder holds it too."""
    lines: list[str]
    """What it is, in words, and the next command."""


def pull(
    repository: str,
    out: str | Path,
    *,
    revision: str | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> PulledNetwork:
    """Download the network in the model repository `repository` into the new folder `out`.

    The same as the command `vitrim pull`. Only files that vitrim writes are downloaded, and none of them is code. They
    are opened once: a network that is damaged or incomplete is not kept. `out` is written whole or not at all, and
    origin.json in it names the repository and the commit. A private repository needs a token (HF_TOKEN, or
    `hf auth login`); the hub is huggingface.co or that of HF_ENDPOINT.

    Args:
        repository: OWNER/NAME.
        out: the new folder.
        revision: commit, branch or tag; by default the newest commit.
        overwrite: replace `out`, if it is the folder of a network and holds nothing else.

    Raises:
        InputError: if there is no such repository or revision, if it is not open to this machine's token, or if it
            holds no network that can be opened.
        OSError: if the hub gives no usable answer, or `out` cannot be written.

    Example:
        >>> import vitrim
        >>> try:
        ...     vitrim.pull("my-network", "pulled")
        ... except vitrim.InputError as error:
        ...     print(error)
        'my-network' is not the name of a repository: write OWNER/NAME, as in the address of its page
    """
    out, reporter = Path(out), reporter or Reporter()
    checked_repository(repository)
    if revision is not None and not revision.strip():
        raise ConfigurationError("--revision is empty: give a commit, a branch or a tag, or leave it out")
    _check_place(out, overwrite)
    with asking(repository, reporter, revision) as api:
        info = api.model_info(repository, revision=revision, files_metadata=True, timeout=SECONDS)
        names, size = _to_pull(info, repository)
    commit = str(info.sha)
    with replacing(out) as folder:
        folder.mkdir()
        if size > (free := shutil.disk_usage(folder).free):
            raise OSError(errno.ENOSPC, f"the network has {size / 1e9:.1f} GB, there is room for {free / 1e9:.1f}", out)
        with asking(repository, reporter, commit) as api:
            for name in names:
                api.hf_hub_download(repository, name, revision=commit, local_dir=folder)
        remove(folder / ".cache")  # the client's own records
        try:
            facts = read_facts(folder)
        except InputError as error:
            reason = str(error).replace(str(folder), repository)
            raise WeightsError(f"{address(repository)} (commit {commit[:12]}) cannot be used: {reason}") from error
        source = {"repository": repository, "commit": commit, "revision": revision, "hub": hub.ENDPOINT}
        write_json(folder / ORIGIN, {**source, "vitrim": __version__})
    lines = [facts.in_words(), *facts.verdict]
    if not facts.cases_known:
        lines.append(
            "note: on which cases it was trained is not known here; evaluate it on cases that it cannot have seen"
        )
    if facts.adapted:
        lines.append(f"note: these are weights alone; --model must say what builds the {facts.title}")
    lines += [f"from {address(repository)}, commit {commit}", f"wrote {out}"]
    more = (" --model PLACE" if facts.adapted else "") + (" --study STUDY" if facts.data is None else "")
    return PulledNetwork(out, repository, commit, [*lines, f"next: vitrim predict {out} IMAGES -o PREDICTIONS{more}"])


def _check_place(out: Path, overwrite: bool) -> None:
    """Raise ConfigurationError unless `out` is free, or may be replaced because a network alone lies there."""
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise ConfigurationError(f"{out} exists already; choose another folder, or replace it with --overwrite")
    entries = sorted(entry.name for entry in out.iterdir()) if out.is_dir() and not out.is_symlink() else [out.name]
    others = [name for name in entries if name not in FILES.union(TRAVELS)]
    if others or (entries and NETWORK_FILES[0] not in entries):
        raise ConfigurationError(
            f"{out} is not the folder of a network alone ({(others or entries)[0]} lies there), so it is never "
            f"replaced; choose another folder"
        )


def _to_pull(info: ModelInfo, repository: str) -> tuple[list[str], int]:
    """The files to download, and their size in bytes. Raises WeightsError if they are no network of vitrim."""
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    missing = [name for name in NETWORK_FILES if name not in sizes]
    if missing:
        raise WeightsError(f"{address(repository)} holds no network of vitrim: {missing[0]} is missing")
    names = [name for name in TRAVELS if name in sizes]
    for name in names:
        if name != "model.safetensors" and sizes[name] > LARGEST_RECORD:
            megabytes = f"{sizes[name] / 1e6:,.0f} MB"
            raise WeightsError(f"{address(repository)}: {name} has {megabytes}, which no such file of vitrim has")
    return names, sum(sizes[name] for name in names)
