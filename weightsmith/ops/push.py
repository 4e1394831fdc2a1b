"""Push a delta to the hub: plan what is uploaded, and to where; then send exactly that."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from weightsmith import fs
from weightsmith.checkpoint.content import inside
from weightsmith.checkpoint.layout import DELTA_INDEX, INDEXES, WEIGHTS
from weightsmith.checkpoint.sidecars import CARD, matches, may_be_pushed
from weightsmith.engine.manifest import LIMIT_NBYTES, Manifest, parse_manifest, target_card
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.errors import (
    AccessFault,
    BaseUnnamed,
    JsonInvalid,
    RepoHoldsModel,
    RepoIdInvalid,
    RepoIsPublic,
    RepoNotFound,
    RevisionNotBranch,
    SourceFault,
)
from weightsmith.hub import push as hub
from weightsmith.hub.connection import Connection, connect, list_branches, list_repo, read_file
from weightsmith.hub.push import Commit, Destination, Pushed, find_destination
from weightsmith.hub.resolve import DEFAULT_REVISION, is_repo_id, parse_hub_source
from weightsmith.ops.deltas.card import delta_card
from weightsmith.ops.deltas.local_paths import (
    hidden_texts,
    loaded_from,
    paths_of,
    require_no_paths,
    texts_to_hide,
)
from weightsmith.ops.job import Job
from weightsmith.ops.make_delta import MadeDelta
from weightsmith.plan.exact_record import FORM as EXACT
from weightsmith.progress import SILENCE, Progress

__all__ = [
    "DEFAULT_REVISION",
    "Push",
    "PushPlan",
    "Pushed",
    "Wish",
    "carry_out_push",
    "plan_push",
    "prepare_push",
    "push",
]

_HUBS_OWN: Final = ".gitattributes"
"""The hub makes it with every repository."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Where on the hub a delta is to be, and who may see it."""

    repo_id: str
    public: bool = False
    revision: str = DEFAULT_REVISION
    """A branch; one that is not there is made."""
    create_pr: bool = False


@dataclass(frozen=True, slots=True)
class PushPlan:
    """A push whose delta is not made yet."""

    wish: Wish
    connection: Connection
    destination: Destination
    names: tuple[str, ...]
    """Names of the files on the hub, in order; some may be missing, if the base has all of one."""
    paths: frozenset[str]
    """Paths of this machine that must not be in anything that is pushed."""
    notes: tuple[str, ...]
    """What a person should know, sentences."""

    @property
    def private(self) -> bool:
        """Whether the repository is private, or will be where it has to be made."""
        there = self.destination.listing
        return not self.wish.public if there is None else there.private

    def to_document(self) -> dict[str, Any]:
        """What is known of it."""
        return {
            "repo_id": self.wish.repo_id,
            "revision": self.wish.revision,
            "create_pr": self.wish.create_pr,
            "new_repo": self.destination.listing is None,
            "private": self.private,
            "files": list(self.names),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Push:
    """Everything that would be uploaded, and what is in the repository already."""

    plan: PushPlan
    commit: Commit
    card: str
    replaced: tuple[str, ...]
    """Names that are there already; `commit.deleted` are those of an earlier delta besides."""
    others: tuple[str, ...]
    """Files there that stay as they are."""

    @property
    def nbytes(self) -> int:
        """Of all files."""
        return sum(self.commit.sizes.values())


def push(
    job: Job,
    made: MadeDelta,
    repo_id: str,
    *,
    public: bool = False,
    revision: str = DEFAULT_REVISION,
    create_pr: bool = False,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> Pushed:
    """Send a delta that was just made to the hub, with a model card, in one commit.

    `job` is what `plan_make_delta` planned, `made` what running it did. The repository is private
    unless `public`; `revision` is a branch, or what a pull request is made against.
    Raises: as `plan_push`, `prepare_push` and `carry_out_push`.
    """
    plan = plan_push(job, Wish(repo_id, public, revision, create_pr), offline=offline)
    return carry_out_push(prepare_push(plan, made), progress)


def plan_push(job: Job, wish: Wish, *, offline: bool = False) -> PushPlan:
    """Decide where the delta of `job` is to go, before it is made; the hub is only looked at.

    Raises: RepoIdInvalid, RevisionNotFound, for names that cannot be; RevisionNotBranch;
    BaseUnnamed, if the delta does not say which repository its base is; LocalPathInside;
    RepoIsPublic, RepoHoldsModel; RepoNotFound, for a pull request without a repository; as
    `hub.push.find_destination`.
    """
    if not is_repo_id(wish.repo_id):
        raise RepoIdInvalid(repo=wish.repo_id)
    parse_hub_source(wish.repo_id, revision=wish.revision)
    delta = job.plan.delta
    if not delta.base_id:
        raise BaseUnnamed(repo=wish.repo_id, base=job.bindings.inputs["base"].label)
    paths = paths_of(job)
    there = job.bindings.sidecars
    texts = {n: there[n].read(LIMIT_NBYTES) for n in there if may_be_pushed(n)}
    require_no_paths({**texts, **texts_to_hide(job)}, paths)
    connection = connect(offline=offline)
    destination = find_destination(connection, wish.repo_id, wish.revision)
    listing = destination.listing
    _require_branch(connection, destination)
    names = [each.name for each in job.plan.shards]
    names += [DELTA_INDEX] if delta.form == EXACT else []
    renamed = target_card(texts)
    names += [renamed if name == CARD else name for name in texts]
    names += [MANIFEST, CARD]
    _require_fit(wish, destination, _earlier(connection, destination))
    notes = loaded_from(texts)
    if kept := [name for name in there if name not in texts]:
        notes.append(f"not pushed, as their purpose is not known: {', '.join(kept)}")
    if "@" not in delta.base_id:
        notes.append(f"{delta.base_id} may change on the hub: give `base_id` with a revision")
    notes += _missing_base(connection, delta.base_id)
    if wish.public and listing is not None and listing.private:
        notes.append(f"{wish.repo_id} is private, and stays so; its settings page can change that")
    return PushPlan(wish, connection, destination, tuple(names), paths, tuple(notes))


def prepare_push(plan: PushPlan, made: MadeDelta) -> Push:
    """Gather what goes up of a finished delta, and look at the hub anew.

    Raises: LocalPathInside; as `plan_push`, for what has changed there since.
    """
    wish, manifest = plan.wish, _as_pushed(made.manifest)
    card = delta_card(
        manifest,
        repo_id=wish.repo_id,
        revision=wish.revision,
        nbytes=made.nbytes,
        target_nbytes=made.target_nbytes,
    )
    renamed = target_card(manifest.sidecars)
    small = {
        renamed if name == CARD else name: fs.read_small(inside(made.target, name), LIMIT_NBYTES)
        for name in manifest.sidecars
    }
    small |= {MANIFEST: manifest.to_bytes(), CARD: card.encode()}
    require_no_paths({**small, **hidden_texts(manifest)}, plan.paths)
    files: dict[str, Path | bytes] = {name: made.target / name for name in manifest.files}
    files |= small
    destination = find_destination(plan.connection, wish.repo_id, wish.revision)
    earlier = _earlier(plan.connection, destination)
    _require_fit(wish, destination, earlier)
    there = destination.listing.files if destination.listing is not None else ()
    names = {file.name for file in there} - {_HUBS_OWN}
    stale = (names & earlier) - files.keys()
    base = manifest.delta["base"]["id"] if manifest.delta is not None else ""
    commit = Commit(
        message=f"Delta on {base}, made by {manifest.made_by}",
        files=files,
        deleted=tuple(sorted(stale)),
        private=not wish.public,
        create_pr=wish.create_pr,
    )
    current = replace(plan, destination=destination, names=tuple(files))
    replaced, others = names & files.keys(), names - files.keys() - stale
    return Push(current, commit, card, tuple(sorted(replaced)), tuple(sorted(others)))


def _as_pushed(manifest: Manifest) -> Manifest:
    """The record of a delta without the files that stay here."""
    own = {n: each for n, each in manifest.sidecars.items() if n == DELTA_INDEX or may_be_pushed(n)}
    return replace(manifest, sidecars=own)


def carry_out_push(push: Push, progress: Progress = SILENCE) -> Pushed:
    """Send what was prepared, in one commit, and compare what the hub has then.

    The local delta is only read, whatever happens.
    Raises: as `hub.push.push`.
    """
    return hub.push(push.plan.connection, push.plan.destination, push.commit, progress)


def _require_branch(connection: Connection, destination: Destination) -> None:
    """Raises: RevisionNotBranch, if commits cannot be added to what has the revision's name."""
    repo_id, revision = destination.repo_id, destination.revision
    to_be_made = destination.listing is None or destination.new_branch
    if to_be_made or revision == DEFAULT_REVISION or revision in list_branches(connection, repo_id):
        return
    raise RevisionNotBranch(revision=revision)


def _missing_base(connection: Connection, base_id: str) -> list[str]:
    """A warning, if those who want to apply the delta cannot find its base on the hub."""
    repo_id, _, revision = base_id.partition("@")
    try:
        list_repo(connection, repo_id, revision or DEFAULT_REVISION)
    except SourceFault as error:
        return [f"others cannot find the base on the hub: {error}"]
    except AccessFault:
        pass  # it is there, for those who may see it
    return []


def _earlier(connection: Connection, destination: Destination) -> frozenset[str]:
    """Names of the files of the delta of ours that is there, if any; a new one takes its place.

    Raises: as `hub.connection.read_file`.
    """
    there = destination.listing
    if there is None:
        return frozenset()
    for file in [each for each in there.files if each.name == MANIFEST]:
        with contextlib.suppress(JsonInvalid):  # then it is not ours
            manifest = parse_manifest(read_file(connection, there, file), Path(MANIFEST))
            if manifest.delta is not None:
                sidecars = manifest.sidecars
                return frozenset({*manifest.files, *sidecars, target_card(sidecars)})
    return frozenset()


def _require_fit(wish: Wish, destination: Destination, earlier: frozenset[str]) -> None:
    """Refuse a public repository for a private push, and one that holds a model.

    Raises: RepoNotFound, RepoIsPublic, RepoHoldsModel.
    """
    there = destination.listing
    if there is None:
        if wish.create_pr:
            hint = "leave out `create_pr=True`, and it is made"
            raise RepoNotFound(repo=wish.repo_id, hint=hint)
        return
    if not there.private and not wish.public:
        raise RepoIsPublic(repo=wish.repo_id)
    foreign = sorted({file.name for file in there.files if "/" not in file.name} - earlier)
    if models := [name for name in foreign if matches(name, (*INDEXES, *WEIGHTS))]:
        raise RepoHoldsModel(repo=wish.repo_id, file=models[0], context=models[1:])
