import pytest


@pytest.fixture(autouse=True)
def of_its_own(folders: None) -> None:
    """No test of the window reads or writes the user's cache."""
