"""A run that every page of the report can be made of."""

import pytest
from finished import make_run


@pytest.fixture(scope="session")
def better(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "better")
