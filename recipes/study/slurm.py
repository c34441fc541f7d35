"""The parts of a study as arrays of jobs of Slurm, by submitit: the networks, and after them the cells."""

import json
import subprocess
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..support.errors import UserError
from .layout import Model
from .run import Work


def submit(work: Work, parameters: Sequence[str], cluster: str = "slurm") -> list[Any]:
    """Submit what is open of a study, one job a part, and return submitit's jobs, those of networks first.

    Args:
        work: the study.
        parameters: of the jobs, as `slurm_partition=gpu`, `timeout_min=120` (see submitit's AutoExecutor).
        cluster: submitit's name of where to submit.

    Raises:
        UserError: submitit is not installed, there is no Slurm here, or a parameter is not known.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError(f"--submit needs submitit: pip install 'sitkit[slurm]' ({error})") from error
    wanted = dict(map(_parameter, parameters))
    todo = work.open_parts()
    networks = [key for key, one in todo.items() if isinstance(one, Model)]
    cells = [key for key in todo if key not in networks]
    jobs: list[Any] = []
    try:
        executor = submitit.AutoExecutor(folder=work.folder.path / "slurm", cluster=cluster)
        executor.update_parameters(name="sitkit-study", **wanted)
        for keys in filter(None, (networks, cells)):
            if jobs and cluster == "slurm":  # others have no such order
                array = jobs[0].job_id.partition("_")[0]
                executor.update_parameters(slurm_dependency=f"afterany:{array}")
            with executor.batch():
                submitted = [executor.submit(partial(subprocess.run, work.words_of(key), check=True)) for key in keys]
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
