"""Peak memory, measured in a process of its own: in one that did other work before, it would be that work's."""

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def peak_of(code: str, *words: str) -> int | None:
    """Peak memory in bytes of a fresh Python that runs `code`, with `words` as its arguments.

    None where the system does not tell, or if the process ended before it could.
    """
    told = f"{code}\nfrom mofme.vision.peak_memory import print_own_peak\nprint_own_peak()"
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    answer = subprocess.run(
        [sys.executable, "-c", told, *words], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    lines = answer.stdout.split()
    return int(lines[-1]) if lines and answer.returncode == 0 else None


def print_own_peak() -> None:
    """Print this process's peak memory in bytes; nothing where the system does not tell."""
    # Not getrusage: its maximum goes from a parent to its children, so a large parent would hide them all.
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        print(1024 * int(peak.split()[1]))
