"""What the processor can do with numbers of fewer bits."""

from __future__ import annotations

import torch


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 in hardware (AVX512-BF16 or AMX); emulated, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
