"""What the machine is and how it feels: for result files, and for counters on the screen."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def description() -> dict[str, Any]:
    """Return what a timing depends on; what the system does not tell is None."""
    return {
        "processor": _processor(),
        "n_cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        **condition(),
    }


def hardware() -> str:
    """Return the processor and core count, in words."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.machine()}"


def condition() -> dict[str, Any]:
    """Return clock in MHz, temperature in degrees Celsius, and throttling, where they are told."""
    clock = _number("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    heat = _number("/sys/class/thermal/thermal_zone0/temp")
    # Raspberry Pi: bits 0 to 3 are under-voltage, capped, throttled and soft limit, now.
    bits = _text("/sys/devices/platform/soc/soc:firmware/get_throttled")
    return {
        "clock_mhz": None if clock is None else clock / 1e3,
        "temperature_c": None if heat is None else heat / 1e3,
        "throttled": None if bits is None else bool(int(bits, 16) & 0xF),
    }


def peak_memory_mb() -> float:
    """Return the most memory that this process has held so far."""
    # Not getrusage where there is /proc: that begins with the peak of the parent process.
    for line in (_text("/proc/self/status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)  # bytes there, KB here


def memory_mb() -> float:
    """Return the memory that this process holds now; on systems without /proc, the peak."""
    pages = _text("/proc/self/statm")
    if pages is None:
        return peak_memory_mb()
    return round(int(pages.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


class CpuShare:
    """Processor time of this process as a share of one core's, since it was asked last."""

    def __init__(self) -> None:
        self._last = (time.monotonic(), time.process_time())

    def __call__(self) -> float:
        now = (time.monotonic(), time.process_time())
        (t0, c0), self._last = self._last, now
        return (now[1] - c0) / (now[0] - t0) if now[0] > t0 else 0.0


def _processor() -> str:
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _number(path: str) -> float | None:
    text = _text(path)
    return None if text is None else float(text)
