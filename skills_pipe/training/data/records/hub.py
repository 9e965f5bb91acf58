"""Datasets of the Hugging Face hub: which files they have, and those files on this machine."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from skills_pipe.errors import DataError, first_line
from skills_pipe.training.config.dataset_names import is_data_file
from skills_pipe.training.data.records.splits import CARD, Wanted, files_of_split

_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SHARD: Final = re.compile(r"-\d{5}-of-(\d{5})")
_CONVERTED: Final = "refs/convert/parquet"
"""Where the hub keeps each dataset as Parquet files, in folders by subset and split."""


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """A dataset of the hub.

    Attributes:
        repo: its id, ``organisation/name``.
        revision: branch, tag or commit; None: main.
        cache: folder for downloads, None for the usual one.
    """

    repo: str
    revision: str | None = None
    cache: str | None = None

    def download(self, wanted: Wanted) -> list[Path]:
        """The files of a split on this machine; those that are not there yet are downloaded.

        Without a connection, or with HF_HUB_OFFLINE, what earlier downloads left is used.

        Raises:
            DataError: there is no such dataset, subset or split, or it cannot be reached and is not here.
        """
        listing = self._listing(self.revision)
        if self.revision is None and not any(map(is_data_file, listing.names)):
            listing = self._listing(_CONVERTED)
        card = listing.files([CARD])[0].read_text(encoding="utf-8") if CARD in listing.names else None
        return listing.files(files_of_split(listing.names, card, wanted))

    def _listing(self, revision: str | None) -> _Listing:
        try:
            info = HfApi().dataset_info(self.repo, revision=revision)
        except OfflineModeIsEnabled as error:
            return self._kept(revision, error)
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
            raise self._refused(error, revision) from error
        except HfHubHTTPError as error:
            raise DataError(f"the hub refuses the dataset: {first_line(error)}", where=self.repo) from error
        except Exception as error:
            if not _is_lost_connection(error):
                raise
            return self._kept(revision, error)
        names = [file.rfilename for file in info.siblings or []]
        return _Listing(dataset=self, names=names, revision=revision)

    def _kept(self, revision: str | None, error: Exception) -> _Listing:
        """What is here of a dataset that cannot be reached."""
        try:
            folder = Path(
                snapshot_download(
                    self.repo,
                    repo_type="dataset",
                    revision=revision,
                    cache_dir=self.cache,
                    local_files_only=True,
                    allow_patterns=[CARD],  # the folder is wanted, even where other splits were never downloaded
                )
            )
        except LocalEntryNotFoundError:
            raise DataError(
                f"the dataset is not on this machine, and the hub cannot be reached: {first_line(error)}",
                where=self.repo,
                fix="download it where there is a connection (hf download --repo-type dataset), or check the path",
            ) from error
        names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        return _Listing(dataset=self, names=names, revision=revision, folder=folder)

    def _refused(self, error: Exception, revision: str | None) -> DataError:
        if isinstance(error, GatedRepoError):
            return _gated(self.repo)
        if isinstance(error, RevisionNotFoundError):
            return DataError(f"the dataset has no revision {revision!r}", where=self.repo)
        fix = "check the name; private datasets need HF_TOKEN"
        return DataError("there is no such file here, and no such dataset on the hub", where=self.repo, fix=fix)


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """The files of a revision: on the hub, or in ``folder`` where that cannot be reached."""

    dataset: HubDataset
    names: list[str]
    revision: str | None
    folder: Path | None = None

    def files(self, names: list[str]) -> list[Path]:
        """Some of them on this machine."""
        if self.folder is not None:
            _check_complete(names, self.dataset.repo)
            return [self.folder / name for name in names]
        try:
            folder = snapshot_download(
                self.dataset.repo,
                repo_type="dataset",
                revision=self.revision,
                cache_dir=self.dataset.cache,
                allow_patterns=[glob.escape(name) for name in names],
            )
        except GatedRepoError as error:
            raise _gated(self.dataset.repo) from error
        except Exception as error:
            if not isinstance(error, (HfHubHTTPError, LocalEntryNotFoundError)) and not _is_lost_connection(error):
                raise
            raise DataError(f"the files cannot be downloaded: {first_line(error)}", where=self.dataset.repo) from error
        return [Path(folder, name) for name in names]


def is_hub_id(text: str) -> bool:
    """Whether a text can be the id of a dataset on the hub, and is no name of a file."""
    return _ID.fullmatch(text) is not None and not is_data_file(text)


def _check_complete(names: list[str], repo: str) -> None:
    """A download that broke off leaves some shards of a split: they are not the split."""
    for name in names:
        shard = _SHARD.search(name)
        if shard and sum(other.startswith(f"{name[: shard.start()]}-") for other in names) != int(shard[1]):
            raise DataError(
                f"of the {int(shard[1])} files {name[: shard.start()]}-... only some are on this machine",
                where=repo,
                fix="download it again where there is a connection",
            )


def _gated(repo: str) -> DataError:
    return DataError("the dataset is gated", where=repo, fix="accept its terms on the hub, and set HF_TOKEN")


def _is_lost_connection(error: Exception) -> bool:
    """Whether the hub could not be talked to; its client is httpx or a successor, by version of huggingface_hub."""
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)
