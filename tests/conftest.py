"""Fixtures that every test may use."""

pytest_plugins = ["tests.postgres", "tests.records_fixtures"]
