"""All measurements of speed, one after the other: python benchmarks [--quick]

Half an hour on two cores, ten minutes with --quick. The proofs of the uses (outliers.py, augment_mnist.py,
debias_mnist.py, rare_event.py, rare_problems.py) are run one by one.
"""

import subprocess
import sys
from pathlib import Path

import torch

QUICK = {
    "speed.py": ["--epochs", "2", "--repeats", "2"],
    "growth.py": ["--steps", "100"],
    "processes.py": ["--quick"],
    "peers.py": ["--quick"],
    "gpu.py": ["--steps", "100"],
}


def main() -> None:
    for name, quick in QUICK.items():
        print(f"\n## {name}\n", flush=True)
        if name == "gpu.py" and not torch.cuda.is_available():
            print("Not measured on a GPU.")
            continue
        flags = quick if "--quick" in sys.argv[1:] else []
        subprocess.run([sys.executable, str(Path(__file__).with_name(name)), *flags], check=True)


if __name__ == "__main__":
    main()
