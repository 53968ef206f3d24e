"""The plan of a study: the trial of the full network for each seed, fold and network, then its truncated forms."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from vitrim.config.names import NETWORK_TITLES, NetworkName
from vitrim.config.network_schema import NetworkConfig
from vitrim.config.schema import StudyConfig
from vitrim.errors import ConfigurationError, InputError
from vitrim.models.factory import NETWORKS, build
from vitrim.models.network import Network, skeleton
from vitrim.models.pretrained import check_at_hand
from vitrim.studies.study_data import StudyData
from vitrim.studies.trial import Trial


@dataclass(frozen=True)
class RunKey:
    """Run key: one network of the study with one seed and one fold. Each run key has one decided depth."""

    network: NetworkName
    seed: int
    fold: int


@dataclass(frozen=True)
class Plan:
    """The trials of a study, given its data and the origin of its weights."""

    study: StudyConfig
    study_data: StudyData
    origins: dict[str, str]
    """Origin of the weights before training, by network, as in `initialised_from`."""

    @property
    def run_keys(self) -> list[RunKey]:
        """All run keys, in order of seed, fold and network."""
        return [
            RunKey(network, seed, fold)
            for seed in self.study.all_seeds
            for fold in self.study_data.splits
            for network in self.study.networks
        ]

    def full(self, key: RunKey) -> Trial:
        """Return the trial of the full network of this run key."""
        return self.trial(key, self.study.full_depth)

    def noise(self, key: RunKey) -> Trial:
        """Return the trial of the full network with a seed that the study does not use: the noise floor."""
        return self.trial(replace(key, seed=max(self.study.all_seeds) + 1), self.study.full_depth)

    def nested(self, key: RunKey) -> Trial:
        """Return the trial of the full network with nested training, which the rule `nested` uses."""
        full = self.full(key)
        return Trial(**{**dict(full), "training": full.training.model_copy(update={"nested": True})})

    def run_key_of(self, trial: Trial) -> RunKey | None:
        """Return the run key of a trial; None for the noise floor and for nested training."""
        key = RunKey(trial.network.name, trial.seed, trial.fold)
        return key if key in self.run_keys and not trial.training.nested else None

    def fixed(self, network: NetworkName) -> list[int]:
        """Return the fixed depths of a network, deepest first, without the full one; see `fixed_depths`."""
        return sorted({*fixed_depths(self.study, network)} - {self.study.full_depth}, reverse=True)

    def attention_folder(self, out: Path, key: RunKey) -> Path:
        """Return the folder for the attention of a full network. The first seed and fold has a name without numbers."""
        first = key.seed == self.study.all_seeds[0] and key.fold == next(iter(self.study_data.splits))
        return out / "networks" / (key.network if first else f"{key.network}-seed{key.seed}-fold{key.fold}")

    def trial(self, key: RunKey, blocks: int) -> Trial:
        """Return the trial of the network of this run key, truncated to `blocks` blocks."""
        study, split = self.study, self.study_data.splits[key.fold]
        cache = self.study_data.data.cache
        decisive = (*split.train, *split.validation, *(split.tuning if study.training.checkpoint == "best" else ()))
        start = "scratch" if blocks == study.full_depth else study.truncated_from
        return Trial(
            network=network_config(
                study,
                key.network,
                num_classes=self.study_data.data.cases.num_classes,
                channels=cache.case(split.train[0]).images.shape[1],
            ),
            blocks=blocks,
            training=study.training,
            seed=key.seed,
            fold=key.fold,
            data=cache.fingerprint_of(decisive),
            split=split,
            empty_slices=study.data.empty_slices,
            weights=origin_by_content(self.origins[key.network]),
            start=start,
            teacher=None if start == "scratch" else self.full(key).key,
        )


def balanced(keys: list[RunKey]) -> list[RunKey]:
    """Return the run keys of one network that can be compared together: the seeds that have every fold.

    If no seed has every fold, those of the first seed. A seed without some folds would hold other cases than the rest.
    """
    folds = {key.fold for key in keys}
    whole = [key for key in keys if {other.fold for other in keys if other.seed == key.seed} == folds]
    return whole or [key for key in keys if key.seed == keys[0].seed]


def fixed_depths(study: StudyConfig, network: NetworkName) -> list[int]:
    """Return the fixed depths of one network: the study's common depths that the network has, or else its own."""
    if study.depths is None:
        return list(study.networks[network].depths)
    return [depth for depth in study.depths if depth >= NETWORKS[network].shallowest]


def left_out(study: StudyConfig) -> list[str]:
    """Return one line for each of the study's common depths and each network that does not have this depth."""
    return [
        f"{network} has no depth {depth}: left out"
        for network in study.networks
        for depth in study.depths or []
        if depth not in fixed_depths(study, network)
    ]


def check_networks(study: StudyConfig) -> dict[str, str]:
    """Build each network once, before any data is read, and return the origin of its weights.

    Raises InputError if a depth is too small for a network, or if its backbone or weights cannot be loaded.
    """
    for name in study.networks:
        shallowest = NETWORKS[name].shallowest
        if study.depths is None and min(study.networks[name].depths, default=shallowest) < shallowest:
            raise ConfigurationError(
                f"networks.{name}.depths: the smallest depth of {NETWORK_TITLES[name]} is {shallowest}"
            )
    configs = [network_config(study, name, num_classes=2, channels=1) for name in study.networks]
    try:
        check_at_hand((NETWORKS[config.name], config) for config in configs)  # before anything that takes long
        return {config.name: _start(config).initialised_from for config in configs}
    except InputError as error:
        if not study.pretrained:
            raise
        raise type(error)(f"{error} (on the command line: --init PATH, or --init scratch)") from error


def _start(config: NetworkConfig) -> Network:
    """Build the network with its pretrained weights, or without data: to draw random weights takes long."""
    return build(config) if config.pretrained else skeleton(NETWORKS[config.name], config)


def network_config(study: StudyConfig, name: NetworkName, num_classes: int, channels: int) -> NetworkConfig:
    """Return the configuration of one of the study's networks in its full form."""
    return NetworkConfig(
        name=name,
        num_classes=num_classes,
        depth=study.full_depth,
        size=study.size,
        vit=study.vit,
        image_size=study.data.image_size,
        in_chans=channels,
        backbone=study.networks[name].backbone,
        width=study.width,
        pretrained=study.pretrained,
        decoder=study.decoder,
    )


def absolute(pretrained: bool | str) -> bool | str:
    """Return `pretrained` with absolute paths, for processes with another working directory."""
    if isinstance(pretrained, bool):
        return pretrained
    parts = [part.strip() for part in pretrained.split(",")]
    return ",".join(str(Path(part).resolve()) if Path(part).exists() else part for part in parts)


def origin_by_content(origin: str) -> str:
    """Remove file names from the origin of weights, so that two copies of one file count as the same weights."""
    return re.sub(r"file .*? \(sha256 (\w+)…\)", r"sha256 \1", origin)
