"""What a run ran on, and the state of its git working tree against git's own word."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import pytest

from treadle.runs import collect_environment
from treadle.runs.git import describe

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git to compare with")


def git(folder, *arguments):
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "gc.auto=0"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", *settings, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path):
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    for name in ("top", "a/one", "a.txt", "a/b/two", "a-b", "z ü"):
        (tree / name).write_text(f"this is {name}")
    (tree / "link").symlink_to("top")
    (tree / "tool").write_text("#!/bin/sh")
    (tree / "tool").chmod(0o755)
    git(tree, "init", "-q", "-b", "main")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "first")
    return tree


def agree(tree, folder=None):
    """What we say, after seeing that git says the same."""
    said = describe(folder or tree)
    assert said["commit"] == git(tree, "rev-parse", "HEAD")
    assert said["dirty"] == bool(git(tree, "status", "--porcelain", "--untracked-files=no"))
    return said["dirty"]


def test_versions_and_command_and_nothing_private():
    found = collect_environment()
    assert found["python"] == platform.python_version()
    assert found["command"] == sys.argv
    assert found["versions"]["torch"].startswith("2.")
    assert platform.node() not in str({**found, "command": []}).split("'")


def test_outside_of_a_repository(tmp_path):
    assert describe(tmp_path) is None


@needs_git
@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_clean_and_every_way_to_be_dirty(tree, version):
    git(tree, "update-index", "--index-version", version)
    assert not agree(tree)
    assert not agree(tree, tree / "a" / "b")
    (tree / "untracked").write_text("x")
    assert not agree(tree)
    os.utime(tree / "top", (1, 1))
    assert not describe(tree)["dirty"]  # only touched
    (tree / "a/b/two").write_text("THIS is a/b/two")  # as long as before
    assert agree(tree)
    git(tree, "add", "a/b/two")
    assert agree(tree)
    git(tree, "commit", "-q", "-m", "second")
    assert not agree(tree)
    (tree / "a/one").unlink()
    assert agree(tree)
    git(tree, "checkout", "-q", "a/one")
    assert not agree(tree)
    (tree / "tool").chmod(0o644)
    assert agree(tree)
    (tree / "tool").chmod(0o755)
    (tree / "link").unlink()
    (tree / "link").symlink_to("a/one")
    assert agree(tree)
    git(tree, "reset", "-q", "--hard")
    git(tree, "add", "-N", "untracked")
    assert agree(tree)
    git(tree, "reset", "-q")
    assert not agree(tree)


@needs_git
def test_packed_references_detached_heads_worktrees_and_clones(tree):
    git(tree, "pack-refs", "--all")
    assert not agree(tree)
    git(tree, "checkout", "-q", "--detach")
    assert not agree(tree)
    git(tree, "worktree", "add", "-q", "../other", "-b", "side")
    other = tree.parent / "other"
    assert not agree(other)
    (other / "top").write_text("changed")
    assert agree(other)
    assert not agree(tree)
    git(tree, "gc", "-q")
    clone = tree.parent / "clone"
    git(tree, "clone", "-q", "--no-local", str(tree), str(clone))
    assert not agree(clone)
    (clone / "top").write_text("changed")
    assert agree(clone)
    git(clone, "add", "top")
    assert describe(clone)["dirty"] is None  # the commit is packed: what is staged cannot be compared


@needs_git
def test_before_the_first_commit_and_damaged_files(tmp_path, tree):
    git(tmp_path, "init", "-q", "new")
    assert describe(tmp_path / "new") == {"commit": None, "dirty": None}
    commit = git(tree, "rev-parse", "HEAD")
    for harm in (b"", b"DIRC\0\0\0\x02\0\0\xff\xff", b"garbage" * 100):
        (tree / ".git" / "index").write_bytes(harm)
        assert describe(tree) == {"commit": commit, "dirty": None}
    (tree / ".git" / "HEAD").write_text("ref: ../../../../etc/passwd\n")
    assert describe(tree) == {"commit": None, "dirty": None}
