"""Check that several processes can sum a tensor together: do they connect, is the sum right, and how fast is it?"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from ragcun_cli.errors import EnvironmentUnfit, RagcunError
from ragcun_cli.preflight.answering import OutOfTime, ask
from ragcun_cli.preflight.checks import FAILED, OK, Check, failed
from ragcun_cli.quantities import shown_bytes

TENSOR_BYTES = 128 << 20  # a third of BERT's gradients
ROUNDS = 5
NAME = "collective"


def check_collective(processes: int, scratch: Path, deadline: float) -> Check:
    """Check with torch.distributed.run and the backend that training uses: NCCL on GPUs, gloo on a CPU."""
    arguments = ["--standalone", f"--nproc-per-node={processes}", "-m", "ragcun_cli.preflight.collective"]
    try:
        said = ask("torch.distributed.run", arguments, scratch / "collective.log", deadline)
        if not said:
            raise EnvironmentUnfit("the processes printed nothing")
    except OutOfTime:
        return Check(NAME, FAILED, f"{processes} processes did not find each other", "NCCL_DEBUG=INFO shows why.")
    except RagcunError as error:
        return failed(NAME, error)
    rate = f"{shown_bytes(TENSOR_BYTES)} summed at {said['rate'] / 1e9:.2f} GB/s"
    seen = f"{processes} processes, {said['backend']}: {rate}"
    if not said["right"]:
        return Check(NAME, FAILED, f"{seen}: the sum is wrong", "Try NCCL_P2P_DISABLE=1; otherwise a GPU is faulty.")
    return Check(NAME, OK, seen)


def main() -> None:
    """Check and time an all-reduce in each process. The rate is that of the bus: 2 (n - 1) / n of a tensor's bytes per
    round, which does not depend on the number of processes n.
    """
    import torch
    from torch import distributed

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend = "nccl" if on_gpu else "gloo"
    distributed.init_process_group(backend)
    tensor = torch.empty(TENSOR_BYTES // 4, device=device)
    seconds, right = [], True
    for _ in range(ROUNDS):
        tensor.fill_(rank + 1)
        distributed.barrier()
        started = time.perf_counter()
        distributed.all_reduce(tensor)
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
        right = right and bool((tensor == size * (size + 1) / 2).all())
    rate = 2 * (size - 1) / size * TENSOR_BYTES / min(seconds)
    verdict = torch.tensor([0.0 if right else 1.0], device=device)
    distributed.all_reduce(verdict)
    distributed.destroy_process_group()
    if rank == 0:
        print(json.dumps({"backend": backend, "rate": rate, "right": verdict.item() == 0}))


if __name__ == "__main__":
    main()
