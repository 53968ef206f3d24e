"""The label of a pixel is the class of its largest logit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrim.evaluation.segment import labels_of


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_of_equal_logits_the_first_class_is_taken(kind: torch.dtype, layout: torch.memory_format) -> None:
    logits = torch.randint(0, 3, (2, 5, 33, 20), generator=torch.Generator().manual_seed(0)).to(kind)
    found = labels_of(logits.contiguous(memory_format=layout))
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), logits.float().numpy().argmax(axis=1))
