"""Tests of billing, laid out as the app is."""
