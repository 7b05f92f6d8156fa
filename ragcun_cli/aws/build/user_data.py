"""The user data of a machine: boot.sh with the run's settings. Anybody on it can read them: there is no secret."""

from __future__ import annotations

import shlex
from pathlib import Path

from ragcun_cli.aws.plan import LaunchPlan

SCRIPT = Path(__file__).resolve().parent.parent / "machine" / "boot.sh"
MARK = "@SETTINGS@"
LARGEST = 16 * 1024  # bytes, AWS's limit


def build_user_data(plan: LaunchPlan, code: str, attempt: int, end: float, hours: float) -> str:
    """code: sha256 of the archive. end: seconds since 1970 at which --max-hours is over, in so many hours."""
    job, wishes = plan.job, plan.wishes
    settings = {
        "RAGCUN_RUN": plan.run,
        "RAGCUN_ACCOUNT": plan.account,
        "RAGCUN_BUCKET": plan.bucket,
        "RAGCUN_PREFIX": plan.prefix,
        "AWS_DEFAULT_REGION": plan.home,
        "RAGCUN_CODE": code,
        "RAGCUN_ATTEMPT": attempt,
        "RAGCUN_NODES": wishes.nodes,
        "RAGCUN_SEEDS": ",".join(map(str, job.seeds)),
        "RAGCUN_DATASETS": job.datasets,
        "RAGCUN_DOWNLOADS": " ".join(job.downloads),
        "RAGCUN_PRECISION": job.precision,
        "RAGCUN_CACHE_LIMIT": f"{max(plan.disk // 2, 10)}GiB",
        "RAGCUN_GPUS": plan.instance.gpus,
        "RAGCUN_IDLE_MINUTES": wishes.idle_minutes,
        "RAGCUN_MAX_MINUTES": max(1, int(hours * 60)),
        "RAGCUN_END": int(end),
    }
    lines = [f"export {name}={shlex.quote(str(value))}" for name, value in settings.items()]
    text = SCRIPT.read_text(encoding="utf-8").replace(MARK, "\n".join(lines))
    assert len(text.encode()) < LARGEST
    return text
