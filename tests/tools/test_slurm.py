"""tools/slurm.sbatch with stand-ins for Slurm, the driver and torchrun: what each machine would
start."""

import os
import shutil
import subprocess

STAND_INS = {
    "scontrol": "echo node1; echo node2",
    "nvidia-smi": "echo GPU 0; echo GPU 1",
    "srun": 'shift; exec "$@"',  # behind --kill-on-bad-exit=1
    "torchrun": 'echo "$@"',
}


def test_every_machine_starts_a_process_per_gpu_that_meets_at_the_first(repo, tmp_path):
    for name, script in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[1-4]", "SLURM_JOB_NUM_NODES": "4", "SLURM_JOB_ID": "77"}
    command = [
        shutil.which("bash"),
        repo / "tools" / "slurm.sbatch",
        "--cfg",
        "mine.yaml",
        "OUTPUT_DIR",
        "/runs/a b",
    ]

    done = subprocess.run(
        command,
        env=os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    (arguments,) = done.stdout.splitlines()
    assert "--nnodes 4 --nproc_per_node 2 --max-restarts 3" in arguments
    assert "--rdzv_id 77 --rdzv_endpoint node1:29400" in arguments
    assert arguments.endswith("tools/train_net.py --cfg mine.yaml OUTPUT_DIR /runs/a b")
