"""Published files straight from the hub: `hub:`, `hub:REPOSITORY` or `hub:REPOSITORY@REVISION` instead of a folder.

They lie beside the hub's own cache afterwards, archives unpacked. A second call fetches only what has changed, and without a net goes on
with what is there.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

from pixelis.core.errors import ConfigError, DataError, NotInstalled
from pixelis.eval.bench.base import Source
from pixelis.eval.bench.files import how_to_get
from pixelis.eval.bench.report import benchmark_of

PREFIX = "hub:"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_UNPACKED = ".unpacked"
"""Ending of the mark beside an archive that has been unpacked whole."""


def local_folder(name: str, place: str) -> Path:
    """Where a benchmark's files lie: a folder as it is; a place on the hub only after it was downloaded and unpacked.

    Args:
        name: one of `BENCHMARKS`.
        place: a folder, or `hub:` and nothing (the benchmark's known data set), a repository, a revision behind @, or both.

    Raises:
        ConfigError: no such benchmark, or a place of another form.
        DataError: the hub cannot be reached, has no such data set or does not give it out, or an archive is damaged.
        NotInstalled: huggingface_hub is missing.
    """
    if not place.startswith(PREFIX):
        return Path(place)
    source = benchmark_of(name).SOURCE
    repo, _, revision = place.removeprefix(PREFIX).partition("@")
    if repo and not _REPOSITORY.fullmatch(repo):
        raise ConfigError(f"{place!r} names no data set of the hub; wanted is {PREFIX}, {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION")
    repo = repo or source.hub
    if repo is None:
        raise DataError(f"{name} is not published on the hub. {how_to_get(source, Path(name), None)}, and give the folder {name}")
    folder = _fetch(source, repo, revision or None)
    for archive in sorted(folder.rglob("*.zip")):
        _unpack(archive)
    return folder


def _fetch(source: Source, repo: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import constants, errors, snapshot_download
    except ImportError:
        raise NotInstalled("huggingface_hub, which fetches data sets,", "pip install huggingface_hub") from None
    at = f"{repo}@{revision}" if revision else repo
    folder = Path(constants.HF_HOME) / "pixelis" / at.replace("/", "--")
    by_hand = how_to_get(source, folder, repo)
    try:
        snapshot_download(repo, repo_type="dataset", revision=revision, local_dir=folder, allow_patterns=list(source.patterns))
    except errors.GatedRepoError:
        page = f"https://huggingface.co/datasets/{repo}"
        raise DataError(f"{repo} gives its files only to those who ask: do so on {page}, log in (hf auth login) and repeat") from None
    except errors.RepositoryNotFoundError:
        raise DataError(f"the hub has no data set {repo} that you may see: check the name, or log in (hf auth login)") from None
    except errors.HFValidationError:
        raise ConfigError(f"{repo!r} can be no data set of the hub: wanted is OWNER/NAME") from None
    except errors.RevisionNotFoundError:
        raise DataError(f"{repo} has no revision {revision}: name a branch, a tag or a commit of it") from None
    except (OSError, errors.HTTPError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DataError(f"{at} cannot be fetched ({reason}). {by_hand}; then give that folder") from None
    return folder


def _unpack(archive: Path) -> None:
    """Unpack an archive where it lies, once for each version of it."""
    mark = archive.with_name(archive.name + _UNPACKED)
    if mark.exists() and mark.stat().st_mtime >= archive.stat().st_mtime:
        return
    try:
        with zipfile.ZipFile(archive) as whole:
            whole.extractall(archive.parent)
        mark.touch()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:  # RuntimeError: locked, or packed in an unknown way
        raise DataError(f"{archive}: cannot be unpacked ({error}): make room, or delete it and fetch it again") from None
