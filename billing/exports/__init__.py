"""Exports of a month: one file per format, and a manifest over all of them."""
