"""What `vitrim push` and `vitrim pull` share: which files travel, what they say, and what goes wrong with the hub."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub import constants as hub
from huggingface_hub.utils import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from vitrim import __version__
from vitrim.commands.provenance import IMPORT, RECOVERY, TRIAL, read_provenance
from vitrim.compression.depth_decision import DECISION, DepthDecision
from vitrim.config.schema import DataConfig
from vitrim.data.recipe import recipe_for, stored_recipe
from vitrim.errors import ConfigurationError, InputError, printable
from vitrim.files import read_json, short_reason, understood
from vitrim.models.checkpoint import NETWORK_FILES, holds_adapted, load_model, read_adapted
from vitrim.models.describe import count_parameters
from vitrim.progress import Reporter
from vitrim.report.model_card import NetworkFacts

COMPRESSION = "compression.json"
ABOUT = ("preparation.json", DECISION, COMPRESSION, "compression.md")
CASES = (TRIAL, IMPORT, RECOVERY, "cases.csv", "tuning.csv")
"""Files that name cases: how they were split, and results of each."""
TRAVELS = (*NETWORK_FILES, *ABOUT, *CASES)
"""Every file that is pushed or pulled."""
CARD = "README.md"
ORIGIN = "origin.json"
"""Record in a folder that was pulled: repository, commit, and address of the hub."""

LOGIN = "set HF_TOKEN or run `hf auth login`"
BUSY = 429
"""HTTP status of a server that has no time now; 500 and above say that it failed."""


def checked_repository(repository: str) -> str:
    """Return `repository`. Raises ConfigurationError unless it has the form OWNER/NAME."""
    part = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
    if not re.fullmatch(f"{part}/{part}", repository) or re.search(r"--|\.\.|\.git$", repository):
        raise ConfigurationError(
            f"{repository[:200]!r} is not the name of a repository: write OWNER/NAME, as in the address of its page"
        )
    return repository


@contextmanager
def asking(repository: str, reporter: Reporter, revision: str | None = None) -> Iterator[HfApi]:
    """Give the client of the hub. Inside, all that goes wrong between it and the hub is said in one line.

    Raises InputError for what the user can mend: name, revision, token, rights, HF_HUB_OFFLINE. Raises OSError if the
    hub gives no usable answer, or if this machine cannot write a file.
    """
    token = get_token()
    if hub.HF_HUB_OFFLINE:
        raise InputError("push and pull need the hub, and HF_HUB_OFFLINE switches it off: unset it")
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise InputError(f"the stored token holds characters that no token has: {LOGIN}")
    log, disabled = logging.getLogger("huggingface_hub"), are_progress_bars_disabled()
    level = log.level
    log.setLevel(logging.ERROR)  # the error says what the last attempt met
    if not (reporter.progress and reporter.console.is_terminal):
        disable_progress_bars()
    try:
        yield HfApi(hub.ENDPOINT, library_name="vitrim", library_version=__version__)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # its own classes, those of its HTTP client, of Xet, and ValueError
        if _of_this_machine(error):
            raise
        raise _said(error, repository, revision) from error
    finally:
        log.setLevel(level)
        if not disabled:
            enable_progress_bars()


def address(repository: str) -> str:
    """The page of a repository."""
    return f"{hub.ENDPOINT}/{repository}"


def _of_this_machine(error: Exception) -> bool:
    """Whether a file could not be written or read here, as on a full disk."""
    remote = isinstance(error, (ConnectionError, TimeoutError))
    return isinstance(error, OSError) and error.errno is not None and not remote


def _said(error: Exception, repository: str, revision: str | None) -> Exception:
    """What went wrong with the hub, as an error in one line."""
    place = address(repository)
    answers = [each for each in _causes(error) if isinstance(each, HfHubHTTPError)]
    if not answers:
        return OSError(errno.EIO, f"no usable answer from the hub ({_reason(error)})", hub.ENDPOINT)
    answer = answers[0]
    status, reason = answer.response.status_code, _reason(error)
    if status == BUSY or status >= 500:
        return OSError(errno.EIO, f"the hub fails now (status {status}: {reason})", hub.ENDPOINT)
    if isinstance(answer, RevisionNotFoundError):
        return InputError(f"{place} has no revision {revision or 'main'!r}: give a commit, a branch or a tag of it")
    if isinstance(answer, GatedRepoError):
        return InputError(f"{place} is for those who were given access: ask for it on that page, then {LOGIN}")
    if isinstance(answer, RepositoryNotFoundError) or status == 404:
        return InputError(f"no such repository: {place}. If it is private, {LOGIN} with an account that may read it")
    if status == 401:
        return InputError(f"the hub does not accept the token of this machine: {LOGIN}")
    if status == 403:
        return InputError(f"the hub does not allow this with {place} ({reason}); {LOGIN} with an account that may")
    if status in (409, 412):
        return InputError(f"{place} was changed at the same time ({reason}): look at it, and do it again")
    return InputError(f"the hub refuses this for {place} ({reason})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: Exception) -> str:
    """What the hub, or else the client, says; never the token."""
    said = next((text for each in _causes(error) if (text := getattr(each, "server_message", None))), None)
    text = short_reason(error) if said is None else " ".join(str(said).split())[:300]
    token = get_token()
    return printable(text.replace(token, "***") if token else text)


def read_facts(folder: Path) -> NetworkFacts:
    """Open the network in `folder` with all files beside it that travel, and return what they say.

    Raises InputError if one of them is missing, damaged, or does not fit the others.
    """
    adapted = holds_adapted(folder)
    known, recipe = read_provenance(folder), stored_recipe(folder)
    data: DataConfig | None = recipe.data if recipe else None
    classes = recipe.classes if recipe else {}
    if adapted:
        about = read_adapted(folder)
        title, depth, full, images = about["class"], len(about["kept"]), about["full_depth"], about["images"]
        parameters = None
    else:
        network = load_model(folder)
        title, depth, full = network.title, network.depth, network.config.full_depth
        images, parameters = (network.in_chans, *network.image_size), count_parameters(network)
        if recipe is not None:
            recipe_for(folder, recipe, None, network.image_size, network.num_classes)
        classes = classes or {number: f"class {number}" for number in range(network.num_classes)}
    return NetworkFacts(
        title=title,
        depth=depth,
        full_depth=full,
        images=tuple(images),
        parameters=parameters,
        classes=classes,
        data=data,
        verdict=_verdict(folder),
        adapted=adapted,
        cases_known=known.split is not None,
    )


def _verdict(folder: Path) -> list[str]:
    """How the number of blocks was decided, in the words of the command that decided it, and what follows."""
    said = [DepthDecision.load(folder / DECISION).in_words()] if (folder / DECISION).is_file() else []
    summary = read_json(folder / COMPRESSION)
    with understood(folder / COMPRESSION):
        for way, prefix in (("procedure", ""), ("attention", "by attention: "), ("accuracy", "")):
            if answer := summary.get(f"by_{way}"):
                said.append(f"{prefix}{answer['sentence']}")
        if summary.get("recovery") == "none" and summary["before"]["blocks"] > summary["after"]["blocks"]:
            said.append("It was not trained after the cut: its weights are a starting point for a training.")
    return list(dict.fromkeys(said))
