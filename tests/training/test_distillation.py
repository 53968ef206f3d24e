"""Training a truncated network further, alone or with the full network as teacher."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

import vitrim
from vitrim.config.schema import TrainConfig
from vitrim.errors import InputError
from vitrim.training.distillation import recover, soft_label_loss, token_loss


def network(depth: int = 12, classes: int = 3):
    torch.manual_seed(0)
    full = vitrim.create_model(
        "transunet", num_classes=classes, image_size=32, in_chans=1, size="micro", width=0.25
    ).eval()
    return full if depth == 12 else full.truncated(depth)


def items(count: int = 8):
    torch.manual_seed(2)
    labels = torch.randint(0, 3, (count, 32, 32))
    return [{"image": torch.randn(1, 32, 32) + label[None], "label": label} for label in labels]


CONFIG = TrainConfig(steps=6, batch_size=4, learning_rate=1e-3, device="cpu", precision="32-true")


def test_soft_labels_cost_nothing_where_the_student_agrees():
    logits = torch.randn(2, 4, 5, 5)
    assert float(soft_label_loss(logits, logits)) == pytest.approx(0, abs=1e-6)
    assert float(soft_label_loss(logits + 7, logits)) == pytest.approx(0, abs=1e-5)  # softmax ignores a shift
    other = torch.randn(2, 4, 5, 5)
    by_hand = 0.0
    for mine, theirs in zip(logits.movedim(1, -1).reshape(-1, 4), other.movedim(1, -1).reshape(-1, 4), strict=True):
        p, q = F.softmax(theirs / 2, dim=0), F.softmax(mine / 2, dim=0)
        by_hand += float((p * (p / q).log()).sum()) * 4 / 50
    assert float(soft_label_loss(logits, other)) == pytest.approx(by_hand, rel=1e-4)


def test_tokens_are_compared_relative_to_the_spread_of_the_teachers():
    teacher = torch.randn(2, 9, 16)
    assert float(token_loss(teacher + 0.5, teacher)) == pytest.approx(0.25 / float(teacher.var()), rel=1e-4)
    assert float(token_loss(10 * teacher + 5, 10 * teacher)) == pytest.approx(
        float(token_loss(teacher + 0.5, teacher)), rel=1e-4
    )


def test_distilling_brings_the_student_nearer_to_the_teacher_than_training_on():
    teacher, images = network(), torch.stack([item["image"] for item in items()])
    with torch.no_grad():
        wanted = F.log_softmax(teacher(images), dim=1)

    def apart(small) -> float:
        with torch.no_grad():
            return float(F.kl_div(F.log_softmax(small(images), dim=1), wanted, reduction="batchmean", log_target=True))

    alone, taught = network(3), network(3)
    recover(alone, items(), CONFIG)
    recover(taught, items(), CONFIG, teacher=teacher)
    assert apart(taught) < apart(alone)


def test_the_teacher_stays_as_it_was():
    teacher, small = network().train(), network(2)
    before = copy.deepcopy(teacher.state_dict())
    recover(small, items(), CONFIG, teacher=teacher)
    assert teacher.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not any(block._forward_hooks for block in (*teacher.blocks, *small.blocks))


def test_the_same_seed_gives_the_same_network():
    results = []
    for _ in range(2):
        small = network(2)
        recover(small, items(), CONFIG, teacher=network(), seed=3)
        results.append(small.state_dict())
    assert all(torch.equal(tensor, results[1][name]) for name, tensor in results[0].items())


def test_an_adapted_model_recovers_in_the_lines_of_the_readme():
    from monai.networks.nets import UNETR

    torch.manual_seed(0)
    net = UNETR(1, 3, img_size=32, spatial_dims=2, feature_size=4, hidden_size=24, mlp_dim=48, num_heads=2)
    model = vitrim.adapt(net)
    depth = vitrim.decide_depth(vitrim.profile_attention(model, torch.randn(6, 1, 32, 32))).depth
    small = vitrim.truncate(model, depth)
    training = vitrim.recover(small, items(), CONFIG, teacher=model)
    assert len(training.losses) == 6
    assert small.depth == depth < 12
    assert small(torch.randn(2, 1, 32, 32)).shape == (2, 3, 32, 32)


def test_a_teacher_of_other_classes_is_refused():
    with pytest.raises(InputError, match="logits differ in shape: teacher"):
        recover(network(2), items(), CONFIG, teacher=network(classes=4))


def test_blocks_that_the_teacher_does_not_have_are_refused():
    with pytest.raises(InputError, match="kept must name 2 of the teacher's 12 blocks"):
        recover(network(2), items(), CONFIG, teacher=network(), kept=(1, 13))
