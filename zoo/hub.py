"""Upload of a checkpoint to a repository of the Hugging Face hub, from which `zoo.load` can read it.

Only the files in `checkpoint_config.FILES` are uploaded. They hold numbers and text, no pickles. Fast to import.
"""

import re
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from zoo import catalog, checkpoint_config
from zoo.checkpoint_config import CARD, FILES
from zoo.errors import ZooError
from zoo.source import Source
from zoo.source_files import LightningFile, hub_place

FRONT_MATTER = re.compile(r"\s*---\r?\n.*?(?<=\n)---\s*?(\n|\Z)", re.DOTALL)
LOG_IN = "run `hf auth login`, or set HF_TOKEN, with a token that has write permission"


def push(source: str | Path | Source, target: str, private: bool = False, message: str | None = None) -> str:
    """Verify a checkpoint and upload it to the Hugging Face hub in one commit.

    The repository is created if it does not exist. An older checkpoint in the target is replaced; its model card is
    kept if the new checkpoint has none. Other files are not changed. There is no commit if the target already holds the
    same files.

    Args:
        source: A zoo name, a zoo checkpoint's folder, a folder of steps, a run's folder, or a Lightning .ckpt.
        target: hf:org/repo[/folder][@branch]; the branch is created if it does not exist.
        private: Whether the repository has to be private; an existing public repository is then refused.
        message: Message of the commit; by default the class and its training step.

    Returns:
        The address of the commit.

    Raises:
        ZooError: If the source is missing, damaged or not a checkpoint of the zoo, if the target is not valid, holds
            another model or cannot be written with your token, or if the hub cannot be reached.
    """
    repo, folder, branch = _place(target)
    with tempfile.TemporaryDirectory() as scratch:
        files, config = _files(Source.open(source), Path(scratch) / target.partition("@")[0].rpartition("/")[2])
        content: dict[str, Path | bytes] = {folder + name: path for name, path in files.items()}
        if CARD in files:
            content[folder + CARD] = _card(files[CARD], config["class"])
        message = message or f"Push {config['class']} after {config['step']} training steps"
        try:
            return _commit(content, repo, folder, branch, private, message)
        except ZooError:
            raise
        except Exception as error:
            raise ZooError(_explanation(error, repo)) from error


def _place(target: str) -> tuple[str, str, str]:
    """Return the repository, the folder in it ("" or ending in a slash), and the branch that a target names."""
    repo, folder, branch = hub_place(target)
    if "/" not in repo:
        raise ZooError(f"{target} has no owner; write hf:OWNER/{repo}, with the name of an organisation or user")
    is_branch = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", branch or "main") and ".." not in (branch or "")
    if not is_branch or re.fullmatch(r"[0-9a-f]{40}", branch or ""):
        raise ZooError(f"{target} cannot be written: {branch} is not a valid branch name; write hf:{repo}@branch")
    return repo, folder, branch or "main"


def _files(source: Source, scratch: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Return the verified files of a source by their names in the target, and the config of its last step.

    Args:
        source: The source.
        scratch: Folder into which a Lightning checkpoint is exported.
    """
    from zoo.export import export

    if source.path is None:
        source.folder()  # raises ZooError
    if isinstance(source.at(), LightningFile):
        source = Source.open(export(source, scratch))
    if source.kind == "run" or not source.steps:
        return _verified(source)
    card = (source.path or scratch) / CARD
    files = {CARD: card} if card.is_file() else {}
    for step in source.steps:
        below, config = _verified(source, step)
        files |= {f"{catalog.step_folder(step)}/{name}": file for name, file in below.items()}
    return files, config


def _verified(source: Source, step: int | None = None) -> tuple[dict[str, Path], dict[str, Any]]:
    """Return the files and the config of a zoo checkpoint, after checking all hashes."""
    source.load(step)
    folder = source.folder(step)
    config = source.zoo_part(step) or checkpoint_config.read(folder)
    names = [checkpoint_config.NAME, checkpoint_config.WEIGHTS, *config["files"], CARD]
    return {name: folder / name for name in names if (folder / name).is_file()}, config


def _card(path: Path, class_name: str) -> bytes:
    """Return a model card with front matter, which the hub uses for its search."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"{path} cannot be read as text: {error}") from None
    if not FRONT_MATTER.match(text):
        tags = ["superposition-zoo", "interpretability", class_name.lower()]
        lines = ["---", "library_name: superposition-zoo", "tags:", *(f"- {tag}" for tag in tags), "---", "", text]
        text = "\n".join(lines)
    return text.encode()


def _commit(content: dict[str, Path | bytes], repo: str, folder: str, branch: str, private: bool, message: str) -> str:
    """Replace the checkpoint in a folder of a branch by these files, and return the address of the commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise ZooError(f"hf:{repo} cannot be written while HF_HUB_OFFLINE is set; unset it and push again")
    if not (token := get_token()):
        raise ZooError(f"hf:{repo} cannot be written: you are not logged in; {LOG_IN}")
    api = HfApi(token=token)
    additions = [CommitOperationAdd(name, file) for name, file in content.items()]
    api.create_repo(repo, private=private or None, exist_ok=True)
    if private and not api.model_info(repo).private:
        raise ZooError(f"hf:{repo} exists already and is public; make it private on the hub, or push without private")
    if branch != "main":
        api.create_branch(repo, branch=branch, exist_ok=True)
    head = api.model_info(repo, revision=branch).sha
    old = re.compile(rf"{re.escape(folder)}(step-\d+/)?({'|'.join(map(re.escape, FILES))})")
    there = api.list_repo_files(repo, revision=head)
    for config in {f"{name.rpartition('/')[0]}/{checkpoint_config.NAME}".lstrip("/") for name in content} & {*there}:
        if not checkpoint_config.is_ours(Path(api.hf_hub_download(repo, config, revision=head))):
            raise ZooError(f"{config} of hf:{repo} belongs to another model; push to another repository or folder")
    stale = [name for name in there if old.fullmatch(name) and name not in (*content, folder + CARD)]
    operations: list[Any] = [*map(CommitOperationDelete, stale), *additions]
    commit = api.create_commit(repo, operations, commit_message=message, revision=branch, parent_commit=head)
    return commit.commit_url


def _explanation(error: Exception, repo: str) -> str:
    """Return one line that says which error occurred on the hub, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = textwrap.shorten(getattr(error, "server_message", None) or str(error) or type(error).__name__, 300)
    if status == 401:
        return f"hf:{repo} cannot be written: the hub does not accept your token; {LOG_IN}"
    if status == 403:
        return f"hf:{repo} cannot be written: your account or token has no permission for it ({reason}); {LOG_IN}"
    if status == 404:
        return f"hf:{repo} cannot be written: its owner does not exist or is not visible to you; check the name"
    if status in (409, 412):
        return f"hf:{repo} was changed by another commit meanwhile, and nothing was written; push again"
    if status == 400 or isinstance(error, ValueError):
        return f"hf:{repo} cannot be written: the request is not valid: {reason}"
    return f"hf:{repo} could not be written: {reason}; check that the hub can be reached, and push again"
