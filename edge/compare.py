"""Results of ``python -m edge profile`` side by side, as a table and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge.errors import SerError

STAGES = ("resample", "gate", "features", "model", "smoothing")


def compare(paths: list[Path]) -> str:
    """Return two or more results side by side, with each one's ratio to the first."""
    results = [_load(path) for path in paths]
    rows: list[tuple[str, list[float]]] = []
    for key in ("speech_cpu_s_per_audio_s", "silence_cpu_s_per_audio_s"):
        rows.append((key, [r["runs"][0][key] for r in results]))
    for stage in (*STAGES, "hop"):
        for key in ("p50_ms", "p99_ms"):
            rows.append((f"{stage} {key}", [r["runs"][0]["stages"][stage][key] for r in results]))
    for key in ("total_cpu_s", "peak_memory_mb"):
        rows.append((key, [r["cold_start"][key] for r in results]))
    lines = [f"{'':28}" + "".join(f"{path.stem[:18]:>20}" for path in paths)]
    for name, values in rows:
        cells = [
            f"{value:.5g} ({value / values[0]:.2f})" if values[0] else f"{value:.5g}"
            for value in values
        ]
        lines.append(f"{name:28}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def picture(paths: list[Path], out: Path) -> None:
    """Draw what each stage costs, a bar for each run."""
    from edge.report import pyplot

    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.5 * sum(len(_load(p)["runs"]) for p in paths)))
    names: list[str] = []
    for path in paths:
        for run in _load(path)["runs"]:
            left, y = 0.0, len(names)
            for n, stage in enumerate(STAGES):
                cost = 1e3 * run["stages"][stage]["cpu_s_per_audio_s"]
                label = stage if not names else None
                axes.barh(y, cost, left=left, color=f"C{n}", label=label)
                left += cost
            title = run["model"].removesuffix(".tflite")
            names.append(f"{path.stem}: {title}, {run['n_threads']} thr.")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("CPU milliseconds per second of speech")
    axes.legend(ncols=len(STAGES), loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False)
    figure.savefig(out, dpi=120, bbox_inches="tight")


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["runs"][0]["stages"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise SerError(f"{path}: expected a result of python -m edge profile ({error})") from error
    return dict(found)
