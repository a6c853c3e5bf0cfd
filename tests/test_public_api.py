"""The page of what the package promises is the package."""

import importlib
import inspect
from pathlib import Path

import pytest
import write_public_api


def test_the_page_of_the_public_api_lists_what_there_is():
    assert write_public_api.PAGE.read_text("utf-8") == write_public_api.page()


@pytest.mark.parametrize("name", write_public_api.PACKAGES)
def test_every_public_name_is_described_by_a_sentence(name):
    package = importlib.import_module(name)
    for member in write_public_api.public(package):
        if isinstance(thing := getattr(package, member), type) or inspect.isfunction(thing):
            assert len(write_public_api.sentence(thing)) > 10, member


def test_the_change_log_has_a_section_for_the_current_version():
    root = Path(__file__).parents[1]
    version = importlib.import_module("zoo").__version__
    assert f"## [{version}]" in (root / "CHANGELOG.md").read_text("utf-8")
    assert f"version: {version}" in (root / "CITATION.cff").read_text("utf-8")
