import pytest

from m3tune.review.project import open_project
from m3tune.review.sitting import Sitting
from reviewing import write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture
def project(run):
    return open_project(run)


@pytest.fixture
def sitting(project):
    return Sitting(project, "anna", project.queue("all"))
