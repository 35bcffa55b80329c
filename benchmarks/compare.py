"""What a step costs under other trainers: each in an environment of its own, against the loop, in turns.

Every script in `peers/` trains the same tiny MLP on the same batches and is timed against the careful
hand-written loop in the same process, A B A B; `peers/workload.py` says how. Results are kept in
`peers/results.json`, so trainers may be measured one at a time, and the page and its picture are written
from there.

    python benchmarks/compare.py [PEER ...] [--environments FOLDER] [--install] [--page docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "peers" / "results.json"
PACKAGES = {
    "treadle": (),
    "lightning": ("lightning",),
    "ignite": ("pytorch-ignite", "tqdm"),
    "accelerate": ("accelerate",),
    "huggingface": ("transformers", "accelerate"),
    "skorch": ("skorch",),
    "fastai": ("fastai",),
    "torchtnt": ("torchtnt", "setuptools<81"),
    "composer": ("mosaicml",),
    "keras": ("keras",),
}


def python_of(peer: str, environments: Path) -> Path:
    return Path(sys.executable) if peer == "treadle" else environments / peer / "bin" / "python"


def install(peer: str, environments: Path) -> None:
    """Make the environment of a peer, with the torch that Treadle is tested with."""
    python = python_of(peer, environments)
    if not python.exists():
        venv.create(environments / peer, with_pip=True)
    torch = next(
        line.strip()
        for line in (HERE.parent / "constraints.txt").read_text().splitlines()
        if line.startswith("torch==")
    )
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", torch, "numpy"]
    subprocess.run([*command, *PACKAGES[peer]], check=True)


def measured(peer: str, environments: Path) -> list[dict[str, Any]]:
    """The lines that a peer's script prints, or one that says why there are none."""
    script = HERE / "peers" / f"{peer}_.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "TQDM_MININTERVAL": "0.1"}
    done = subprocess.run(
        [str(python_of(peer, environments)), str(script)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"package"')]
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return [*lines, {"package": peer, "failed": reason[:200]}]
    return lines


def row(line: dict[str, Any]) -> str:
    name = f"{line['package']} {line['version']}"
    wall, processor = (statistics.quantiles(line[key], n=4) for key in ("wall", "processor"))
    return (
        f"| {name} | {line['configuration']} | **{processor[1]:.2f}** | "
        f"{processor[0]:.2f} to {processor[2]:.2f} "
        f"| {wall[1]:.2f} | {line['loss_difference']:.0e} |"
    )


def picture(lines: list[dict[str, Any]]) -> str:
    """Bars of the medians, as SVG text."""
    height, left, scale = 22, 300, 70.0
    bars = []
    for number, line in enumerate(lines):
        value = statistics.median(line["processor"])
        ours = line["package"] == "treadle"
        y = 24 + number * height
        label = f"{line['package']}, {line['configuration']}"
        bars.append(
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{label}</text>'
            f'<rect x="{left}" y="{y}" width="{value * scale:.1f}" height="16" '
            f'fill="{"#1f7a5c" if ours else "#8a94a0"}"/>'
            f'<text x="{left + value * scale + 6:.1f}" y="{y + 13}">{value:.2f}</text>'
        )
    width = left + int(max(statistics.median(line["processor"]) for line in lines) * scale) + 60
    bottom = 24 + len(lines) * height + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom}" font-family="sans-serif" '
        f'font-size="13"><rect width="{width}" height="{bottom}" fill="#ffffff"/>'
        f'<line x1="{left + scale}" x2="{left + scale}" y1="16" y2="{bottom - 4}" stroke="#c0392b" '
        f'stroke-dasharray="4 3"/><text x="{left + scale + 4}" y="14">the careful loop = 1</text>'
        f"{''.join(bars)}</svg>\n"
    )


def write_page(path: Path, results: dict[str, list[dict[str, Any]]]) -> None:
    lines = [line for peer in results.values() for line in peer if "failed" not in line]
    lines.sort(key=lambda line: statistics.median(line["processor"]))
    failed = [line for peer in results.values() for line in peer if "failed" in line]
    torch = lines[0]["torch"]
    parts = path.read_text().split("<!-- peers -->")
    table = [
        "| trainer | configuration | processor | quartiles | wall | loss, off by |",
        "|---|---|---|---|---|---|",
        *map(row, lines),
    ]
    table += [f"\nNot measured: {line['package']} ({line['failed']})." for line in failed]
    text = (
        f"\n\ntorch {torch}, one thread.\n\n![Cost of a step](benchmarks.svg)\n\n" + "\n".join(table) + "\n\n"
    )
    parts[1] = text
    path.write_text("<!-- peers -->".join(parts))
    path.with_suffix(".svg").write_text(picture(lines))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "peers", nargs="*", metavar="PEER", help=f"of {', '.join(PACKAGES)}; default: all made"
    )
    parser.add_argument("--environments", type=Path, default=HERE / "peers" / ".environments")
    parser.add_argument("--install", action="store_true", help="make missing environments first (large)")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    arguments = parser.parse_args()
    unknown = set(arguments.peers) - set(PACKAGES)
    if unknown:
        parser.error(f"no such trainer: {', '.join(sorted(unknown))}; there are {', '.join(PACKAGES)}")
    results: dict[str, list[dict[str, Any]]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for peer in arguments.peers or PACKAGES:
        if arguments.install and peer != "treadle":
            install(peer, arguments.environments)
        if not python_of(peer, arguments.environments).exists():
            print(f"{peer}: no environment; make it with --install")
            continue
        results[peer] = measured(peer, arguments.environments)
        for line in results[peer]:
            print(row(line) if "failed" not in line else f"{peer}: {line['failed']}", flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_page(arguments.page, results)


if __name__ == "__main__":
    main()
