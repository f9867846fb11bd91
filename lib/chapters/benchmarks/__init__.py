"""The chapter on costs: what the benchmarks measured."""
