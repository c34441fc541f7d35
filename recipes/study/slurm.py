"""A study as two job arrays of Slurm, by submitit: the networks, and after them the cells."""

import json
import subprocess
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..support.errors import UserError
from .run import StudyRun


def submit(run: StudyRun, parameters: Sequence[str], cluster: str = "slurm") -> list[Any]:
    """Submit the open parts of a study, a job each, and return submitit's jobs, networks first.

    Args:
        run: the study.
        parameters: of the jobs, as `slurm_partition=gpu` or `timeout_min=120` (see submitit's AutoExecutor).
        cluster: submitit's name of the cluster.

    Raises:
        UserError: submitit is not installed, there is no Slurm here, or a parameter is unknown.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError(f"--submit needs submitit: pip install 'sitkit[slurm]' ({error})") from error
    wanted = dict(map(_parameter, parameters))
    networks, cells = run.open_parts()
    jobs: list[Any] = []
    try:
        executor = submitit.AutoExecutor(folder=run.folder.path / "slurm", cluster=cluster)
        executor.update_parameters(name="sitkit-study", **wanted)
        for keys in ([*part] for part in (networks, cells) if part):
            if jobs and cluster == "slurm":  # other clusters have no dependencies
                array = jobs[0].job_id.partition("_")[0]
                executor.update_parameters(slurm_dependency=f"afterany:{array}")
            with executor.batch():
                calls = [partial(subprocess.run, run.command([key]), check=True) for key in keys]
                submitted = [executor.submit(call) for call in calls]
            jobs += submitted
    except (RuntimeError, NameError, TypeError, ValueError, OSError, AssertionError) as error:
        raise UserError(f"--submit {cluster}: {str(error).splitlines()[0]}") from error
    return jobs


def _parameter(text: str) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise UserError(f"--slurm takes NAME=VALUE, such as slurm_partition=gpu, got '{text}'")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
