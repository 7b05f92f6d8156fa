"""Tests, intervals and corrections, on arrays of per-query differences. numpy and scipy only."""
