"""A real Ray cluster on this machine, in a process of its own; each node may have a flaw.

    python -m tests.support.ray_cluster FLAWS.json -- COMMAND...

One node of one CPU, and one more for each entry of FLAWS, with its variables. Runs the command with
``ADDRESS`` in it replaced. A node whose ``NODE_BLOCKS`` names a file stops at the rename of the
first file that it makes; once that file is there, the node is killed, or with ``NODE_INTERRUPTS``
the command interrupted, as by Ctrl-C. Exits as the command does.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.paths import ROOT

SHARD_NBYTES: Final = 30_000
"""Small, so that there are files enough for two nodes."""

SITE = """
import os, sys
if marker := os.environ.get("NODE_BLOCKS"):
    def block(event, args):
        if event == "os.rename" and "/shares/" in str(args[0]):
            open(marker, "w").close()
            import threading
            threading.Event().wait()
    sys.addaudithook(block)
if version := os.environ.get("NODE_VERSION"):
    import weightsmith.version
    weightsmith.version.__version__ = version
if hidden := os.environ.get("NODE_HIDES"):
    there = os.path.lexists
    os.path.lexists = lambda path: not str(path).startswith(hidden) and there(path)
if limit := os.environ.get("NODE_FILE_LIMIT"):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
if cpu := os.environ.get("NODE_CPU"):
    from weightsmith.engine import receipts
    receipts.processor = lambda: cpu
if version := os.environ.get("RAY_IS"):
    import ray
    ray.__version__ = version
"""
"""What a node's Python runs when it starts, and the command's."""


def run_on(
    home: Path,
    flaws: Sequence[Mapping[str, str]],
    *args: str,
    env: Mapping[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run a command on a cluster whose further nodes have these flaws; `env` is for all of it."""
    (home / "flaws.json").write_text(json.dumps(list(flaws)))
    line = [sys.executable, "-m", "tests.support.ray_cluster", str(home / "flaws.json"), "--"]
    line += [sys.executable, "-m", "weightsmith", *args]
    line += ["--executor", "ray", "--ray-address", "ADDRESS"]
    line += ["--max-shard-size", f"{SHARD_NBYTES}B"]
    environment = {
        **(os.environ if env is None else env),
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "2",
    }
    return subprocess.run(
        line, capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )


def main(flaws: str, command: list[str]) -> int:
    """Start the nodes, run the command, end the nodes."""
    from ray.cluster_utils import Cluster

    folder = Path(flaws).parent / "site"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITE)
    Path("/tmp/ray").mkdir(exist_ok=True)  # noqa: S108  (Ray's)
    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}
    head = {**small, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = []
        paths = os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])
        for each in json.loads(Path(flaws).read_text(encoding="utf-8")):
            node = cluster.add_node(**small, env_vars={"PYTHONPATH": paths, **each})
            nodes.append((node, each))
        line = [word.replace("ADDRESS", cluster.address) for word in command]
        ours = {**os.environ, "PYTHONPATH": paths}
        if version := os.environ.get("COMMAND_RAY_IS"):
            ours["RAY_IS"] = version
        running = subprocess.Popen(line, env=ours)
        for node, each in nodes:
            if marker := each.get("NODE_BLOCKS"):
                while not Path(marker).exists() and running.poll() is None:
                    threading.Event().wait(0.05)
                if each.get("NODE_INTERRUPTS"):
                    running.send_signal(signal.SIGINT)
                else:
                    cluster.remove_node(node, allow_graceful=False)
        return running.wait()
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[3:]))
