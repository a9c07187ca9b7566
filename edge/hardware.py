"""Which machine a figure was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def hardware() -> str:
    """Return the processor and core count, in words."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {os.cpu_count()} cores, {platform.machine()}"
