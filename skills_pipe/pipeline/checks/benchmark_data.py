"""Where benchmark data lies: ``{data_dir}/<benchmark>/<split>.jsonl``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import skills_pipe
from skills_pipe.errors import OptionError, did_you_mean
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.cluster.paths import PathMap
from skills_pipe.pipeline.options.declaration import option

ENV_DATA_DIR = "NEMO_SKILLS_DATA_DIR"
DEFAULT_SPLIT = "test"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Benchmark data."""

    data_dir: str | None = option(
        None,
        metavar="PATH",
        env=ENV_DATA_DIR,
        help="folder for the data of benchmarks, as jobs see it; by default benchmarks in the folder of run records",
    )


def data_dir_of(options: DataOptions, cluster: ClusterConfig) -> str:
    """The folder with the data of all benchmarks.

    Raises:
        OptionError: none is named, and jobs do not see the folder of run records.
    """
    if options.data_dir:
        return cluster.absolute(options.data_dir)
    folder = PathMap.of(cluster).to_container(f"{cluster.job_dir}/benchmarks")
    if folder is None:
        raise OptionError("--data_dir is missing", fix=f"name a mounted folder, or set {ENV_DATA_DIR}")
    return folder


def check_names(names: tuple[str, ...], *, where: str) -> None:
    """Refuse unknown benchmarks and those named twice.

    Raises:
        OptionError: some are; all of them are told.
    """
    # Folders tell the names: importing the package of evaluation would take far longer than everything else here.
    folder = Path(skills_pipe.__file__).parent / "evaluation" / "benchmarks"
    known = sorted(path.parent.name for path in folder.glob("*/benchmark.yaml"))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(f"benchmark {twice[0]!r} is named twice", where=where, fix="name it once")
    unknown = [name for name in names if name not in known]
    if unknown:
        advice = did_you_mean(unknown[0], known) or f"choose from {', '.join(known)}"
        raise OptionError(f"there is no benchmark {', '.join(map(repr, unknown))}", where=where, fix=advice)
