"""A study is refused in one line that names what is wrong with it."""

import pytest
import yaml

from vitrim.config.network_schema import NetworkConfig
from vitrim.config.reading import load_study, parse_study, presets, study_config
from vitrim.errors import ConfigurationError, InputError

GOOD = {
    "name": "mine",
    "data": {"image_size": 128},
    "networks": {"transunet": {"depths": [3, 1]}},
    "training": {"steps": 10},
}


def study(**changes):
    return parse_study(yaml.safe_dump({**GOOD, **changes}), "mine.yaml")


def test_one_number_is_a_square_image():
    assert study().data.image_size == (128, 128)


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_a_study(name):
    assert load_study(name).name == name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": "red"}, "unknown key colour"),
        ({"training": {"steps": 10, "momentum": 0.9}}, "unknown key training.momentum"),
        ({"data": {"image_size": 200}}, "200 is not a multiple of 16"),
        ({"data": {"image_size": [128, 72]}}, "is not a multiple of 16"),
        ({"data": {"tuning": 1.5}}, "tuning 1.5 is neither a number of cases nor a share"),
        ({"data": {"tuning": -1}}, "tuning -1 is neither"),
        ({"data": {"scaling": "cubic"}}, "data.scaling"),
        ({"training": {}}, "give either epochs or steps"),
        ({"training": {"steps": 5, "epochs": 5}}, "give either epochs or steps"),
        ({"training": {"steps": -1}}, "training.steps"),
        ({"training": {"steps": 5, "learning_rate": 0}}, "training.learning_rate"),
        ({"networks": {"unet": {}}}, "networks.unet"),
        ({"networks": {"transunet": {"depths": [13]}}}, "networks.transunet.depths.0"),
        ({"vit": "test_vit", "networks": {"transunet": {"depths": [7]}}}, "depths.0: test_vit has 6 blocks (got 7)"),
        ({"vit": "test_vit", "depths": [1, 12]}, "depths.1: test_vit has 6 blocks (got 12)"),
        ({"vit": "test_vitt"}, "vit: 'test_vitt' is not a model of timm (did you mean 'test_vit"),
        ({"vit": "test_vit", "size": "tiny"}, "size tiny and vit test_vit (6 blocks, 64 wide) are two ViTs"),
        ({"networks": {}}, "networks"),
        ({"name": "../elsewhere"}, "name"),
        ({"name": None}, "name"),
    ],
)
def test_an_impossible_study_is_refused_in_one_line_that_names_the_key(changes, words):
    with pytest.raises(InputError) as refusal:
        study(**changes)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"attention": {"measure": "globalty"}},
            "attention.measure: 'globalty' is unknown (did you mean 'globality'?)",
        ),
        (
            {"attention": {"head": "maximum"}},
            "attention.head: 'maximum' is unknown (did you mean 'max'?); choose from mean, max",
        ),
        (
            {"data": {"layout": "ibsr"}},
            "data.layout: 'ibsr' is unknown (did you mean 'ibsr18'?); choose from decathlon",
        ),
        ({"networks": {"transunett": {}}}, "'transunett' is unknown (did you mean 'transunet'?)"),
        (
            {"training": {"steps": 1, "precision": "bf16"}},
            "training.precision: 'bf16' is unknown; choose from auto, 32-true, tf32, bf16-mixed",
        ),
        (
            {"training": {"steps": 1, "learning_rte": 1}},
            "unknown key training.learning_rte (did you mean 'learning_rate'?)",
        ),
        ({"data": {"phantom": {"kind": "brain", "cases": 2, "nois": 1}}}, "did you mean 'noise'?"),
        ({"networks": {"cats2d": {"depth": [3]}}}, "unknown key networks.cats2d.depth (did you mean 'depths'?)"),
        ({"traning": {"steps": 1}}, "unknown key traning (did you mean 'training'?)"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest_one(changes, words):
    with pytest.raises(ConfigurationError) as refusal:
        study(**changes)
    assert words in str(refusal.value)


def test_a_misspelt_preset_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigurationError, match="did you mean 'synapse'"):
        load_study("sinapse")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [unclosed", "just words", "!!python/object:os.system {}"])
def test_what_is_no_mapping_is_no_study(text):
    with pytest.raises(InputError, match=r"mine\.yaml"):
        parse_study(text, "mine.yaml")


def test_a_missing_preset_names_those_that_exist(tmp_path):
    with pytest.raises(InputError, match="demo"):
        load_study(str(tmp_path / "none.yaml"))


def test_a_network_is_rebuilt_from_its_own_json():
    config = NetworkConfig(name="cats2d", num_classes=4, depth=3, image_size=(96, 128), backbone="resnet34")
    assert NetworkConfig.model_validate_json(config.model_dump_json()) == config


def test_a_vit_of_timm_takes_the_place_of_the_size():
    config = study_config(study(size="micro"), vit="cait_xxs24_224", depths="24")
    assert (config.size, config.vit, config.full_depth) == (None, "cait_xxs24_224", 24)
    assert (study().size, study().full_depth) == ("base", 12)
    assert parse_study(yaml.safe_dump(config.model_dump(mode="json")), "again") == config


@pytest.mark.parametrize(
    ("vit", "taps"),
    [(None, (3, 6, 9, 12)), ("cait_xxs24_224", (6, 12, 18, 24)), ("test_vit", (2, 3, 4, 6))],
)
def test_taps_are_every_quarter_of_the_blocks(vit, taps):
    config = NetworkConfig(name="unetr2d", num_classes=2, vit=vit)
    assert (config.taps, config.depth) == (taps, taps[-1])
    assert NetworkConfig.model_validate_json(config.model_dump_json()) == config
