"""`vitrim push`: a network as a model repository on the Hugging Face hub."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

from vitrim import __version__
from vitrim.commands.hub import (
    ABOUT,
    CARD,
    CASES,
    COMPRESSION,
    LOGIN,
    TRAVELS,
    address,
    asking,
    checked_repository,
    read_facts,
)
from vitrim.errors import ConfigurationError, InputError
from vitrim.files import read_json
from vitrim.models.checkpoint import NETWORK_FILES
from vitrim.progress import Reporter
from vitrim.report.model_card import is_untouched, license_of, model_card

FURNITURE = {CARD, ".gitattributes", ".gitignore", "LICENSE", "LICENSE.md", "LICENSE.txt"}
"""Files that a repository may hold before a network is pushed into it."""


@dataclass(frozen=True)
class PushedNetwork:
    """A network on the hub."""

    repository: str
    commit: str
    """The commit that holds it: 40 hexadecimal digits."""
    files: list[str]
    """The files of the network that this commit holds, and README.md if vitrim wrote it."""
    lines: list[str]
    """What was done, in words."""


def push(
    checkpoint: str | Path,
    repository: str,
    *,
    private: bool = False,
    message: str | None = None,
    license: str | None = None,
    with_cases: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> PushedNetwork:
    """Upload the folder of a network as the model repository `repository`, in one commit.

    The same as the command `vitrim push`. The network is opened first, so that a damaged one is never uploaded. Only
    files that vitrim wrote are uploaded: the network, how its images are prepared, and how its depth was decided. Files
    that name cases (the split, results of each case) stay here unless `with_cases` is set: names of cases can be names
    of patients. A model card (README.md) is written; one that somebody wrote or edited is kept. Files of an earlier
    push that this network does not have are deleted. Of a model of another library only the weights are uploaded. The
    token is that of HF_TOKEN or of `hf auth login`; the hub is huggingface.co or that of HF_ENDPOINT.

    Args:
        checkpoint: folder of a network.
        repository: OWNER/NAME. It is created if there is none.
        private: whether a new repository is private. An existing one must be private already.
        message: of the commit.
        license: of the network, for the model card, in the hub's short form, such as `apache-2.0`; by default that of
            the card which an earlier push wrote.
        with_cases: upload the files that name cases too.
        overwrite: replace a model card that somebody wrote, and write into a repository that holds other files.

    Raises:
        InputError: if the folder holds no network that can be opened, or the hub refuses this: there is no token, or
            it may not write there.
        OSError: if the hub gives no usable answer. A repository that was created by then stays, without a network.

    Example:
        >>> import vitrim
        >>> try:
        ...     vitrim.push("network", "my-network")
        ... except vitrim.InputError as error:
        ...     print(error)
        'my-network' is not the name of a repository: write OWNER/NAME, as in the address of its page
    """
    checkpoint, reporter = Path(checkpoint), reporter or Reporter()
    checked_repository(repository)
    if message is not None and not message.strip():
        raise ConfigurationError("--message is empty: say what this commit is, or leave it out")
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise ConfigurationError(f"--license {license[:80]!r} is not the short name of one, such as apache-2.0")
    facts = read_facts(checkpoint)
    if not get_token():
        raise InputError(f"no token of the hub on this machine, and pushing needs one that may write: {LOGIN}")
    files = {name: (checkpoint / name) for name in _to_push(checkpoint, with_cases)}
    with asking(repository, reporter) as api:
        if private:
            api.create_repo(repository, private=True, exist_ok=True)
        else:  # then the owner's own default holds
            api.create_repo(repository, exist_ok=True)
        info = api.model_info(repository)
        if private and not info.private:
            raise InputError(f"{address(repository)} exists and is public: make it private on its page, then push")
        there = {sibling.rfilename for sibling in info.siblings or []}
        if there - FURNITURE and not there.issuperset(NETWORK_FILES) and not overwrite:
            raise InputError(
                f"{address(repository)} holds files and no network of vitrim: choose another name, or --overwrite to "
                f"write into it"
            )
        old = _read_card(api, repository, str(info.sha)) if CARD in there else None
        ours = old is not None and is_untouched(old)
        writes_card = overwrite or old is None or ours
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, _without_path(path) if name == COMPRESSION else path)
            for name, path in files.items()
        ]
        if writes_card:
            known = license_of(old) if license is None and old is not None and ours else license
            card = model_card(facts, repository, known, "compression.md" in files)
            operations.append(CommitOperationAdd(CARD, card.encode()))
        operations += [CommitOperationDelete(name) for name in TRAVELS if name in there and name not in files]
        title = message or f"{facts.title}, {facts.depth} of {facts.full_depth} blocks, by vitrim {__version__}"
        commit = api.create_commit(repository, operations, commit_message=title, parent_commit=info.sha)
    lines = [facts.in_words()]
    if not writes_card:
        lines.append("note: somebody wrote or edited README.md there, so it was kept; --overwrite replaces it")
    if kept := [name for name in CASES if (checkpoint / name).is_file() and name not in files]:
        lines.append(f"note: {', '.join(kept)} stayed here, because they name cases; --with-cases uploads them too")
    if commit.oid == info.sha:
        lines.append("nothing was uploaded: the repository holds the same files already")
    lines.append(f"{address(repository)}, commit {commit.oid}")
    return PushedNetwork(repository, commit.oid, [*files, *([CARD] if writes_card else [])], lines)


def _to_push(checkpoint: Path, with_cases: bool) -> list[str]:
    names = (*NETWORK_FILES, *ABOUT, *(CASES if with_cases else ()))
    return [name for name in names if (checkpoint / name).is_file()]


def _without_path(path: Path) -> bytes:
    """compression.json with the name of the folder that was compressed, without its place on this machine."""
    content = read_json(path)
    if isinstance(content.get("checkpoint"), str):
        content["checkpoint"] = Path(content["checkpoint"]).name
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _read_card(api: HfApi, repository: str, commit: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(api.hf_hub_download(repository, CARD, revision=commit, local_dir=folder))
        return path.read_text(encoding="utf-8", errors="replace")
