"""Tests, intervals and corrections, on arrays of per-query differences. They use only numpy and scipy."""
