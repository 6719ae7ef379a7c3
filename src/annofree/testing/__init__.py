"""Conformance suites, fakes and reference implementations for tests of the library and its extensions."""
