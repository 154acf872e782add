import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Nothing is read from the user's cache, or left there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
