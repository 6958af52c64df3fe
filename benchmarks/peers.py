"""fabulate against the libraries people would use instead, each in its own training loop: python benchmarks/peers.py

    --quick                    fewer repeats: about five minutes
    --peers diffusers pythae   only one of them
    --out PICTURE              where the bar chart goes (default: benchmarks/peers.png)

Diffusion against diffusers (peers_diffusers.py), the VAE and the GAN against pythae (peers_pythae.py). On equal
networks, batches and threads, in float32, in one process and in turns: machines drift, and what runs in turns drifts
alike. The ratio is of seconds, ours over theirs: below 1 we are faster. It is told as the median over repeats, with
the smallest and the largest.

The peers are no dependency of fabulate. They are installed into an environment of their own, in the system's folder
for temporary files (or --venv), which sees the packages that this one has, so torch is not installed again. pythae is
installed without its dependencies but for the two that are not here yet; it does not use torchvision.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from report import bars, told

import fabulate

HERE = Path(__file__).parent
PACKAGES = {  # of each peer: what pip is asked for
    "diffusers": [["diffusers"]],
    "pythae": [["imageio", "cloudpickle"], ["--no-deps", "pythae"]],
}


def environment(folder: Path, peers: list[str]) -> Path:
    """The Python of an environment that holds the peers and sees the packages of this one."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip())
    seen = [str(Path(module.__path__[0]).parent) for module in (fabulate, torch)]
    (packages / "seen.pth").write_text("\n".join(seen) + "\n")
    for peer in peers:
        if not (packages / peer).exists():
            for wanted in PACKAGES[peer]:
                pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
                subprocess.run([*pip, *wanted], check=True)
    return python


def measure(python: Path, peer: str, quick: bool) -> dict[str, Any]:
    """What the peer's own script tells: its heading, notes and rows."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured.json"
        command = [str(python), str(HERE / f"peers_{peer}.py"), str(out), *(["--quick"] if quick else [])]
        subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"TQDM_DISABLE": "1"})
        return json.loads(out.read_text())


def table(measured: dict[str, Any]) -> str:
    """The rows as Markdown, then the notes."""
    lines = [
        f"| against {measured['peer']} | theirs, images/s | ours, images/s | seconds, ours / theirs |",
        "|---|---|---|---|",
    ]
    for row in measured["rows"]:
        theirs, ours = (statistics.median(row[side]) for side in ("theirs", "ours"))
        lines.append(f"| {row['what']} | {theirs:,.0f} | {ours:,.0f} | {told(ratios(row))} |")
    return "\n".join([*lines, "", *(f"{note}  " for note in measured["notes"])])


def ratios(row: dict[str, Any]) -> list[float]:
    """Seconds of ours over seconds of theirs, pair by pair."""
    return [theirs / ours for theirs, ours in zip(row["theirs"], row["ours"], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", nargs="+", default=[*PACKAGES], choices=[*PACKAGES])
    parser.add_argument("--out", type=Path, default=HERE / "peers.png")
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "fabulate-peers")
    flags = parser.parse_args()
    python = environment(flags.venv, flags.peers)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    measured = []
    for peer in flags.peers:
        measured.append(measure(python, peer, flags.quick))
        print(table(measured[-1]) + "\n", flush=True)
    rows = {f"{row['what']} ({each['peer'].split()[0]})": ratios(row) for each in measured for row in each["rows"]}
    bars(rows, "seconds, ours / theirs; left of the line fabulate is faster", flags.out)


if __name__ == "__main__":
    main()
